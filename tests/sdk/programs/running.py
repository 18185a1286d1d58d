"""Starts the programs of this room: with this checkout importable, warnings as errors, and no setting of the caller's."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.shared import CHECKOUT

PROGRAMS = Path(__file__).parent
TIMEOUT_S = 60


def environment(**more: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("DUNETRACE_")}
    return {**kept, "PYTHONPATH": str(CHECKOUT), **more}


@contextmanager
def running(log: Path, *command: str, **env: str) -> Iterator[subprocess.Popen[bytes]]:
    """Python with these arguments, all it says in `log`; killed at the end if it still runs."""
    with log.open("wb") as said:
        process = subprocess.Popen(
            [sys.executable, *command],
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=subprocess.STDOUT,
            env=environment(**env),
        )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def program(name: str, *arguments: object, **env: str) -> subprocess.CompletedProcess[str]:
    """Run one to its end. TimeoutExpired when it hangs."""
    return subprocess.run(
        [sys.executable, "-W", "error", PROGRAMS / f"{name}.py", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
        env=environment(**env),
    )
