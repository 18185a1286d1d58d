"""The writer: takes what ingest accepted and appends it to Postgres, many requests in one transaction.

What is in hand when the writer crashes stays at the head of the queue and is written by the next attempt, under the
same event keys, so nothing is lost or stored twice.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import trio

from dunetrace.batches import Batch
from dunetrace.errors import RowRefusedError, StoreUnavailableError
from dunetrace.store import packing
from dunetrace.store.gateway import UniqueViolationError
from dunetrace.store.writes import events as event_writes
from dunetrace.telemetry import log

if TYPE_CHECKING:
    from dunetrace.nursery import Context
    from dunetrace.store.gateway import Gateway

OUTAGE_WAIT_S: Final = 0.5  # between attempts while Postgres is away


class Writer:
    """Writes groups of batches until a stop is asked for and the queue is empty, or Postgres is away."""

    name = "writer"

    async def run(self, ctx: Context, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        task_status.started()
        while await ctx.promise.wait_for_work(ctx.stopping):
            if await self.run_once(ctx) is None:
                if ctx.stopping.is_set():
                    return  # what is queued is on disk, or its requests were answered
                with trio.move_on_after(OUTAGE_WAIT_S):
                    await ctx.stopping.wait()

    async def run_once(self, ctx: Context) -> int | None:
        """One group. Returns the number of events that were new; None when Postgres is away."""
        group = await ctx.promise.head()
        new = 0
        if group.batches:
            try:
                new = await self._append(ctx.gateway, group.batches)
            except StoreUnavailableError as error:
                group.finish(error)
                return None
        group.finish()
        if new:
            ctx.bell.ring("poller")
        return new

    async def _append(self, gateway: Gateway, batches: Sequence[Batch]) -> int:
        """All in one transaction; when Postgres refuses a row, halve until it stands alone, and set that one aside."""
        try:
            try:
                return await gateway.unit(event_writes.append, batches)
            except UniqueViolationError:
                return await gateway.unit(event_writes.append_new, batches)
        except RowRefusedError as error:
            if len(batches) > 1:
                middle = len(batches) // 2
                first, second = batches[:middle], batches[middle:]
            else:
                (batch,) = batches
                rows = list(packing.unpack(batch.rows))
                if len(rows) == 1:
                    await gateway.unit(event_writes.set_aside, rows[0], error.reason)
                    log.error("events.set_aside", event_type=rows[0].event_type, error=error.reason)
                    return 0
                middle = len(rows) // 2
                first = packing.pack(rows[:middle], batch.owner, batch.loss)
                second = packing.pack(rows[middle:], batch.owner)
            return await self._append(gateway, first) + await self._append(gateway, second)
