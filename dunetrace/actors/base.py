"""What every actor is, and the one way its loop waits."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Protocol

import trio

if TYPE_CHECKING:
    from dunetrace.nursery import Context


class Actor(Protocol):
    """A loop under the supervisor. `run_once`, where it has one, is a pass of work and what tests aim at."""

    name: str

    async def run(self, ctx: Context, *, task_status: trio.TaskStatus[None]) -> None:
        """Loop until `ctx.stopping` is set. Calls `task_status.started()` once it can do its job."""


async def first_of(*waits: Callable[[], Awaitable[object]]) -> None:
    """Return as soon as one of `waits` has; the others are cancelled."""
    async with trio.open_nursery() as nursery:

        async def one(wait_for: Callable[[], Awaitable[object]]) -> None:
            await wait_for()
            nursery.cancel_scope.cancel()

        for wait_for in waits[1:]:
            nursery.start_soon(one, wait_for)
        await one(waits[0])


async def wait(wake: trio.MemoryReceiveChannel[None], stopping: trio.Event, timeout_s: float) -> None:
    """Until a hint, a stop or `timeout_s` seconds, whichever comes first. Hints that piled up count as one."""
    with trio.move_on_after(max(0.0, timeout_s)):
        await first_of(stopping.wait, wake.receive)
    while True:
        try:
            wake.receive_nowait()
        except (trio.WouldBlock, trio.EndOfChannel):
            return


def hint(channel: trio.MemorySendChannel[None]) -> None:
    """Wake the other end, without ever waiting: a full channel has a hint in it already, a closed one needs none."""
    try:
        channel.send_nowait(None)
    except (trio.WouldBlock, trio.BrokenResourceError, trio.ClosedResourceError):
        return
