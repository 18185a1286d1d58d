"""What of the journal is on disk and not stored yet: its segments, the oldest first, and the reading of them.

`journal.py` has the segments written to and reads groups of records off the front; what an earlier process left is
simply what is at the front after a start. Whatever cannot be read is told, and kept aside for a person to look at.

Beside each segment `N.segment` lies an empty `N.begun` for as long as it holds something that is not stored, so that a
segment that is gone is missed at the next start.
"""

from __future__ import annotations

import errno
from collections import Counter, deque
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

import msgspec

from dunetrace.batches import GROUP_BYTES, GROUP_EVENTS, Batch
from dunetrace.errors import StoreUnavailableError
from dunetrace.journal.segment import HALF_MADE_SUFFIX, Gap, Record, SegmentReader, SegmentWriter, head_of
from dunetrace.telemetry import log

SUFFIX, BEGUN_SUFFIX, DAMAGED_SUFFIX = ".segment", ".begun", ".damaged"
_PASSING: Final = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)  # anything else makes a segment unreadable for good
_decode: Final = msgspec.msgpack.Decoder(Batch).decode


class Segment:
    """One file: readable up to `end`, stored up to `position`. `is_ours`: this process wrote it."""

    def __init__(self, path: Path, end: int, *, is_ours: bool) -> None:
        self.path, self.end, self.is_ours = path, end, is_ours
        self.position = 0
        self.is_live = is_ours  # more may be written to it
        self.lost_bytes = 0
        self.held: Counter[str] = Counter()  # the shares its owners have of the queue


class JournalGroup:
    """`batches.Group`: records of one segment up to `end`, with their sizes, and the gaps between them."""

    def __init__(self, segment: Segment, on_stored: Callable[[JournalGroup], None]) -> None:
        self._on_stored = on_stored
        self.segment = segment
        self.end = segment.position
        self.batches: list[Batch] = []
        self.sizes_bytes: list[int] = []
        self.gaps: list[Gap] = []

    def finish(self, error: StoreUnavailableError | None = None) -> None:
        """Stored: move on. With `error` all of it stays where it is, on the disk."""
        if error is None:
            self._on_stored(self)

    def add(self, found: Record, at: int) -> int:
        """Take in a record that begins at `at`. Returns how many events it has."""
        try:
            batch = _decode(found.content)
        except msgspec.MsgspecError:
            self.gaps.append(Gap(at, found.end, promised=True))
            return 0
        self.batches.append(batch)
        self.sizes_bytes.append(len(found.content))
        return batch.events


