"""The guard's bench runs and says what was asked; how long it takes is for the bench itself."""

from __future__ import annotations

import subprocess
import sys

from tests.shared import CHECKOUT


def test_it_measures_and_says_what_was_asked() -> None:
    command = [sys.executable, "-W", "error", "-m", "bench.guard", "--runs", "2", "--blocks", "2", "--events", "400"]
    done = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    first, *_, last = done.stdout.splitlines()
    assert first.startswith("a normal run") and "µs an event" in first
    assert last.startswith("asked: below 10 µs an event")
