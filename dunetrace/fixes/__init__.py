"""From a signal to a fix: the run's trace from the user's Langfuse, a model's reading of it, a prompt's new version.

On a person's click only. What is read passes through memory into the one answer: nothing of it is stored or logged.
"""
