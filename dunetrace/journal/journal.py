"""The journal: what was accepted and is not in Postgres yet, as segments on disk.

It is the queue between the door and the writer, in both directions of time: `keep` appends and returns when the disk
has it, the writer reads the oldest records back from the file (the page cache holds them) and stores them, and what a
killed process left is simply what is read first after its restart. Nothing of it is held in memory, so a long queue
costs disk and no more. Storing a segment again is harmless, since every event has its key.

The way of a batch: `keep` (the door) → `write_arrivals` (`actors/journal.py`: many requests share one sync) → a segment
on disk (`segment.py`) → `head` (the writer; `backlog.py` reads it) → stored, and once all of its segment is, deleted.
"""

from __future__ import annotations

import errno
import math
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import msgspec
import trio

from dunetrace.actors.base import first_of
from dunetrace.batches import GROUP_BYTES, MAX_QUEUED_EVENTS, Batch
from dunetrace.errors import QueueFullError, StoreUnavailableError
from dunetrace.journal.backlog import Backlog, JournalGroup
from dunetrace.journal.segment import SegmentWriter
from dunetrace.shares import Shares
from dunetrace.telemetry import log

SEGMENT_BYTES: Final = 64 << 20
ROOM_AGAIN: Final = 15 / 16  # of its size, once it was full: else it would be full and not full with every request
RETRY_DISK_S: Final = 1.0  # while it refuses writes: nobody may come to try where /health keeps them away
GATHER_S: Final = 0.025  # between two reads of a short queue: nobody waits for it, and a transaction has its price
_NO_ROOM: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_encode: Final = msgspec.msgpack.Encoder().encode


class _Arrivals:
    """Requests that wait for the same sync."""

    def __init__(self) -> None:
        self.contents: list[bytes] = []
        self.held: list[tuple[str, int]] = []  # owners, and what they took of their shares
        self.size_bytes = 0
        self.done = trio.Event()
        self.error: QueueFullError | None = None


