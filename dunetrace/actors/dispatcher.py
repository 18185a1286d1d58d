"""The dispatcher: makes the deliveries of new signals, of what was gathered and of what is resolved, and wakes the
destinations that got some.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from dunetrace.actors.base import Pace, hint, wait
from dunetrace.errors import StoreUnavailableError
from dunetrace.store.writes.fanout import FanOut, fan_out
from dunetrace.store.writes.notes import tell_resolved
from dunetrace.store.writes.updates import Updates, tell_due

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import trio

    from dunetrace.alerts import Destination
    from dunetrace.nursery import Context

SPACING_S = 0.05  # between the beginnings of passes
SOON_S = 0.02  # after an update was due, so that it is due by Postgres' clock too


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
        self._names = [subscription.destination for subscription in self._subscriptions]
        self._told_of_ends = [wish.destination for wish in self._subscriptions if wish.resolved]
        self._wake = wake
        self._hints = hints
        self._made_at = time.monotonic()

    async def run(self, ctx: Context, *, task_status: trio.TaskStatus[None]) -> None:
        task_status.started()
        pace = Pace(SPACING_S)
        while not ctx.stopping.is_set():
            await pace.begin(ctx.stopping)
            pause_s = ctx.settings.alert_interval_s
            try:
                more = (await self.run_once(ctx)).more
                if not more:
                    updates = await self.tell_late(ctx)
                    more = updates.more
                    if updates.wait_s is not None:
                        pause_s = min(pause_s, updates.wait_s + SOON_S)
            except StoreUnavailableError:
                more = False
            if not more:
                await wait(self._wake, ctx.stopping, pause_s)

    async def run_once(self, ctx: Context) -> FanOut:
        """One pass over ≤ 500 signals. StoreUnavailableError while Postgres is away."""
        done: FanOut = await ctx.gateway.unit(fan_out, self._subscriptions, self._made_at)
        self._hint(done.told)
        return done

    async def tell_late(self, ctx: Context) -> Updates:
        """One pass over what is told after its signals: resolved issues, and updates that are due. As `run_once`."""
        self._hint(await ctx.gateway.unit(tell_resolved, self._told_of_ends))
        updates: Updates = await ctx.gateway.unit(tell_due, self._names)
        self._hint(updates.told)
        return updates

    def _hint(self, told: frozenset[str]) -> None:
        for destination in told & self._hints.keys():
            hint(self._hints[destination])
