"""`--demo`: drives the example agents against this process's own door, so that the page has something to show.

The agents are a process of their own, as real ones are: nothing of the server imports the SDK.
"""

from __future__ import annotations

import os
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import trio

from dunetrace.actors.base import first_of
from dunetrace.errors import StartError
from dunetrace.serving import sockets
from dunetrace.telemetry import log

if TYPE_CHECKING:
    from dunetrace.nursery import Context

SCRIPT = "demo.py"


class Demo:
    """Runs the example agents until a stop is asked for; they are started again if they end by themselves."""

    name = "demo"

    async def run(self, ctx: Context, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        command = [sys.executable, str(examples() / SCRIPT), "--forever", "--parent", str(os.getpid())]
        endpoint = f"http://{sockets.address_of(ctx.socket('ingest'))}"
        environment = {**os.environ, "DUNETRACE_ENDPOINT": endpoint}
        task_status.started()
        async with trio.open_nursery() as nursery:
            start = partial(trio.run_process, command, env=environment, stdout=sys.stderr.fileno(), check=False)
            process: trio.Process = await nursery.start(start)
            await first_of(ctx.stopping.wait, process.wait)
            if process.returncode is not None and not ctx.stopping.is_set():
                log.warning("demo.failed", exit_code=process.returncode)
            nursery.cancel_scope.cancel()  # ends the process if it still runs


def examples() -> Path:
    """Where the examples lie: inside an installed wheel, or beside the package in a checkout."""
    package = Path(__file__).resolve().parent.parent
    for directory in (package / "_examples", package.parent / "examples"):
        if (directory / SCRIPT).is_file():
            return directory
    raise StartError("--demo: the example agents are not part of this installation")