class Journal:
    """`batches.Queue` on disk. Owned by the supervisor, so that it outlives every attempt of door and writer."""

    def __init__(
        self,
        directory: Path,
        *,
        max_bytes: int,
        store_state: Callable[[], str],
        sync: bool = True,
        spool: bool = False,
        max_events: int = MAX_QUEUED_EVENTS,
    ) -> None:
        """The files lie in `directory`, which belongs to this process alone. OSError when it can't be used.

        `store_state` is the gateway's: while it is not "ok", nothing is accepted unless `spool`. At most `max_bytes`
        wait on disk; unless `spool`, also at most `max_events`. Keys have shares of these, of the bytes if `spool`.
        """
        self._max_bytes = max_bytes
        self._store_state, self._sync, self._spool = store_state, sync, spool
        self._segment_bytes = min(SEGMENT_BYTES, max(max_bytes // 8, 1 << 16))
        # A spool is there to be filled, and what lies in it is in nobody's way; a queue is what others wait behind.
        self._shares = Shares(max_bytes, free=max_bytes * 7 // 8) if spool else Shares(max_events)
        self._backlog = Backlog(directory)
        self._arriving = _Arrivals()
        self._arrived, self._work = trio.Event(), trio.Event()
        self._writer: SegmentWriter | None = None
        self._unwritable = ""
        self._is_full = False
        self._read_at = -math.inf

    @property
    def backlog_bytes(self) -> int:
        """What is on disk and not stored yet; of an earlier process's last segment also its unused room."""
        return self._backlog.size_bytes

    def health(self) -> dict[str, Any]:
        """`state` says the worst that is so.

        It is ok, full, disk_full, failing (the disk refuses writes), damaged (accepted events were lost) or
        other_version (segments wait for the version that wrote them).
        """
        self._note_full(0)
        damaged = self._backlog.damaged
        kept = "damaged" if damaged else "other_version" if self._backlog.of_other_versions else "ok"
        return {
            "state": self._unwritable or ("full" if self._is_full else kept),
            "backlog_bytes": self.backlog_bytes,
            "damaged_segments": damaged,
        }

    # -- the door's side

    def check_room(self) -> None:
        """Raises StoreUnavailableError or QueueFullError when nothing gets in."""
        self._check_room(0)
        self._shares.check()

    async def keep(self, batch: Batch) -> None:
        """Returns once the batch is on the disk. Raises QueueFullError, StoreUnavailableError at once."""
        content = _encode(batch)
        self._check_room(len(content))
        amount = self._amount(batch, len(content))
        self._shares.take(batch.owner, amount)
        arrivals = self._arriving
        arrivals.contents.append(content)
        arrivals.held.append((batch.owner, amount))
        arrivals.size_bytes += len(content)
        self._arrived.set()
        # Cancelled or not, the batch is written: what is stored without an answer is what a retry expects.
        await arrivals.done.wait()
        if arrivals.error is not None:
            raise arrivals.error

    def _amount(self, batch: Batch, size_bytes: int) -> int:
        """What it takes of its owner's share."""
        return size_bytes if self._spool else batch.events

    def _check_room(self, size_bytes: int) -> None:
        if not self._spool and (state := self._store_state()) != "ok":
            raise StoreUnavailableError(state)
        self._note_full(size_bytes)
        if self._is_full:
            raise QueueFullError("The journal is full until Postgres takes what is in it; try again")

    def _note_full(self, size_bytes: int) -> None:
        """Whether `size_bytes` more would be too much. What is larger than all of it fits an empty one."""
        waiting_bytes = self.backlog_bytes + self._arriving.size_bytes
        limit_bytes = self._max_bytes * (ROOM_AGAIN if self._is_full else 1)
        is_full = waiting_bytes > 0 and waiting_bytes + size_bytes > limit_bytes
        if is_full != self._is_full:
            self._is_full = is_full
            log.warning("journal.full" if is_full else "journal.writable", backlog_bytes=waiting_bytes)

    # -- the journal actor's side

    async def wait_for_arrivals(self, stopping: trio.Event) -> bool:
        """False when a stop was asked for and nothing waits for the disk. A disk that refused is tried again."""
        while not self._arriving.contents:
            if stopping.is_set():
                return False
            self._arrived = trio.Event()
            with trio.move_on_after(RETRY_DISK_S if self._unwritable else math.inf) as waited:
                await first_of(stopping.wait, self._arrived.wait)
            if waited.cancelled_caught:
                return True
        return True

    async def write_arrivals(self) -> int:
        """Bring what waits to the disk and answer it. Returns how many requests that were; a full disk refuses them."""
        arrivals, self._arriving = self._arriving, _Arrivals()
        arrivals.error = QueueFullError("The journal could not be written; try again")
        try:
            writer = await trio.to_thread.run_sync(self._write, arrivals.contents)
            arrivals.error = None
        except OSError as error:
            self._retire(error)
        else:
            self._written(writer, arrivals.held)
        finally:
            if arrivals.error is not None:
                for owner, amount in arrivals.held:
                    self._shares.give_back(owner, amount)
            arrivals.done.set()
        return len(arrivals.contents)

    def _write(self, contents: list[bytes]) -> SegmentWriter:
        """In a thread."""
        if self._writer is not None and not self._writer.has_room(contents):
            self._writer.close()
            self._writer = None
        if self._writer is None:
            self._writer = self._backlog.begin(self._segment_bytes)
        self._writer.append(contents, sync=self._sync)
        self._writer.note(self._writer.end, self._backlog.position_in(self._writer) or 0)
        return self._writer

    def _written(self, writer: SegmentWriter, held: list[tuple[str, int]]) -> None:
        segment = self._backlog.grow(writer)
        for owner, amount in held:
            segment.held[owner] += amount
        self._work.set()
        if self._unwritable:
            self._unwritable = ""
            log.info("journal.writable")

    def _retire(self, error: OSError) -> None:
        """After a failed write nobody knows what the disk has of it: the segment ends where it was good."""
        state = "disk_full" if error.errno in _NO_ROOM else "failing"
        if self._unwritable != state:
            log.error("journal.unwritable", state=state, error=errno.errorcode.get(error.errno or 0, "unknown"))
        self._unwritable = state
        self._close_writer()

    def _close_writer(self) -> None:
        writer, self._writer = self._writer, None
        self._backlog.end_live()
        self._work.set()
        if writer is not None:
            with suppress(OSError):  # the disk that failed before; what was synced is there
                writer.close()
            self._backlog.abandon(writer)

    # -- the writer's side

    async def wait_for_work(self, stopping: trio.Event) -> bool:
        """False when a stop was asked for and all is stored. A short queue is given a moment to gather."""
        while not self._backlog.has_work():
            if stopping.is_set():
                return False
            self._work = trio.Event()
            await first_of(stopping.wait, self._work.wait)
        if self.backlog_bytes < GROUP_BYTES and not stopping.is_set():
            with trio.move_on_at(self._read_at + GATHER_S):
                await stopping.wait()
        return True

    async def head(self) -> JournalGroup:
        """The oldest records, up to a group; of one segment."""
        self._read_at = trio.current_time()
        return await trio.to_thread.run_sync(self._backlog.read, self._pass_over)

    def _pass_over(self, group: JournalGroup) -> None:
        held = group.segment.held
        # What an earlier process left takes room, but no share: it belongs to nobody.
        for batch, size_bytes in zip(group.batches, group.sizes_bytes, strict=True) if group.segment.is_ours else ():
            amount = self._amount(batch, size_bytes)
            held[batch.owner] -= amount
            self._shares.give_back(batch.owner, amount)
        if self._backlog.pass_over(group):
            for owner, amount in held.items():  # of records that were lost
                self._shares.give_back(owner, amount)

    def close(self) -> None:
        """At the end of the process: what is stored already need not be read again."""
        if self._writer is not None and (stored := self._backlog.position_in(self._writer)) is not None:
            with suppress(OSError):  # a hint only
                self._writer.note(self._writer.end, stored)
        self._close_writer()
        self._backlog.close()
