"""The dispatcher: makes the deliveries of new signals and wakes the destinations that got some."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from dunetrace.actors.base import hint, wait
from dunetrace.errors import StoreUnavailableError
from dunetrace.store.writes.fanout import FanOut, fan_out

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import trio

    from dunetrace.alerts import Destination
    from dunetrace.nursery import Context


class Dispatcher:
    """One a process; any number of processes may run one.

    `wake` brings the hint that signals were written, `hints` has each destination actor's by destination name.
    Make it before the pollers run: a new destination counts as configured from this moment on.
    """

    name = "dispatcher"

    def __init__(
        self,
        destinations: Sequence[Destination],
        wake: trio.MemoryReceiveChannel[None],
        hints: Mapping[str, trio.MemorySendChannel[None]],
    ) -> None:
        self._subscriptions = [destination.subscription for destination in destinations]
        self._wake = wake
        self._hints = hints
        self._made_at = time.monotonic()

    async def run(self, ctx: Context, *, task_status: trio.TaskStatus[None]) -> None:
        task_status.started()
        while not ctx.stopping.is_set():
            try:
                more = (await self.run_once(ctx)).more
            except StoreUnavailableError:
                more = False
            if not more:
                await wait(self._wake, ctx.stopping, ctx.settings.alert_interval_s)

    async def run_once(self, ctx: Context) -> FanOut:
        """One pass over ≤ 500 signals. StoreUnavailableError while Postgres is away."""
        done: FanOut = await ctx.gateway.unit(fan_out, self._subscriptions, self._made_at)
        for destination in done.told & self._hints.keys():
            hint(self._hints[destination])
        return done
