"""The journal as a queue: what is kept is on disk before it is promised, waits there, and is found after a restart."""

from __future__ import annotations

import errno
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio
import trio.testing

from dunetrace.actors.base import first_of
from dunetrace.batches import GROUP_EVENTS, Batch, Loss, Touch
from dunetrace.errors import QueueFullError, StoreUnavailableError
from dunetrace.journal import journal as journal_module
from dunetrace.journal import segment as segment_module
from dunetrace.journal.backlog import BEGUN_SUFFIX, SUFFIX
from dunetrace.journal.journal import RETRY_DISK_S, Journal
from dunetrace.journal.segment import HEAD_BYTES, SegmentWriter
from dunetrace.store.packing import LAYOUT, Packer


def batch(name: str, *, owner: str = "key", events: int = 2, size_bytes: int = 100) -> Batch:
    """A batch that can be told from others."""
    touches = [Touch(name, events, 20_000, 20_001)]
    return Batch("customer", owner, 1.5, name.encode().ljust(size_bytes, b"."), touches, Loss("agent", name, 3))


def opened(directory: Path, *, state: str = "ok", **changes: Any) -> Journal:
    return Journal(directory, **{"max_bytes": 1 << 30, "store_state": lambda: state, **changes})


@asynccontextmanager
async def writing(journal: Journal) -> AsyncIterator[Journal]:
    """What the journal actor does, for the length of the block."""
    stopping = trio.Event()

    async def run() -> None:
        while await journal.wait_for_arrivals(stopping):
            await journal.write_arrivals()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(run)
        try:
            yield journal
        finally:
            stopping.set()


async def drained(journal: Journal) -> list[Batch]:
    """Everything in it, stored."""
    stored: list[Batch] = []
    done = trio.Event()
    done.set()
    while await journal.wait_for_work(done):
        group = await journal.head()
        stored += group.batches
        group.finish()
    return stored


def files(directory: Path) -> list[str]:
    """Every segment that holds something not stored has its mark beside it; the rest is returned."""
    found = sorted(directory.iterdir())
    marks = {path.stem for path in found if path.suffix == BEGUN_SUFFIX}
    assert marks == {path.stem for path in found if path.suffix == SUFFIX}
    return [path.suffix for path in found if path.suffix != BEGUN_SUFFIX]


def segments(directory: Path) -> list[Path]:
    return sorted(directory.glob(f"*{SUFFIX}"))


async def test_what_is_kept_comes_back_as_it_was_in_its_order(tmp_path: Path) -> None:
    async with writing(opened(tmp_path)) as journal:
        for n in range(20):
            await journal.keep(batch(f"b{n}"))
        assert await drained(journal) == [batch(f"b{n}") for n in range(20)]
        assert journal.backlog_bytes == 0
    journal.close()
    assert files(tmp_path) == []


async def test_keep_returns_once_the_disk_has_it(tmp_path: Path) -> None:
    journal = opened(tmp_path)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(journal.keep, batch("a"))
        nursery.start_soon(journal.keep, batch("b"))
        await trio.testing.wait_all_tasks_blocked()
        assert files(tmp_path) == []
        assert await journal.write_arrivals() == 2
    # What a process killed right now leaves behind:
    assert sorted(await drained(opened(tmp_path)), key=lambda left: left.rows) == [batch("a"), batch("b")]


async def test_what_an_earlier_process_left_is_stored_first(tmp_path: Path) -> None:
    async with writing(opened(tmp_path)) as journal:
        await journal.keep(batch("left"))
    async with writing(opened(tmp_path)) as again:
        await again.keep(batch("new"))
        assert await drained(again) == [batch("left"), batch("new")]
        again.close()
    assert files(tmp_path) == []


async def test_what_was_stored_is_not_read_again_after_an_ordered_stop(tmp_path: Path) -> None:
    async with writing(opened(tmp_path)) as journal:
        await journal.keep(batch("stored"))
        (await journal.head()).finish()
        await journal.keep(batch("not"))
    journal.close()
    assert await drained(opened(tmp_path)) == [batch("not")]


