"""The journal: what was accepted and is not in Postgres yet, as segments on disk.

It is the queue between the door and the writer, in both directions of time: `keep` appends and returns when the disk
has it, the writer reads the oldest records back from the file (the page cache holds them) and stores them, and what a
killed process left is simply what is read first after its restart. Nothing of it is held in memory, so a long queue
costs disk and no more. Storing a segment again is harmless, since every event has its key.

`actors/journal.py` moves what arrives to the disk; many requests share one sync.
"""

from __future__ import annotations

import errno
import math
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import msgspec
import trio

from dunetrace.actors.base import first_of
from dunetrace.batches import GROUP_BYTES, GROUP_EVENTS, MAX_QUEUED_EVENTS, Batch
from dunetrace.errors import QueueFullError, StoreUnavailableError
from dunetrace.journal.segment import HALF_MADE_SUFFIX, Gap, Record, SegmentReader, SegmentWriter
from dunetrace.shares import Shares
from dunetrace.telemetry import log

SEGMENT_BYTES: Final = 64 << 20
ROOM_AGAIN: Final = 15 / 16  # of its size, once it was full: else it would be full and not full with every request
RETRY_DISK_S: Final = 1.0  # while it refuses writes: nobody may come to try where /health keeps them away
GATHER_S: Final = 0.025  # between two reads of a short queue: nobody waits for it, and a transaction has its price
SUFFIX, DAMAGED_SUFFIX = ".segment", ".damaged"
_NO_ROOM: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_PASSING: Final = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)  # anything else makes a segment unreadable for good
_encode: Final = msgspec.msgpack.Encoder().encode
_decode: Final = msgspec.msgpack.Decoder(Batch).decode


class _Segment:
    """One file: readable up to `end`, stored up to `position`. `is_ours` until it is from an earlier process."""

    def __init__(self, path: Path, end: int, *, is_ours: bool) -> None:
        self.path, self.end, self.is_ours = path, end, is_ours
        self.position = 0
        self.is_live = is_ours
        self.lost_bytes = 0


class _Arrivals:
    """Requests that wait for the same sync."""

    def __init__(self) -> None:
        self.contents: list[bytes] = []
        self.batches: list[Batch] = []
        self.size_bytes = 0
        self.done = trio.Event()
        self.error: QueueFullError | None = None


