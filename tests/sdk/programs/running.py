"""Starts the programs of this room: this checkout importable, warnings as errors, no setting of the caller's."""

from __future__ import annotations

import os
import signal
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
    """Run one to its end. TimeoutExpired when it hangs; its children go with it."""
    command = [sys.executable, "-W", "error", str(PROGRAMS / f"{name}.py"), *map(str, arguments)]
    with subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(**env),
        start_new_session=True,
    ) as process:
        try:
            out, err = process.communicate(timeout=TIMEOUT_S)
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            raise
    return subprocess.CompletedProcess(command, process.returncode, out, err)