async def test_an_outage_leaves_everything_where_it_is(tmp_path: Path) -> None:
    async with writing(opened(tmp_path)) as journal:
        await journal.keep(batch("a"))
        (await journal.head()).finish(StoreUnavailableError())
        assert journal.backlog_bytes > 0
        assert await drained(journal) == [batch("a")]


async def test_segments_are_deleted_when_they_are_stored(tmp_path: Path) -> None:
    async with writing(opened(tmp_path, max_bytes=2 << 20)) as journal:  # segments of an eighth of that
        for n in range(8):
            await journal.keep(batch(f"b{n}", size_bytes=100_000))
        assert len(files(tmp_path)) == 4
        assert len(await drained(journal)) == 8
        assert len(files(tmp_path)) == 1


async def test_during_an_outage_it_refuses_or_spools(tmp_path: Path) -> None:
    async with writing(opened(tmp_path / "refuse", state="timeout")) as journal:
        with pytest.raises(StoreUnavailableError) as refused:
            await journal.keep(batch("a"))
        assert refused.value.state == "timeout"
    async with writing(opened(tmp_path / "spool", state="timeout", spool=True)) as journal:
        await journal.keep(batch("a"))
        assert await drained(journal) == [batch("a")]


async def test_its_size_limit_holds_and_is_seen(tmp_path: Path) -> None:
    async with writing(opened(tmp_path, max_bytes=1 << 20, spool=True)) as journal:
        with pytest.raises(QueueFullError, match="full"):
            for n in range(20):
                await journal.keep(batch(f"b{n}", owner=f"key {n}", size_bytes=100_000))
        assert journal.health()["state"] == "full"
        assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= 1.25 * (1 << 20)
        for refused in (batch("small"), batch("large", size_bytes=100_000)) * 2:
            with pytest.raises(QueueFullError):  # the small one would fit, but it stays full until there is some room
                await journal.keep(refused)
            assert journal.health()["state"] == "full"
        assert len(await drained(journal)) == 10
        assert journal.health()["state"] == "ok"  # without a request that tries
        await journal.keep(batch("again"))


async def test_a_batch_larger_than_the_limit_fits_an_empty_journal(tmp_path: Path) -> None:
    async with writing(opened(tmp_path, max_bytes=1 << 20)) as journal:
        for name in ("a", "b"):
            await journal.keep(batch(name, size_bytes=2 << 20))
            with pytest.raises(QueueFullError):
                await journal.keep(batch("c"))
            assert len(await drained(journal)) == 1


async def test_a_long_queue_refuses_while_postgres_is_there(tmp_path: Path) -> None:
    async with writing(opened(tmp_path, max_events=10)) as journal:
        await journal.keep(batch("a", owner="noisy", events=4))
        with pytest.raises(QueueFullError):
            await journal.keep(batch("b", owner="noisy", events=4))
        await journal.keep(batch("c", owner="quiet", events=3))
        await drained(journal)
        await journal.keep(batch("d", owner="noisy", events=4))


async def test_a_noisy_key_leaves_room_in_a_spooling_journal(tmp_path: Path) -> None:
    async with writing(opened(tmp_path, max_bytes=1 << 20, spool=True, state="unreachable")) as journal:
        with pytest.raises(QueueFullError, match="this key"):
            for n in range(20):
                await journal.keep(batch(f"n{n}", owner="noisy", size_bytes=100_000))
        assert (7 << 17) - 101_000 < journal.backlog_bytes <= (7 << 17)
        journal.check_room()
        await journal.keep(batch("q", owner="quiet", size_bytes=100_000))
        assert journal.health()["state"] == "ok"
        assert len(await drained(journal)) == 10
        for n in range(5):
            await journal.keep(batch(f"n{n}", owner="noisy", size_bytes=100_000))
    async with writing(opened(tmp_path, max_bytes=1 << 20, spool=True)) as again:
        assert again.backlog_bytes > 500_000
        await again.keep(batch("new", owner="noisy", size_bytes=100_000))  # what was left is nobody's share
        await drained(again)
        for n in range(5):
            await again.keep(batch(f"n{n}", owner="noisy", size_bytes=100_000))


