"""The bench of auto-instrumentation runs; how long it takes is for the bench itself."""

from __future__ import annotations

import subprocess
import sys

from tests.shared import CHECKOUT


def test_it_compares_calls_with_and_without() -> None:
    command = [sys.executable, "-W", "error", "-m", "bench.instrument", "--calls", "2", "--blocks", "2"]
    done = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert [line.split("as it is")[0].strip() for line in done.stdout.splitlines()] == [
        "an httpx request", "an openai answer", "an openai stream of 50",
    ]  # fmt: skip
