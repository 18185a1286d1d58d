"""Tests of the adapters to other people's packages, with the real packages."""