async def test_what_is_lost_gives_back_its_share(tmp_path: Path) -> None:
    async with writing(opened(tmp_path, max_bytes=1 << 20, max_events=10)) as journal:
        await journal.keep(batch("lost", events=5, size_bytes=200_000))
        with pytest.raises(QueueFullError, match="this key"):
            await journal.keep(batch("refused", events=5))
        await journal.keep(batch("other", owner="other", events=3, size_bytes=200_000))  # begins the next segment
        segments(tmp_path)[0].unlink()
        assert await drained(journal) == [batch("other", owner="other", events=3, size_bytes=200_000)]
        await journal.keep(batch("kept", events=5))


async def test_a_disk_that_takes_no_more_is_a_state_and_passes(tmp_path: Path) -> None:
    """A real file system that refuses: the kernel's limit on the size of a file, lowered for this process."""
    import resource

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    async with writing(opened(tmp_path)) as journal:
        await journal.keep(batch("before"))
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
        try:
            with pytest.raises(QueueFullError, match="written"):
                await journal.keep(batch("refused", size_bytes=10_000))
            assert journal.health()["state"] == "disk_full"
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        await journal.keep(batch("after"))
        assert journal.health()["state"] == "ok"
        assert await drained(journal) == [batch("before"), batch("after")]


async def test_a_disk_that_has_room_again_is_noticed_without_a_request(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_room(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "no room")

    async with writing(opened(tmp_path, max_events=6)) as journal:
        with monkeypatch.context() as disk:
            disk.setattr(SegmentWriter, "append", no_room)
            for _ in range(5):  # no share is kept by what was refused
                with pytest.raises(QueueFullError, match="written"):
                    await journal.keep(batch("refused"))
            assert journal.health()["state"] == "disk_full"
            assert files(tmp_path) == []  # a refused write leaves nothing behind
        with trio.fail_after(10 * RETRY_DISK_S):
            while journal.health()["state"] != "ok":
                await trio.sleep(0.01)
        await journal.keep(batch("after"))
        assert await drained(journal) == [batch("after")]
    journal.close()
    assert files(tmp_path) == []


async def test_damage_is_passed_over_told_and_kept_aside(tmp_path: Path) -> None:
    async with writing(opened(tmp_path)) as journal:
        for n in range(5):
            await journal.keep(batch(f"b{n}"))
    journal.close()
    (segment,) = segments(tmp_path)
    data = bytearray(segment.read_bytes())
    data[data.index(b"b2")] ^= 0x40
    segment.write_bytes(data)
    again = opened(tmp_path)
    assert await drained(again) == [batch(f"b{n}") for n in (0, 1, 3, 4)]
    assert again.health()["state"] == "damaged"
    assert files(tmp_path) == [".damaged"]
    assert opened(tmp_path).health()["damaged_segments"] == 1  # until a person has looked and deleted it


async def test_damage_while_it_is_in_use_is_told_at_once(tmp_path: Path) -> None:
    async with writing(opened(tmp_path)) as journal:
        await journal.keep(batch("b0"))
        assert await drained(journal) == [batch("b0")]  # from here on the file is open for reading
        await journal.keep(batch("b1"))
        (segment,) = segments(tmp_path)
        data = segment.read_bytes()
        with segment.open("r+b") as file:
            file.seek(data.index(b"b1"))
            file.write(b"?")
        await journal.keep(batch("b2"))
        assert await drained(journal) == [batch("b2")]
        assert journal.health()["state"] == "damaged"
        assert journal.health()["damaged_segments"] == 1


async def test_a_tail_cut_off_behind_a_whole_group_is_told(tmp_path: Path) -> None:
    async with writing(opened(tmp_path)) as journal:
        await journal.keep(batch("kept", events=GROUP_EVENTS))
        (segment,) = segments(tmp_path)
        await journal.keep(batch("cut"))
    journal.close()
    os.truncate(segment, segment.read_bytes().index(b"cut"))
    data = segment.read_bytes()
    os.truncate(segment, data.rindex(data[HEAD_BYTES : HEAD_BYTES + 4]))  # where the second record began
    again = opened(tmp_path)
    assert await drained(again) == [batch("kept", events=GROUP_EVENTS)]
    assert again.health()["state"] == "damaged"


async def test_a_record_nobody_can_decode_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal_module, "_encode", lambda _: b"from another version")
    async with writing(opened(tmp_path)) as journal:
        await journal.keep(batch("strange"))
    monkeypatch.undo()
    async with writing(opened(tmp_path)) as again:
        await again.keep(batch("known"))
        assert await drained(again) == [batch("known")]
        assert again.health()["damaged_segments"] == 1


