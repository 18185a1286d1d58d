"""The promise ``journal``: a 202 means that the batch is on this machine's disk."""
