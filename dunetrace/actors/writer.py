"""The writer: takes what ingest accepted and appends it to Postgres, many requests in one transaction.

`CommitPromise` is the queue between the two and the promise behind the 202: a request's `keep` returns when its rows
are committed. What is in hand when the writer crashes stays at the head of the queue and is written by the next
attempt, under the same event keys, so nothing is lost or stored twice.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

import trio

from dunetrace.actors.base import first_of
from dunetrace.batches import Batch
from dunetrace.errors import QueueFullError, RowRefusedError, StoreUnavailableError
from dunetrace.store.writes import events as event_writes
from dunetrace.telemetry import log

if TYPE_CHECKING:
    from dunetrace.nursery import Context
    from dunetrace.store.gateway import Gateway

MAX_QUEUED_EVENTS = 200_000  # about 10 s of the fastest door, and under 200 MiB as Python rows
MAX_QUEUED_BYTES = 128 * 1024 * 1024  # the same bound as all bodies in hand
GROUP_EVENTS = 5_000  # where COPY's rows per second stop growing


class _Kept:
    """One batch in the queue, and how it ended."""

    __slots__ = ("batch", "done", "error")

    def __init__(self, batch: Batch) -> None:
        self.batch = batch
        self.done = trio.Event()
        self.error: StoreUnavailableError | None = None


class CommitPromise:
    """`batches.Promise` by group commit. Owned by the supervisor, so that it outlives every attempt of the writer."""

    def __init__(self) -> None:
        self._queue: deque[_Kept] = deque()
        self._arrived = trio.Event()
        self.queued_events = 0
        self.queued_bytes = 0

    async def keep(self, batch: Batch) -> None:
        """Returns once the batch is committed. Raises QueueFullError at once, StoreUnavailableError while away."""
        events = len(batch.rows)
        if self.queued_events and (
            self.queued_events + events > MAX_QUEUED_EVENTS or self.queued_bytes + batch.size_bytes > MAX_QUEUED_BYTES
        ):
            raise QueueFullError
        kept = _Kept(batch)
        self._queue.append(kept)
        self.queued_events += events
        self.queued_bytes += batch.size_bytes
        self._arrived.set()
        # A request that is cancelled leaves its batch in the queue: it may be in the transaction already, and what is
        # stored without an answer is what a retry with the same keys expects.
        await kept.done.wait()
        if kept.error is not None:
            raise kept.error

    async def wait_for_work(self, stopping: trio.Event) -> bool:
        """False when a stop was asked for and nothing is queued."""
        while not self._queue:
            if stopping.is_set():
                return False
            await first_of(stopping.wait, self._arrived.wait)
        return True

    def head(self) -> list[_Kept]:
        """The oldest batches, up to a group; they stay queued until `finish`."""
        group: list[_Kept] = []
        events = 0
        for kept in self._queue:
            if group and events + len(kept.batch.rows) > GROUP_EVENTS:
                break
            group.append(kept)
            events += len(kept.batch.rows)
        return group

    def finish(self, group: list[_Kept], error: StoreUnavailableError | None = None) -> None:
        """Take `group`, which is the head, off the queue and answer its requests."""
        for kept in group:
            self._queue.popleft()
            self.queued_events -= len(kept.batch.rows)
            self.queued_bytes -= kept.batch.size_bytes
            kept.error = error
            kept.done.set()
        if not self._queue:
            self._arrived = trio.Event()


class Writer:
    """Writes groups of batches until a stop is asked for and the queue is empty."""

    name = "writer"

    async def run(self, ctx: Context, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        task_status.started()
        while await ctx.promise.wait_for_work(ctx.stopping):
            await self.run_once(ctx)

    async def run_once(self, ctx: Context) -> int:
        """One group. Returns the number of events that were new; 0 when Postgres is away and requests were told so."""
        group = ctx.promise.head()
        if not group:
            return 0
        try:
            new = await self._append(ctx.gateway, [kept.batch for kept in group])
        except StoreUnavailableError as error:
            ctx.promise.finish(group, error)
            return 0
        ctx.promise.finish(group)
        if new:
            ctx.bell.ring("poller")
        return new

    async def _append(self, gateway: Gateway, batches: list[Batch]) -> int:
        """All in one transaction; when Postgres refuses a row, halve until it stands alone, and set that one aside."""
        try:
            return await gateway.unit(event_writes.append, batches)
        except RowRefusedError as error:
            rows = [row for batch in batches for row in batch.rows]
            if len(rows) == 1:
                await gateway.unit(event_writes.set_aside, rows[0], error.reason)
                log.error("events.set_aside", event_type=rows[0].event_type, error=error.reason)
                return 0
            first, second = _halves(batches)
            return await self._append(gateway, first) + await self._append(gateway, second)


def _halves(batches: list[Batch]) -> tuple[list[Batch], list[Batch]]:
    if len(batches) > 1:
        middle = len(batches) // 2
        return batches[:middle], batches[middle:]
    (batch,) = batches
    middle = len(batch.rows) // 2
    return (
        [Batch(batch.rows[:middle], batch.size_bytes, batch.losses)],
        [Batch(batch.rows[middle:], 0)],
    )
