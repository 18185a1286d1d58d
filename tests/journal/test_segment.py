"""One file of the journal: what was written is read back, and damage costs what it hit and nothing else."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dunetrace.journal.segment import HEAD_BYTES, Gap, Record, SegmentReader, SegmentWriter

SIZE = 1 << 20


def written(path: Path, contents: list[bytes], *, closed: bool = True) -> SegmentWriter:
    """A segment that holds `contents`, all of it synced."""
    writer = SegmentWriter(path, SIZE)
    for content in contents:
        writer.append([content], sync=True)
    writer.note(writer.end, 0)
    if closed:
        writer.close()
    return writer


def read(path: Path) -> tuple[list[bytes], list[Gap]]:
    """All there is in a segment."""
    reader = SegmentReader(path)
    contents, gaps = [], []
    while (found := reader.next(path.stat().st_size)) is not None:
        if isinstance(found, Record):
            contents.append(found.content)
        else:
            gaps.append(found)
        reader.position = found.end
    reader.close()
    return contents, gaps


CONTENTS = [bytes([n]) * (100 + 37 * n) for n in range(50)]


def test_what_was_written_is_read_back(tmp_path: Path) -> None:
    writer = written(tmp_path / "1", CONTENTS)
    assert read(tmp_path / "1") == (CONTENTS, [])
    assert (tmp_path / "1").stat().st_size == writer.end  # the unused room is given back


def test_a_segment_that_was_not_closed_ends_where_nothing_was_written(tmp_path: Path) -> None:
    written(tmp_path / "1", CONTENTS, closed=False)
    assert (tmp_path / "1").stat().st_size == SIZE
    assert read(tmp_path / "1") == (CONTENTS, [])


def test_many_records_in_one_write(tmp_path: Path) -> None:
    contents = [b"%d" % n for n in range(5_000)]
    writer = SegmentWriter(tmp_path / "1", SIZE)
    writer.append(contents, sync=True)
    writer.close()
    assert read(tmp_path / "1") == (contents, [])


def test_a_record_larger_than_a_segment_grows_it(tmp_path: Path) -> None:
    large = random.Random(1).randbytes(3 * SIZE)
    writer = SegmentWriter(tmp_path / "1", SIZE)
    assert writer.has_room([large])
    writer.append([large], sync=True)
    assert not writer.has_room([b"x"])
    writer.close()
    assert read(tmp_path / "1") == ([large], [])


def test_the_reader_goes_on_where_it_was_stored_to(tmp_path: Path) -> None:
    writer = SegmentWriter(tmp_path / "1", SIZE)
    writer.append(CONTENTS[:2], sync=True)
    stored = writer.end
    writer.append(CONTENTS[2:], sync=True)
    writer.note(writer.end, stored)
    writer.close()
    assert read(tmp_path / "1") == (CONTENTS[2:], [])


def test_a_reader_beside_the_writer_sees_what_comes_later(tmp_path: Path) -> None:
    writer = written(tmp_path / "1", CONTENTS[:1], closed=False)
    reader = SegmentReader(tmp_path / "1")
    first = reader.next(writer.end)
    assert isinstance(first, Record)
    reader.position = first.end
    assert reader.next(writer.end) is None
    writer.append([b"later"], sync=True)
    assert reader.next(writer.end) == Record(b"later", writer.end)
    writer.close()


@settings(deadline=None)  # the disk may be busy
@given(at=st.integers(HEAD_BYTES, HEAD_BYTES + 49_000), flip=st.integers(1, 255))
def test_a_flipped_byte_costs_one_record(tmp_path_factory: pytest.TempPathFactory, at: int, flip: int) -> None:
    path = tmp_path_factory.mktemp("flip") / "1"
    written(path, CONTENTS)
    data = bytearray(path.read_bytes())
    at = min(at, len(data) - 1)
    data[at] ^= flip
    path.write_bytes(data)
    contents, gaps = read(path)
    assert len(contents) == len(CONTENTS) - 1
    assert [content for content in CONTENTS if content in contents] == contents
    assert len(gaps) == 1
    assert gaps[0].promised
    assert gaps[0].start <= at < gaps[0].end


def test_a_cut_tail_that_was_promised_is_told(tmp_path: Path) -> None:
    writer = written(tmp_path / "1", CONTENTS)
    os.truncate(tmp_path / "1", writer.end - len(CONTENTS[-1]) // 2)
    contents, gaps = read(tmp_path / "1")
    assert contents == CONTENTS[:-1]
    assert all(gap.promised for gap in gaps)
    assert sum(gap.end - gap.start for gap in gaps) == len(CONTENTS[-1]) + 12


def test_a_whole_record_cut_off_is_told(tmp_path: Path) -> None:
    writer = written(tmp_path / "1", CONTENTS)
    start = writer.end - len(CONTENTS[-1]) - 12
    os.truncate(tmp_path / "1", start)
    assert read(tmp_path / "1") == (CONTENTS[:-1], [Gap(start, writer.end, promised=True)])


def test_a_write_that_was_cut_off_before_it_was_promised_is_not_a_loss(tmp_path: Path) -> None:
    writer = written(tmp_path / "1", CONTENTS, closed=False)
    promised = writer.end
    writer.append([b"y" * 1000], sync=False)
    with (tmp_path / "1").open("r+b") as file:
        file.seek(promised + 500)
        file.write(bytes(SIZE - promised - 500))
    contents, gaps = read(tmp_path / "1")
    assert contents == CONTENTS
    assert [gap.promised for gap in gaps] == [False]


@pytest.mark.parametrize("closed", [True, False])
def test_a_damaged_head_is_told_and_loses_no_record(tmp_path: Path, closed: bool) -> None:
    written(tmp_path / "1", CONTENTS, closed=closed)
    with (tmp_path / "1").open("r+b") as file:
        file.write(b"\xff" * HEAD_BYTES)
    assert read(tmp_path / "1") == (CONTENTS, [Gap(0, HEAD_BYTES, promised=True)])


@pytest.mark.parametrize("size", [0, 5, HEAD_BYTES, SIZE])
def test_a_file_without_a_head_was_damaged(tmp_path: Path, size: int) -> None:
    (tmp_path / "1").write_bytes(bytes(size))
    assert read(tmp_path / "1") == ([], [Gap(0, HEAD_BYTES, promised=True)])


def test_noise_is_lost_as_a_whole(tmp_path: Path) -> None:
    (tmp_path / "1").write_bytes(random.Random(3).randbytes(500_000))
    contents, gaps = read(tmp_path / "1")
    assert contents == []
    assert sum(gap.end - gap.start for gap in gaps) == 500_000
    assert all(gap.promised for gap in gaps)


def test_a_segment_gets_its_name_when_it_is_whole(tmp_path: Path) -> None:
    (tmp_path / "1.half-made").write_bytes(b"left by a crash" * 1_000)
    SegmentWriter(tmp_path / "1.segment", SIZE).close()
    assert [path.name for path in tmp_path.iterdir()] == ["1.segment"]
    assert read(tmp_path / "1.segment") == ([], [])
