"""The promise ``commit``: a 202 waits for the transaction that stores its batch. For hosts without a disk of their own.

Owned by the supervisor, so that it outlives every attempt of the writer: what is in hand when the writer crashes stays
at the head of the queue and is written by the next attempt, under the same event keys.
"""

from __future__ import annotations

from collections import deque
from typing import Any

import trio

from dunetrace.actors.base import first_of
from dunetrace.batches import GROUP_BYTES, GROUP_EVENTS, MAX_QUEUED_EVENTS, Batch
from dunetrace.errors import QueueFullError, StoreUnavailableError
from dunetrace.shares import Shares

MAX_QUEUED_BYTES = 128 * 1024 * 1024


class _Kept:
    """One batch in the queue, and how it ended."""

    __slots__ = ("batch", "done", "error", "events")

    def __init__(self, batch: Batch) -> None:
        self.batch = batch
        self.events = batch.events
        self.done = trio.Event()
        self.error: StoreUnavailableError | None = None


class CommitPromise:
    """`batches.Queue` in memory."""

    def __init__(self, max_events: int = MAX_QUEUED_EVENTS) -> None:
        self._queue: deque[_Kept] = deque()
        self._arrived = trio.Event()
        self._shares = Shares(max_events)
        self.queued_bytes = 0

    @property
    def queued_events(self) -> int:
        return self._shares.total

    def check_room(self) -> None:
        """Raises QueueFullError when nothing gets in. That Postgres is away shows in its answer to a batch."""
        self._shares.check()
        if self.queued_bytes >= MAX_QUEUED_BYTES:
            raise QueueFullError

    async def keep(self, batch: Batch) -> None:
        """Returns once the batch is committed. Raises QueueFullError at once, StoreUnavailableError while away."""
        size_bytes = len(batch.rows)
        if self._queue and self.queued_bytes + size_bytes > MAX_QUEUED_BYTES:
            raise QueueFullError
        kept = _Kept(batch)
        self._shares.take(batch.owner, kept.events)
        self._queue.append(kept)
        self.queued_bytes += size_bytes
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

    async def head(self) -> _CommitGroup:
        """The oldest batches, up to a group."""
        await trio.lowlevel.checkpoint()
        group: list[_Kept] = []
        events = size_bytes = 0
        for kept in self._queue:
            events += kept.events
            size_bytes += len(kept.batch.rows)
            if group and (events > GROUP_EVENTS or size_bytes > GROUP_BYTES):
                break
            group.append(kept)
        return _CommitGroup(self, group)

    def health(self) -> dict[str, Any] | None:
        """Nothing: there is no disk under it."""
        return None

    def finish(self, group: list[_Kept], error: StoreUnavailableError | None) -> None:
        """Take `group`, which is the head, off the queue and answer its requests."""
        for kept in group:
            self._queue.popleft()
            self.queued_bytes -= len(kept.batch.rows)
            self._shares.give_back(kept.batch.owner, kept.events)
            kept.error = error
            kept.done.set()
        if not self._queue:
            self._arrived = trio.Event()


class _CommitGroup:
    """`batches.Group` of requests that wait for their answer."""

    def __init__(self, promise: CommitPromise, kept: list[_Kept]) -> None:
        self._promise, self._kept = promise, kept
        self.batches = [one.batch for one in kept]

    def finish(self, error: StoreUnavailableError | None = None) -> None:
        """The requests are answered, with an error too: their clients send them again."""
        self._promise.finish(self._kept, error)