class Backlog:
    """The segments of one journal. `begin` and `read` block; they may run in threads beside each other."""

    def __init__(self, directory: Path) -> None:
        """Find what an earlier process left in `directory`, which is made if need be. OSError when it can't be used."""
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._directory = directory
        self._reader: SegmentReader | None = None
        for path in directory.glob(f"*{HALF_MADE_SUFFIX}"):
            path.unlink()
        for begun in sorted(directory.glob(f"*{BEGUN_SUFFIX}")):
            if not begun.with_suffix(SUFFIX).exists():
                log.error("journal.damaged", segment=begun.with_suffix(SUFFIX).name, is_missing=True)
                begun.rename(begun.with_suffix(DAMAGED_SUFFIX))
        aside = list(directory.glob(f"*{DAMAGED_SUFFIX}"))
        left = sorted(directory.glob(f"*{SUFFIX}"))
        readable = [path for path in left if _is_readable(path)]
        self._kept_aside = len(aside)
        self.of_other_versions = len(left) - len(readable)
        self._next_number = max((int(path.stem) for path in left + aside if path.stem.isdecimal()), default=0) + 1
        self._segments = deque(Segment(path, path.stat().st_size, is_ours=False) for path in readable)
        if readable:
            log.info("journal.found", segments=len(readable), size_bytes=self.size_bytes)

    @property
    def size_bytes(self) -> int:
        """What is not stored yet; of an earlier process's last segment also its unused room."""
        return sum(segment.end - segment.position for segment in self._segments)

    @property
    def damaged(self) -> int:
        """How many segments lost something, those kept aside included."""
        return self._kept_aside + sum(1 for segment in self._segments if segment.lost_bytes)

    # -- the back: what is written

    def begin(self, size_bytes: int) -> SegmentWriter:
        """A new segment, not part of the backlog before something was written to it: `grow`, else `abandon`."""
        path = self._directory / f"{self._next_number:016d}{SUFFIX}"
        self._next_number += 1
        writer = SegmentWriter(path, size_bytes)
        with suppress(OSError):  # a hint only, and for the same reason not synced
            path.with_suffix(BEGUN_SUFFIX).touch(mode=0o600)
        return writer

    def grow(self, writer: SegmentWriter) -> Segment:
        """What was written is on the disk, in the segment this returns."""
        last = self._segments[-1] if self._segments else None
        if last is None or last.path != writer.path:
            self.end_live()
            last = Segment(writer.path, writer.end, is_ours=True)
            self._segments.append(last)
        last.end = writer.end
        return last

    def end_live(self) -> None:
        """Nothing more comes to the last segment."""
        if self._segments:
            self._segments[-1].is_live = False

    def abandon(self, writer: SegmentWriter) -> None:
        """Delete a segment whose first write failed: nothing was promised of it."""
        if self.position_in(writer) is None:
            with suppress(OSError):
                _delete(writer.path)

    def position_in(self, writer: SegmentWriter) -> int | None:
        """Up to where its segment is stored; None of one that is not in the backlog."""
        return next((segment.position for segment in tuple(self._segments) if segment.path == writer.path), None)

    # -- the front: what is read and stored

    def has_work(self) -> bool:
        """Whether there is something to read, or a segment to be done with."""
        return any(segment.position < segment.end or not segment.is_live for segment in self._segments)

    def read(self, on_stored: Callable[[JournalGroup], None]) -> JournalGroup:
        """The oldest records, up to a group; of one segment."""
        segment = self._segments[0]
        group = JournalGroup(segment, on_stored)
        try:
            self._read_records(segment, group)
        except OSError as error:
            if error.errno in _PASSING:
                raise
            group.gaps.append(Gap(group.end, segment.end, promised=True))
            group.end = segment.end
        return group

    def _read_records(self, segment: Segment, group: JournalGroup) -> None:
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
                events += group.add(found, reader.position)
                size_bytes += len(found.content)
            reader.position = found.end
        group.end = reader.position if found else end

    def pass_over(self, group: JournalGroup) -> bool:
        """What is in `group`, which is at the front, is stored. True when that was the last of its segment."""
        segment = group.segment
        segment.position = group.end
        for gap in group.gaps:
            lost_bytes = gap.end - gap.start
            if gap.promised:
                segment.lost_bytes += lost_bytes
                log.error("journal.damaged", segment=segment.path.name, at=gap.start, lost_bytes=lost_bytes)
            else:
                log.info("journal.unfinished_write", segment=segment.path.name, size_bytes=lost_bytes)
        return self._remove_done()

    def _remove_done(self) -> bool:
        """Delete the first segment, or keep it aside, if all of it is stored and no more comes."""
        if not self._segments or self._segments[0].is_live or self._segments[0].position < self._segments[0].end:
            return False
        segment = self._segments.popleft()
        self._close_reader()
        if segment.lost_bytes:
            self._kept_aside += 1
            _set_aside(segment.path)
        else:
            _delete(segment.path)
        return True

    def _close_reader(self) -> None:
        if self._reader is not None:
            self._reader.close()
            self._reader = None

    def close(self) -> None:
        """At the end of the process."""
        self.end_live()
        self._remove_done()
        self._close_reader()


def _is_readable(path: Path) -> bool:
    """False of what a version with another layout wrote. It stays as it is, for that version to find."""
    try:
        head = head_of(path)
    except OSError:
        return True  # reading it will tell
    if head is None or head.is_readable:
        return True
    log.error(
        "journal.other_version", segment=path.name, layout=head.layout, size_bytes=path.stat().st_size,
        store_it_with=f"dunetrace {head.written_by}",
    )  # fmt: skip
    return False


def _delete(path: Path) -> None:
    path.with_suffix(BEGUN_SUFFIX).unlink(missing_ok=True)  # first: else a crash between the two looks like a loss
    path.unlink(missing_ok=True)


def _set_aside(path: Path) -> None:
    """Keep a damaged segment; of one that is gone, its mark, until a person has looked."""
    for kept in (path.with_suffix(BEGUN_SUFFIX), path):
        with suppress(FileNotFoundError):
            kept.rename(path.with_suffix(DAMAGED_SUFFIX))
