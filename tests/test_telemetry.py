"""The log tells what happens and never makes anything happen."""

from __future__ import annotations

import subprocess
import sys

LOGGING = "from dunetrace import telemetry as t; t.configure('INFO'); t.log.info('process.started'); print('alive')"


def test_a_log_that_cannot_be_written_is_no_error() -> None:
    """As on a disk that is full: each line is lost, and the process goes on."""
    with open("/dev/full", "w") as full:  # noqa: PTH123
        done = subprocess.run([sys.executable, "-c", LOGGING], stdout=subprocess.PIPE, stderr=full, check=False)
    assert done.stdout == b"alive\n"
