"""Agents as real processes, started by `test_nothing_lost` with an endpoint and what they are to do."""
