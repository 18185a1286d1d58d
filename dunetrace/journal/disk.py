"""What the journal asks of the disk, where systems differ. Every function here blocks and raises OSError."""

from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path
from typing import Final

_CANNOT: Final = (errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOTTY)  # of this file system, ever


def set_aside_room(fd: int, size_bytes: int) -> None:
    """Make the file this large, so that a full disk is met here; where room can't be set aside, later."""
    if hasattr(os, "posix_fallocate"):  # not on macOS
        try:
            os.posix_fallocate(fd, 0, size_bytes)
            return
        except OSError as error:
            if error.errno not in _CANNOT:
                raise
    os.ftruncate(fd, size_bytes)


def sync_data(fd: int) -> None:
    """Return when what was written to the file survives a loss of power."""
    if hasattr(os, "fdatasync"):  # not on macOS
        os.fdatasync(fd)
    else:
        sync(fd)


def sync(fd: int) -> None:
    """As `sync_data`, with the file's size; for a directory, with its names."""
    full_sync = getattr(fcntl, "F_FULLFSYNC", None)
    if full_sync is not None:  # macOS, where fsync leaves it in the disk's own cache
        try:
            fcntl.fcntl(fd, full_sync)
            return
        except OSError as error:
            if error.errno not in _CANNOT:
                raise
    os.fsync(fd)


def sync_names(directory: Path) -> None:
    """Return when the names in the directory survive a loss of power."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        sync(fd)
    finally:
        os.close(fd)


def write_all(fd: int, buffers: list[bytes], at: int) -> int:
    """Write `buffers` at `at`. Returns where they end."""
    total = sum(map(len, buffers))
    written = os.pwritev(fd, buffers, at)
    if written < total:  # interrupted, or at the limit of one call
        rest = memoryview(b"".join(buffers))[written:]
        while rest:
            count = os.pwrite(fd, rest, at + written)
            written += count
            rest = rest[count:]
    return at + total
