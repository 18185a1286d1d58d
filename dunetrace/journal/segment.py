"""One file of the journal: records one after the other, each with a checksum, so that damage is found and passed over.

A segment is written by one process, once, from its start to its end; after a restart or a failed write a new one is
begun. It is deleted as a whole when all of it is stored. Its head says how far it was synced (a hole before that is
lost data, a hole after it is a write that was never promised) and how far it was stored, so that a restart need not
write it all again. Both are hints kept by the page cache; nothing is lost when they are old. A segment gets its name
only when its head is on the disk, so one without a head was damaged.

The head also says in which layout the rows are and which version of Dunetrace wrote it. That part of it never changes,
so that every version recognises another's segments; and the mark of a record is its layout's own, so that rows of
another layout are never read, even where the head was lost.

Every function here blocks.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from struct import Struct
from typing import Final, NamedTuple
from zlib import crc32

from dunetrace.journal import disk
from dunetrace.store.packing import LAYOUT

_MAGIC: Final = b"DTJ"
_WRITTEN_BY: Final = version("dunetrace").encode()
_HEAD: Final = Struct("<3sB16sQQ")  # magic, layout, the version that wrote it, synced, stored
_HEAD_CHECKSUM: Final = Struct("<I")
HEAD_BYTES: Final = 64
HALF_MADE_SUFFIX: Final = ".half-made"
_MARK: Final = b"\xf1\x9dR%c" % LAYOUT  # begins a record; what a search for the next readable one looks for
_RECORD: Final = Struct("<4sII")  # mark, length, checksum of length and content
_WINDOW_BYTES: Final = 1 << 20
_MOST_BUFFERS: Final = 1_000  # of one write; the kernel's limit is 1,024


class Record(NamedTuple):
    """A readable record: its content, and where the next one begins."""

    content: bytes
    end: int


class Gap(NamedTuple):
    """Bytes that are not a readable record, from `start` to `end`; `promised`: they had been synced."""

    start: int
    end: int
    promised: bool


class Head(NamedTuple):
    """What a segment says of itself. The first record that is not stored begins at `stored`."""

    layout: int
    written_by: str
    synced: int
    stored: int

    @property
    def is_readable(self) -> bool:
        """Whether its rows are in the layout of this version."""
        return self.layout == LAYOUT


def head_of(path: Path) -> Head | None:
    """None of a damaged head. OSError when the file cannot be read."""
    with path.open("rb") as file:
        return _unpacked(file.read(HEAD_BYTES))


class SegmentWriter:
    """A new segment at `path`, with room for `size_bytes` set aside. OSError when the disk does not take it."""

    def __init__(self, path: Path, size_bytes: int) -> None:
        self.path = path
        self.size_bytes = size_bytes
        self.end = HEAD_BYTES  # where the next record begins
        half_made = path.with_suffix(HALF_MADE_SUFFIX)
        self._fd = os.open(half_made, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)
        try:
            disk.set_aside_room(self._fd, size_bytes)  # a full disk is met here, not in the middle of a record
            self.note(0, 0)
            disk.sync(self._fd)
            half_made.rename(path)
            disk.sync_names(path.parent)
        except BaseException:
            os.close(self._fd)
            half_made.unlink(missing_ok=True)
            path.unlink(missing_ok=True)
            raise

    def has_room(self, contents: Sequence[bytes]) -> bool:
        """Whether these records fit. A record larger than a whole segment fits an empty one, which then grows."""
        needed = sum(len(content) + _RECORD.size for content in contents)
        return self.end == HEAD_BYTES or self.end + needed <= self.size_bytes

    def append(self, contents: Sequence[bytes], *, sync: bool) -> None:
        """Write these records; with `sync` the disk has them when this returns. OSError when it does not take them."""
        buffers: list[bytes] = []
        for content in contents:
            length = len(content)
            buffers.append(_RECORD.pack(_MARK, length, _checksum(length, content)))
            buffers.append(content)
        at = self.end
        for start in range(0, len(buffers), _MOST_BUFFERS):
            at = disk.write_all(self._fd, buffers[start : start + _MOST_BUFFERS], at)
        if sync:
            disk.sync_data(self._fd)
        self.end = at

    def note(self, synced: int, stored: int) -> None:
        """Keep how far the segment is synced and stored, for the reader after a crash."""
        head = _HEAD.pack(_MAGIC, LAYOUT, _WRITTEN_BY, synced, stored)
        os.pwrite(self._fd, head + _HEAD_CHECKSUM.pack(crc32(head)), 0)

    def close(self) -> None:
        """Give back the room that was not used."""
        try:
            os.ftruncate(self._fd, self.end)
        finally:
            os.close(self._fd)


class SegmentReader:
    """Reads the segment at `path` from where it was stored to. A hole before `synced` is lost data."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._fd = os.open(path, os.O_RDONLY)
        self._window = b""
        self._window_start = 0
        self._limit = 0  # what lies behind it may still be written, so it is never read ahead
        head = _unpacked(os.pread(self._fd, HEAD_BYTES, 0))
        self._has_head = head is not None
        self.synced, self.position = (head.synced, max(head.stored, HEAD_BYTES)) if head else (0, 0)

    def next(self, end: int) -> Record | Gap | None:
        """What lies at `position`, looking no further than `end`; None when nothing more was written there.

        Does not move: the caller sets `position` to the end of what it has taken.
        """
        self._limit = end
        if self.position < HEAD_BYTES:
            return Gap(self.position, HEAD_BYTES, promised=True)
        if self.position >= end:
            return self._cut_off(end)
        record = self._record(self.position, end)
        if record is not None:
            return record
        return self._gap(end)

    def close(self) -> None:
        os.close(self._fd)

    def _record(self, at: int, end: int) -> Record | None:
        start = at + _RECORD.size
        mark, length, checksum = _RECORD.unpack(self._bytes(at, _RECORD.size).ljust(_RECORD.size, b"\0"))
        if mark != _MARK or start + length > end:
            return None
        content = self._bytes(start, length)
        if len(content) != length or checksum != _checksum(length, content):
            return None
        return Record(content, start + length)

    def _gap(self, end: int) -> Gap | None:
        """From `position` to the next readable record, or to the end; None when only unused room is left.

        Without a head nobody knows what was synced, and everything that was written counts as lost.
        """
        at = self.position
        promised = self.position < self.synced
        while (at := self._find(_MARK, at + 1, end)) >= 0:
            if self._record(at, end) is not None:
                return Gap(self.position, at, promised or not self._has_head)
        if promised or self._is_written(end):
            return Gap(self.position, end, promised or not self._has_head)
        return None

    def _cut_off(self, end: int) -> Gap | None:
        """The file ends here; something is missing if more of it had been synced."""
        if self.position < self.synced and end < self.synced:
            return Gap(self.position, self.synced, promised=True)
        return None

    def _is_written(self, end: int) -> bool:
        at = self.position
        while at < end:
            piece = self._bytes(at, min(_WINDOW_BYTES, end - at))
            if not piece:
                return False
            if piece.strip(b"\0"):
                return True
            at += len(piece)
        return False

    def _find(self, mark: bytes, at: int, end: int) -> int:
        while at < end:
            piece = self._bytes(at, min(_WINDOW_BYTES, end - at))
            found = piece.find(mark)
            if found >= 0:
                return at + found
            if len(piece) < len(mark):
                break
            at += len(piece) - len(mark) + 1
        return -1

    def _bytes(self, at: int, length: int) -> bytes:
        """Up to `length` bytes at `at`, read in large pieces."""
        start = at - self._window_start
        if start < 0 or start + length > len(self._window):
            wanted = max(0, min(max(length, _WINDOW_BYTES), self._limit - at))
            self._window = os.pread(self._fd, wanted, at)
            self._window_start, start = at, 0
        return self._window[start : start + length]


def _unpacked(data: bytes) -> Head | None:
    head, checksum = data[: _HEAD.size], data[_HEAD.size : _HEAD.size + _HEAD_CHECKSUM.size]
    if checksum != _HEAD_CHECKSUM.pack(crc32(head)):
        return None
    magic, layout, written_by, synced, stored = _HEAD.unpack(head)
    if magic != _MAGIC:
        return None
    return Head(layout, written_by.rstrip(b"\0").decode("ascii", "replace"), synced, stored)


def _checksum(length: int, content: bytes) -> int:
    return crc32(content, length)