async def test_a_deleted_segment_is_a_loss_that_is_told(tmp_path: Path) -> None:
    async with writing(opened(tmp_path)) as journal:
        await journal.keep(batch("a"))
    journal.close()
    again = opened(tmp_path)
    segments(tmp_path)[0].unlink()
    assert await drained(again) == []
    assert again.health()["state"] == "damaged"
    assert files(tmp_path) == [".damaged"]


@pytest.mark.parametrize("which", [0, 1, 2])
async def test_a_segment_deleted_before_a_start_is_a_loss_that_is_told(tmp_path: Path, which: int) -> None:
    async with writing(opened(tmp_path, max_bytes=2 << 20)) as journal:
        for n in range(6):
            await journal.keep(batch(f"b{n}", size_bytes=100_000))
    journal.close()
    (tmp_path / "left.half-made").write_bytes(b"by a crash")
    assert opened(tmp_path).health()["state"] == "ok"
    segments(tmp_path)[which].unlink()
    again = opened(tmp_path)
    assert again.health()["state"] == "damaged"
    assert len(await drained(again)) == 4
    assert opened(tmp_path).health()["damaged_segments"] == 1  # until a person has looked and deleted it


async def test_the_only_segment_deleted_before_a_start_is_told_too(tmp_path: Path) -> None:
    async with writing(opened(tmp_path)) as journal:
        await journal.keep(batch("a"))
    segments(tmp_path)[0].unlink()
    assert opened(tmp_path).health()["state"] == "damaged"


