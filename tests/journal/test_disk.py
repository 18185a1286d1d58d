"""What the journal asks of the disk, on systems that lack a call for it."""

from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path

import pytest

from dunetrace.journal import disk
from dunetrace.journal.segment import SegmentReader, SegmentWriter

F_FULLFSYNC = 51  # macOS's


def written_and_read(path: Path) -> int:
    """Writes a segment, reads it back and returns the size its file had meanwhile."""
    writer = SegmentWriter(path, 1 << 20)
    size_bytes = path.stat().st_size
    writer.append([b"record"], sync=True)
    reader = SegmentReader(path)
    found = reader.next(writer.end)
    assert found is not None
    assert found[0] == b"record"
    reader.close()
    writer.close()
    return size_bytes


@pytest.mark.parametrize("missing", [["posix_fallocate"], ["fdatasync"], ["posix_fallocate", "fdatasync"]])
def test_a_system_without_these_calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, missing: list[str]) -> None:
    for name in missing:
        monkeypatch.delattr(os, name)
    synced: list[int] = []
    monkeypatch.setattr(os, "fsync", synced.append)
    assert written_and_read(tmp_path / "1") == 1 << 20
    assert len(synced) == 2 + ("fdatasync" in missing)  # the head, the names, the record


def test_where_fsync_is_not_enough(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    monkeypatch.delattr(os, "fdatasync")
    monkeypatch.setattr(fcntl, "F_FULLFSYNC", F_FULLFSYNC, raising=False)
    with monkeypatch.context() as macos:
        macos.setattr(fcntl, "fcntl", lambda _, what: asked.append(what))
        written_and_read(tmp_path / "1")
    assert asked == [F_FULLFSYNC] * 3
    written_and_read(tmp_path / "2")  # this kernel does not know it, as some file systems there


def test_a_file_system_that_cannot_set_room_aside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(number: int) -> None:
        def fail(*_: object) -> None:
            raise OSError(number, os.strerror(number))

        monkeypatch.setattr(os, "posix_fallocate", fail)

    refuse(errno.EOPNOTSUPP)
    assert written_and_read(tmp_path / "1") == 1 << 20
    refuse(errno.ENOSPC)
    with pytest.raises(OSError, match="No space"):
        written_and_read(tmp_path / "2")
    assert sorted(tmp_path.iterdir()) == [tmp_path / "1"]


def test_a_write_that_is_cut_short_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pwritev, pwrite = os.pwritev, os.pwrite
    monkeypatch.setattr(os, "pwritev", lambda fd, buffers, at: pwritev(fd, [buffers[0][:3]], at))
    monkeypatch.setattr(os, "pwrite", lambda fd, data, at: pwrite(fd, data[:2], at))
    fd = os.open(tmp_path / "1", os.O_RDWR | os.O_CREAT)
    assert disk.write_all(fd, [b"hello", b" ", b"world"], 5) == 16
    os.close(fd)
    assert (tmp_path / "1").read_bytes() == bytes(5) + b"hello world"