class JournalGroup:
    """`batches.Group`: records of one segment up to `end`, and the gaps between them."""

    def __init__(self, journal: Journal, segment: _Segment) -> None:
        self._journal = journal
        self.segment = segment
        self.end = segment.position
        self.batches: list[Batch] = []
        self.gaps: list[Gap] = []

    def finish(self, error: StoreUnavailableError | None = None) -> None:
        """Stored: move on. With `error` all of it stays where it is, on the disk."""
        if error is None:
            self._journal.pass_over(self)


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
        wait on disk; unless `spool`, also at most `max_events`.
        """
        self._directory, self._max_bytes = directory, max_bytes
        self._store_state, self._sync, self._spool = store_state, sync, spool
        self._segment_bytes = min(SEGMENT_BYTES, max(max_bytes // 4, 1 << 16))
        self._shares = Shares(max_events)
        self._arriving = _Arrivals()
        self._arrived, self._work = trio.Event(), trio.Event()
        self._writer: SegmentWriter | None = None
        self._reader: SegmentReader | None = None
        self._unwritable = ""
        self._is_full = False
        self._read_at = -math.inf
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._damaged = sum(1 for _ in directory.glob(f"*{DAMAGED_SUFFIX}"))
        left = sorted(directory.glob(f"*{SUFFIX}"))
        self._segments = deque(_Segment(path, path.stat().st_size, is_ours=False) for path in left)
        names = [*left, *directory.glob(f"*{DAMAGED_SUFFIX}")]
        self._next_number = max((int(path.stem) for path in names if path.stem.isdecimal()), default=0) + 1
        for path in directory.glob(f"*{HALF_MADE_SUFFIX}"):
            path.unlink()
        if left:
            log.info("journal.found", segments=len(left), size_bytes=self.backlog_bytes)
        for before, path in pairwise(path for path in left if path.stem.isdecimal()):
            if (
                int(path.stem) - int(before.stem) > 1
            ):  # they are numbered without a hole, and deleted from the oldest on
                self._damaged += 1
                log.error("journal.damaged", segment=path.name, missing_before=True)

    @property
    def backlog_bytes(self) -> int:
        """What is on disk and not stored yet; of an earlier process's last segment also its unused room."""
        return sum(segment.end - segment.position for segment in self._segments)

    @property
    def queued_events(self) -> int:
        """Events accepted by this process that are not stored yet."""
        return self._shares.total

    def health(self) -> dict[str, Any]:
        """`state` is ok, full, disk_full, failing (the disk refuses writes) or damaged (accepted events were lost)."""
        self._note_full(0)
        damaged = self._damaged + sum(1 for segment in self._segments if segment.lost_bytes)
        return {
            "state": self._unwritable or ("full" if self._is_full else "damaged" if damaged else "ok"),
            "backlog_bytes": self.backlog_bytes,
            "damaged_segments": damaged,
        }

    # -- the door's side

    def check_room(self) -> None:
        """Raises StoreUnavailableError or QueueFullError when nothing gets in."""
        self._check_room(0)
        if not self._spool:
            self._shares.check()

    async def keep(self, batch: Batch) -> None:
        """Returns once the batch is on the disk. Raises QueueFullError, StoreUnavailableError at once."""
        content = _encode(batch)
        self._check_room(len(content))
        if not self._spool:
            self._shares.take(batch.owner, batch.events)
        arrivals = self._arriving
        arrivals.contents.append(content)
        arrivals.batches.append(batch)
        arrivals.size_bytes += len(content)
        self._arrived.set()
        # Cancelled or not, the batch is written: what is stored without an answer is what a retry expects.
        await arrivals.done.wait()
        if arrivals.error is not None:
            raise arrivals.error

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
            await trio.to_thread.run_sync(self._write, arrivals.contents)
            arrivals.error = None
        except OSError as error:
            self._retire(error)
        else:
            self._written()
        finally:
            if arrivals.error is not None and not self._spool:
                for batch in arrivals.batches:
                    self._shares.give_back(batch.owner, batch.events)
            arrivals.done.set()
        return len(arrivals.contents)

    def _write(self, contents: list[bytes]) -> None:
        """In a thread."""
        if self._writer is None or not self._writer.has_room(contents):
            if self._writer is not None:
                self._writer.close()
                self._writer = None
            path = self._directory / f"{self._next_number:016d}{SUFFIX}"
            self._writer = SegmentWriter(path, self._segment_bytes)
        self._writer.append(contents, sync=self._sync)
        stored = next((s.position for s in tuple(self._segments) if s.path == self._writer.path), 0)
        self._writer.note(self._writer.end, stored)

    def _written(self) -> None:
        writer = self._writer
        if writer is None:
            return
        last = self._segments[-1] if self._segments else None
        if last is None or last.path != writer.path:
            if last is not None:
                last.is_live = False
            last = _Segment(writer.path, writer.end, is_ours=True)
            self._segments.append(last)
            self._next_number += 1
        last.end = writer.end
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
        for segment in self._segments:
            segment.is_live = False
        self._work.set()
        if writer is not None:
            with suppress(OSError):  # the disk that failed before; what was synced is there
                writer.close()
            if all(segment.path != writer.path for segment in self._segments):
                with suppress(OSError):  # it failed with its first write: nothing was promised of it
                    writer.path.unlink()

    # -- the writer's side

    async def wait_for_work(self, stopping: trio.Event) -> bool:
        """False when a stop was asked for and all is stored. A short queue is given a moment to gather."""
        while not self._has_work():
            if stopping.is_set():
                return False
            self._work = trio.Event()
            await first_of(stopping.wait, self._work.wait)
        if self._shares.total < GROUP_EVENTS and not stopping.is_set():
            with trio.move_on_at(self._read_at + GATHER_S):
                await stopping.wait()
        return True

    def _has_work(self) -> bool:
        return any(segment.position < segment.end or not segment.is_live for segment in self._segments)

    async def head(self) -> JournalGroup:
        """The oldest records, up to a group; of one segment."""
        self._read_at = trio.current_time()
        return await trio.to_thread.run_sync(self._read, self._segments[0])

    def _read(self, segment: _Segment) -> JournalGroup:
        """In a thread."""
        group = JournalGroup(self, segment)
        try:
            self._read_records(segment, group)
        except OSError as error:
            if error.errno in _PASSING:
                raise
            group.gaps.append(Gap(group.end, segment.end, promised=True))
            group.end = segment.end
        return group

    def _read_records(self, segment: _Segment, group: JournalGroup) -> None:
        if self._reader is None or self._reader.path != segment.path:
            self._reader = SegmentReader(segment.path)
            segment.position = max(segment.position, self._reader.position)
        reader = self._reader
        reader.position = segment.position
        end = segment.end
        if segment.is_ours:
            reader.synced = end
        events = size_bytes = 0
        while (found := reader.next(end)) is not None:
            if isinstance(found, Gap):
                group.gaps.append(found)
            elif events >= GROUP_EVENTS or size_bytes >= GROUP_BYTES:
                break
            else:
                batch = _read_batch(found, group, reader.position)
                events += batch.events if batch else 0
                size_bytes += len(found.content)
            reader.position = found.end
        group.end = reader.position if found else end

    def pass_over(self, group: JournalGroup) -> None:
        """What is in `group`, which is the head, is stored; a segment that is done with is deleted."""
        segment = group.segment
        segment.position = group.end
        for batch in group.batches if segment.is_ours and not self._spool else ():
            self._shares.give_back(batch.owner, batch.events)
        for gap in group.gaps:
            lost_bytes = gap.end - gap.start
            if gap.promised:
                segment.lost_bytes += lost_bytes
                log.error("journal.damaged", segment=segment.path.name, at=gap.start, lost_bytes=lost_bytes)
            else:
                log.info("journal.unfinished_write", segment=segment.path.name, size_bytes=lost_bytes)
        if segment.position >= segment.end and not segment.is_live:
            self._remove(segment)

    def _remove(self, segment: _Segment) -> None:
        self._segments.popleft()
        if self._reader is not None:
            self._reader.close()
            self._reader = None
        if segment.lost_bytes:
            self._damaged += 1
            with suppress(FileNotFoundError):
                segment.path.rename(segment.path.with_suffix(DAMAGED_SUFFIX))
        else:
            segment.path.unlink(missing_ok=True)

    def close(self) -> None:
        """At the end of the process: what is stored already need not be read again."""
        writer = self._writer
        live = self._segments[-1] if self._segments else None
        if writer is not None and live is not None:
            with suppress(OSError):  # a hint only
                writer.note(live.end, live.position)
        self._close_writer()
        if live is not None and len(self._segments) == 1 and live.position >= live.end:
            self._remove(live)
        if self._reader is not None:
            self._reader.close()


def _read_batch(record: Record, group: JournalGroup, at: int) -> Batch | None:
    try:
        batch = _decode(record.content)
    except msgspec.MsgspecError:  # another version's
        group.gaps.append(Gap(at, record.end, promised=True))
        return None
    group.batches.append(batch)
    return batch
