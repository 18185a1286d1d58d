"""Passes hints between processes that share one Postgres: NOTIFY for what was rung here, LISTEN for the others.

One NOTIFY a tenth of a second at the most, from a transaction of its own: NOTIFY serialises commits, so it must not
ride in the transactions of the door or of the judging.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING
from uuid import uuid4

import trio

from dunetrace.errors import StoreUnavailableError
from dunetrace.store.writes.notices import notify

if TYPE_CHECKING:
    from dunetrace.nursery import Context

CHANNEL = "dunetrace"
EVERY_S = 0.1
RETRY_S = 1.0


class Wakeups:
    """Runs both directions until a stop is asked for. Losing a hint is harmless, so an outage is only waited out."""

    name = "wakeups"

    def __init__(self) -> None:
        self._me = uuid4().hex[:12]

    async def run(self, ctx: Context, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        task_status.started()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._pass_on, ctx)
            nursery.start_soon(self._hear, ctx)
            await ctx.stopping.wait()
            nursery.cancel_scope.cancel()

    async def _pass_on(self, ctx: Context) -> None:
        while True:
            await ctx.bell.rung.wait()
            names = ctx.bell.take_rung()
            with suppress(StoreUnavailableError):  # else the others look by themselves
                await ctx.gateway.unit(notify, CHANNEL, f"{self._me} {' '.join(names)}")
            await trio.sleep(EVERY_S)

    async def _hear(self, ctx: Context) -> None:
        def heard(payload: str) -> None:
            sender, *names = payload.split(" ")
            if sender != self._me:
                for name in names:
                    ctx.bell.ring_here(name)

        while True:
            try:
                await ctx.gateway.listen(CHANNEL, heard)
            except StoreUnavailableError:
                await trio.sleep(RETRY_S)