async def test_a_crash_while_a_segment_is_deleted_is_no_loss(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At each of its steps: what is left is stored once more, or nothing is left."""
    for steps in range(2):
        directory = tmp_path / str(steps)
        async with writing(opened(directory)) as journal:
            await journal.keep(batch("a"))
            group = await journal.head()
        journal.close()
        with monkeypatch.context() as patched:
            left = [None] * steps
            unlink = Path.unlink

            def crashing(path: Path, missing_ok: bool = False) -> None:
                left.pop()  # noqa: B023
                unlink(path, missing_ok)  # noqa: B023

            patched.setattr(Path, "unlink", crashing)
            with pytest.raises(IndexError):
                group.finish()
        assert opened(directory).health()["state"] == "ok"


@asynccontextmanager
async def another_version() -> AsyncIterator[None]:
    """For the length of the block this is a later version, whose rows have another layout."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(segment_module, "LAYOUT", LAYOUT + 1)
        patched.setattr(segment_module, "_MARK", b"\xf1\x9dR%c" % (LAYOUT + 1))
        patched.setattr(segment_module, "_WRITTEN_BY", b"99.1")
        yield


async def test_what_another_version_wrote_waits_for_it(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    async with writing(opened(tmp_path)) as journal:
        await journal.keep(batch("first"))
    journal.close()
    async with another_version(), writing(opened(tmp_path)) as later:
        assert later.health()["state"] == "other_version"
        await later.keep(batch("of the other"))
        later.close()
    others = segments(tmp_path)[1]
    content = others.read_bytes()
    async with writing(opened(tmp_path)) as again:
        assert again.health() == {"state": "other_version", "backlog_bytes": again.backlog_bytes, "damaged_segments": 0}
        await again.keep(batch("new"))
        assert await drained(again) == [batch("first"), batch("new")]
        assert again.backlog_bytes == 0
    again.close()
    assert segments(tmp_path) == [others]
    assert others.read_bytes() == content
    told = [line for line in "".join(capfd.readouterr()).splitlines() if "journal.other_version" in line]
    assert "99.1" in told[-1]
    async with another_version():  # the way out
        assert await drained(opened(tmp_path)) == [batch("of the other")]
    assert opened(tmp_path).health()["state"] == "ok"


async def test_rows_of_another_version_are_not_stored_even_if_their_head_is_lost(tmp_path: Path) -> None:
    async with another_version(), writing(opened(tmp_path)) as later:
        await later.keep(batch("of the other"))
        later.close()
    (segment,) = segments(tmp_path)
    with segment.open("r+b") as file:
        file.write(bytes(HEAD_BYTES))
    again = opened(tmp_path)
    assert await drained(again) == []
    assert again.health()["state"] == "damaged"
    assert files(tmp_path) == [".damaged"]


def test_a_change_of_what_is_kept_raises_the_layout() -> None:
    """When this fails, raise `LAYOUT` and put the new digest here: journals of the old one are then left to it."""
    packer = Packer("customer", "batch", 1.5)
    packer.add(("run", "agent", "version", None), "llm.called", 3, 2.5, 20_000, "key", {"model": "m"})
    kept = msgspec.msgpack.encode(packer.batch("owner", Loss("agent", "key", 3)))
    assert (LAYOUT, sha256(kept).hexdigest()) == (
        1,
        "5fc6e8a5ef11252e14a5f15a806080be7054a1fb183785b4e3b730dcac5399b0",
    )


async def test_what_cannot_even_be_opened_is_kept_aside(tmp_path: Path) -> None:
    (tmp_path / f"{1:016d}.segment").mkdir()
    async with writing(opened(tmp_path)) as journal:
        await journal.keep(batch("new"))
        assert await drained(journal) == [batch("new")]
        assert journal.health()["damaged_segments"] == 1
    assert ".damaged" in files(tmp_path)


async def test_a_request_that_gives_up_is_written_all_the_same(tmp_path: Path) -> None:
    journal = opened(tmp_path)
    with trio.move_on_after(0):
        await journal.keep(batch("a"))
    async with writing(journal):
        await journal.keep(batch("b"))
        assert await drained(journal) == [batch("a"), batch("b")]


async def test_a_stop_waits_for_what_arrived(tmp_path: Path) -> None:
    journal = opened(tmp_path)
    stopping = trio.Event()
    stopping.set()
    assert not await journal.wait_for_arrivals(stopping)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(journal.keep, batch("a"))
        await trio.testing.wait_all_tasks_blocked()
        assert await journal.wait_for_arrivals(stopping)
        await journal.write_arrivals()


async def test_waiting_for_work_ends_with_work_or_a_stop(tmp_path: Path) -> None:
    async with writing(opened(tmp_path)) as journal:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(journal.keep, batch("a"))
            with trio.fail_after(5):
                assert await journal.wait_for_work(trio.Event())
        (await journal.head()).finish()
        stopping = trio.Event()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(first_of, stopping.wait)
            stopping.set()
            with trio.fail_after(5):
                assert not await journal.wait_for_work(stopping)


def test_a_directory_that_cannot_be_used_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OSError) as refused:
        opened(tmp_path / "file" / "journal")
    assert refused.value.errno in (errno.ENOTDIR, errno.EACCES)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
