"""What every actor is, and the ways its loop waits."""

from __future__ import annotations

import math
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


class Pace:
    """Spaces passes of work: one begins no sooner than `spacing_s` after the one before, and finds what came meanwhile.

    A pass costs much the same whatever it finds. After a rest the next one begins at once.
    """

    def __init__(self, spacing_s: float) -> None:
        self.spacing_s = spacing_s
        self._began_at = -math.inf

    async def begin(self, stopping: trio.Event) -> None:
        """Wait until a pass may begin, or for a stop."""
        with trio.move_on_at(self._began_at + self.spacing_s):
            await stopping.wait()
        self._began_at = trio.current_time()


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
