"""The fleet's watch: looks whether a failure became more frequent, and has those told who want to know.

Any number of processes may run one: each look is a transaction that only one of them makes. What counts as a rise is
decided in `dunetrace/fleet.py`; it is told as any other alert, by the destinations' actors.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import trio

from dunetrace.actors.base import hint
from dunetrace.errors import StoreUnavailableError
from dunetrace.store.writes import fleet
from dunetrace.telemetry import log

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from dunetrace.alerts import Destination
    from dunetrace.nursery import Context
    from dunetrace.signals import FailureType

LOOK_S = 60.0  # a rise is seen in dozens of runs, so a minute is soon; looking for nothing costs a few milliseconds


class Fleet:
    """One a process. `hints` has each destination actor's by destination name. Make it before the pollers run."""

    name = "fleet"

    def __init__(self, destinations: Sequence[Destination], hints: Mapping[str, trio.MemorySendChannel[None]]) -> None:
        self._subscriptions = [destination.subscription for destination in destinations]
        self._hints = hints
        self._made_at = time.monotonic()

    async def run(self, ctx: Context, *, task_status: trio.TaskStatus[None]) -> None:
        task_status.started()
        while not ctx.stopping.is_set():
            wait_s = LOOK_S
            if ctx.settings.fleet_alerts:
                try:
                    await self.run_once(ctx)
                except StoreUnavailableError:
                    wait_s = ctx.settings.alert_interval_s
            with trio.move_on_after(wait_s):
                await ctx.stopping.wait()

    async def run_once(self, ctx: Context) -> list[FailureType]:
        """Make every look that is due; what was found. StoreUnavailableError while Postgres is away."""
        found: list[FailureType] = []
        await ctx.gateway.unit(fleet.watch)
        for watched in await ctx.gateway.unit(fleet.due):
            if ctx.stopping.is_set():
                break
            risen = await ctx.gateway.unit(fleet.look, watched, ctx.settings.fleet_error_rate)
            if risen:
                log.info("fleet.risen", agent=watched.agent_id, scope=watched.scope, failure_types=risen)
            found += risen
        for destination in await ctx.gateway.unit(fleet.fan_out, self._subscriptions, self._made_at):
            if destination in self._hints:
                hint(self._hints[destination])
        return found
