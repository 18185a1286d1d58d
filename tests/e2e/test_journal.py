"""The journal under a real server: what an outage, a full disk and damage do to it, and what /health says of them."""

from __future__ import annotations

import os
import random
import shutil
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple
from zlib import crc32

import httpx
import pytest
import trio

from dunetrace.journal.segment import HEAD_BYTES
from dunetrace.process import SHUTDOWN_LIMIT_S
from tests.e2e.clusters import Cluster
from tests.e2e.crashing import accepted, load, until
from tests.e2e.disks import Disk, small_disk
from tests.e2e.killing import SMALL_SEGMENTS
from tests.harness.invariants import assert_invariants, rows, settle
from tests.harness.load import Ledger
from tests.harness.server import Server

MIB = 1 << 20
LIMIT_BYTES = 8 * MIB  # seconds of this load, which is one key's
SHARE_BYTES = LIMIT_BYTES * 7 // 8  # of one key alone
SPOOL = {"DUNETRACE_INGEST_DURING_OUTAGE": "spool", "DUNETRACE_JOURNAL_MAX_BYTES": str(LIMIT_BYTES)}


class Left(NamedTuple):
    """What a killed server left: its journal, of at least four segments, and what it had promised."""

    journal: Path
    ledger: Ledger

    def segments(self) -> list[Path]:
        return sorted(self.journal.glob("*.segment"))

    def is_enough(self) -> bool:
        """There are so many that one is less than the rest, and the last has something to lose."""
        segments = self.segments()
        return len(segments) > 3 and len(_written(segments[-1])) > 50_000


@pytest.fixture(scope="module")
def left(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Left:
    """A server is killed while Postgres is away and it spools."""
    data_dir, ledger = tmp_path_factory.mktemp("killed"), Ledger()
    left = Left(data_dir / "journal", ledger)

    async def make() -> None:
        with Server(data_dir, database_url=cluster.database(), env={**SPOOL, **SMALL_SEGMENTS}) as server:
            async with away(cluster), trio.open_nursery() as nursery:
                nursery.start_soon(_load_for_ever, server, ledger)
                await until(left.is_enough)
                await trio.to_thread.run_sync(server.kill)
                nursery.cancel_scope.cancel()

    trio.run(make)
    return left


async def _load_for_ever(server: Server, ledger: Ledger) -> None:
    async with load(server.ingest_url, ledger, seed=1):
        await trio.sleep_forever()


@pytest.fixture
def taken_over(left: Left, tmp_path: Path) -> Left:
    """A copy of it, in the data directory `tmp_path`."""
    shutil.copytree(left.journal, tmp_path / "journal")
    ledger = Ledger(sent=set(left.ledger.sent), accepted=set(left.ledger.accepted))
    return Left(tmp_path / "journal", ledger)


def journal_of(server: Server) -> dict[str, Any]:
    found: dict[str, Any] = server.health("ingest")["journal"]
    return found


def says(server: Server, *states: str) -> bool:
    return journal_of(server)["state"] in states


def assert_never_crashed(server: Server) -> None:
    assert {name: actor for name, actor in server.health()["actors"].items() if actor["restarts"]} == {}


@asynccontextmanager
async def away(cluster: Cluster, how: str = "stop") -> AsyncIterator[None]:
    """For the length of the block there is no Postgres: `how` is stop, shoot or freeze."""
    go = {"stop": cluster.stop, "shoot": cluster.shoot, "freeze": cluster.freeze}[how]
    back = {"stop": cluster.start, "shoot": cluster.start_after_shot, "freeze": cluster.thaw}[how]
    await trio.to_thread.run_sync(go)
    try:
        yield
    finally:
        with trio.CancelScope(shield=True):
            await trio.to_thread.run_sync(back)


# -- damage


def _written(segment: Path) -> bytes:
    """Without the room set aside."""
    return segment.read_bytes().rstrip(b"\0")


def cut_tail(left: Left) -> None:
    last = left.segments()[-1]
    os.truncate(last, len(_written(last)) // 2)  # the very end may be a write nobody was promised


def flip_bytes(left: Left) -> None:
    first = left.segments()[0]
    data = bytearray(first.read_bytes())
    for at in (len(data) // 3, len(data) // 2):
        data[at] ^= 0xFF
    first.write_bytes(data)


def add_noise(left: Left) -> None:
    last = left.segments()[-1]
    last.with_stem(f"{int(last.stem) + 1:016d}").write_bytes(random.Random(1).randbytes(100_000))


def empty(left: Left) -> None:
    os.truncate(left.segments()[1], 0)


def delete(left: Left) -> None:
    left.segments()[1].unlink()


class Damage(NamedTuple):
    do: Callable[[Left], None]
    loses: bool = True


@pytest.mark.parametrize(
    "damage",
    [Damage(cut_tail), Damage(flip_bytes), Damage(add_noise, loses=False), Damage(empty), Damage(delete)],
    ids=lambda damage: damage.do.__name__,
)
async def test_damage_is_told_and_the_readable_rest_is_stored(
    cluster: Cluster, taken_over: Left, tmp_path: Path, damage: Damage
) -> None:
    url, ledger = cluster.database(), taken_over.ledger
    damage.do(taken_over)
    with Server(tmp_path, database_url=url, env=SMALL_SEGMENTS) as server:
        await until(server.has_stored_all)
        said = server.health("ingest")
        assert (said["http_status"], said["status"]) == (200, "degraded")
        assert (said["journal"]["state"], said["journal"]["damaged_segments"]) == ("damaged", 1)
        assert server.log_path.read_text().count('"journal.damaged"') >= 1
        assert len(list(taken_over.journal.glob("*.damaged"))) == 1
        await settle(url)
        stored = {(row["run_id"], row["timestamp"]) for row in rows(url, "SELECT run_id, timestamp FROM events")}
        lost = ledger.accepted - stored
        print(f"{damage.do.__name__}: {len(stored)} events stored, {len(lost)} lost")
        assert bool(lost) == damage.loses
        assert len(lost) < len(stored)
        ledger.accepted -= lost
        async with load(server.ingest_url, ledger, seed=2):
            await accepted(ledger, 100)
        await assert_invariants(url, ledger)
        assert_never_crashed(server)


def write_as_another_version(segment: Path) -> None:
    """Give a segment the head that a later version with another layout would have given it."""
    with segment.open("r+b") as file:
        head = bytearray(file.read(HEAD_BYTES))
        head[3] += 1
        head[4:20] = b"99.1".ljust(16, b"\0")
        file.seek(0)
        file.write(head[:36] + struct.pack("<I", crc32(head[:36])))


async def test_what_another_version_wrote_is_left_to_it(cluster: Cluster, taken_over: Left, tmp_path: Path) -> None:
    url, ledger = cluster.database(), taken_over.ledger
    other = taken_over.segments()[0]
    write_as_another_version(other)
    content = other.read_bytes()
    with Server(tmp_path, database_url=url, env=SMALL_SEGMENTS) as server:
        async with load(server.ingest_url, ledger, seed=2):
            await accepted(ledger, 100)
            await until(server.has_stored_all)
        said = server.health("ingest")
        assert (said["http_status"], said["status"]) == (200, "degraded")
        assert (said["journal"]["state"], said["journal"]["damaged_segments"]) == ("other_version", 0)
        assert '"store_it_with": "dunetrace 99.1"' in server.log_path.read_text()
        assert_never_crashed(server)
    assert taken_over.segments() == [other]
    assert other.read_bytes() == content


async def test_what_was_left_is_stored_but_not_by_the_other_promise(
    cluster: Cluster, taken_over: Left, tmp_path: Path
) -> None:
    """Whose setting was changed learns it in one line, instead of losing what nobody reads any more."""
    url = cluster.database()
    server = Server(tmp_path, database_url=url, env={"DUNETRACE_PROMISE": "commit"})
    process = server.launch()
    assert await trio.to_thread.run_sync(process.wait) == 2
    assert server.log_path.read_text().splitlines()[-1].startswith("dunetrace: DUNETRACE_PROMISE: ")
    with Server(tmp_path, database_url=url) as server:
        await assert_invariants(url, taken_over.ledger)
        assert says(server, "ok")
        assert '"journal.found"' in server.log_path.read_text()


# -- Postgres is away


async def test_spooling_goes_on_until_the_journal_is_full(cluster: Cluster, tmp_path: Path) -> None:
    """A key alone fills seven eighths of it; with what an earlier process left, all of it is full."""
    ledger, url = Ledger(), cluster.database()
    with Server(tmp_path, database_url=url, env={**SPOOL, "DUNETRACE_HASH_KEY": "of the tests"}) as server:
        async with load(server.ingest_url, ledger, seed=1):
            await accepted(ledger, 100)
            async with away(cluster):
                await until(lambda: server.health("ingest")["db"] == "unreachable")
                await accepted(ledger, 300)
                assert set(ledger.answers) == {"202"}
                await until(lambda: ledger.answers["503"] > 10)
                said = server.health("ingest")
                assert (said["http_status"], said["status"], said["journal"]["state"]) == (200, "degraded", "ok")
                assert 0.9 * SHARE_BYTES < said["journal"]["backlog_bytes"] < 1.02 * SHARE_BYTES
                assert server.health("api")["http_status"] == 503
                assert await trio.to_thread.run_sync(server.terminate) == 0
                await trio.to_thread.run_sync(server.start)
                await until(lambda: says(server, "full"))
                said = server.health("ingest")
                assert (said["http_status"], said["status"]) == (503, "unavailable")
                assert said["journal"]["backlog_bytes"] <= 1.01 * LIMIT_BYTES  # and what frames the records
                refused = ledger.answers["503"]
                await until(lambda: ledger.answers["503"] > refused + 10)
            await until(lambda: says(server, "ok"))
            await accepted(ledger, 100)
        await assert_invariants(url, ledger)
        assert_never_crashed(server)
        said_of_it = server.log_path.read_text()
        assert 0 < said_of_it.count('"journal.full"') == said_of_it.count('"journal.writable"') < 10
    assert ledger.retry_after_missing == 0
    assert ledger.unsettled == set()


@pytest.mark.alone
@pytest.mark.parametrize("how", ["stop", "shoot", "freeze"])
async def test_an_outage_is_refused_within_a_second(cluster: Cluster, tmp_path: Path, how: str) -> None:
    ledger, url = Ledger(), cluster.database()
    with Server(tmp_path, database_url=url) as server:
        async with load(server.ingest_url, ledger, seed=1):
            await accepted(ledger, 100)
            began = trio.current_time()
            async with away(cluster, how):
                with trio.fail_after(10):
                    while not ledger.answers["503"]:
                        await trio.sleep(0.005)
                refused_s = trio.current_time() - began
            await accepted(ledger, 100)
        await assert_invariants(url, ledger)
        assert_never_crashed(server)
    print(f"{how}: refused after {refused_s:.2f} s")
    assert refused_s < 1.0 + 0.1  # a refusal is held for a tenth of a second
    assert ledger.retry_after_missing == 0


@pytest.mark.parametrize("how", ["stop", "freeze"])
async def test_a_stop_during_an_outage_leaves_the_rest_for_the_next_start(
    cluster: Cluster, tmp_path: Path, how: str
) -> None:
    ledger, url = Ledger(), cluster.database()
    with Server(tmp_path, database_url=url, env=SPOOL) as server:
        async with load(server.ingest_url, ledger, seed=1):
            await accepted(ledger, 100)
            async with away(cluster, how):
                await accepted(ledger, 300)
                began = trio.current_time()
                assert await trio.to_thread.run_sync(server.terminate) == 0
                took_s = trio.current_time() - began
            await trio.to_thread.run_sync(server.start)
            await accepted(ledger, 100)
        await assert_invariants(url, ledger)
        assert '"journal.found"' in server.log_path.read_text()
        assert_never_crashed(server)
    print(f"stopped after {took_s:.2f} s")
    assert took_s < SHUTDOWN_LIMIT_S
    assert ledger.unsettled == set()


async def test_who_starts_during_an_outage_spools_only_with_a_hash_key_of_its_own(
    cluster: Cluster, tmp_path: Path
) -> None:
    """The installation's key lies in Postgres, and what is hashed with another one could never be compared."""
    ledger, url = Ledger(), cluster.database()
    async with away(cluster):
        with Server(tmp_path / "without", database_url=url, env=SPOOL) as server:
            assert server.health("ingest")["http_status"] == 503
        with Server(tmp_path / "with", database_url=url, env={**SPOOL, "DUNETRACE_HASH_KEY": "of the tests"}) as server:
            assert server.health("ingest")["http_status"] == 200
            async with load(server.ingest_url, ledger, seed=1):
                await accepted(ledger, 100)
    with Server(tmp_path / "with", database_url=url):
        await assert_invariants(url, ledger)


# -- the disk


def _fill_up(disk: Disk, server: Server) -> bool:
    """Whether the disk stays full: it was, when everything was stored and had given back its room."""
    was_full = says(server, "disk_full") and not any((server.data_dir / "journal").glob("*.segment"))
    disk.fill(left_bytes=100_000)  # the log still has room, a segment has not
    return was_full


async def test_a_full_disk_refuses_and_recovers_by_itself(cluster: Cluster, tmp_path: Path) -> None:
    ledger, url = Ledger(), cluster.database()
    with (
        small_disk(tmp_path / "disk", 4 * MIB) as disk,
        Server(disk.path / "data", database_url=url, env=SMALL_SEGMENTS) as server,
    ):
        async with load(server.ingest_url, ledger, seed=1):
            for _ in range(2):
                await accepted(ledger, 100)
                await until(partial(_fill_up, disk, server))
                said = server.health("ingest")
                assert (said["http_status"], said["status"]) == (503, "unavailable")
                assert server.health("api")["status"] == "degraded"
                refused, told = ledger.answers["503"], server.log_path.read_text().count('"journal.unwritable"')
                await until(lambda: ledger.answers["503"] > refused + 10)  # noqa: B023 - called in this turn
                assert server.log_path.read_text().count('"journal.unwritable"') == told
                disk.make_room()
                await until(lambda: says(server, "ok"))
            await accepted(ledger, 100)
        await assert_invariants(url, ledger)
        disk.fill()  # now nothing can be written at all, no log either
        answer = httpx.post(f"{server.ingest_url}/v1/deploy", json={"agent_id": "a", "version": "v"}, trust_env=False)
        assert answer.status_code == 202
        assert_never_crashed(server)
        disk.make_room()
    assert ledger.retry_after_missing == 0
    assert ledger.unsettled == set()


async def test_the_disk_of_the_embedded_postgres_is_full(tmp_path: Path) -> None:
    ledger = Ledger()
    with small_disk(tmp_path / "disk", 256 * MIB) as disk, Server(disk.path / "data", env=SMALL_SEGMENTS) as server:
        async with load(server.ingest_url, ledger, seed=1):
            await accepted(ledger, 100)
            disk.fill()
            await until(lambda: ledger.answers["503"] > 20, timeout_s=60)
            print(server.health("ingest"))
            assert_never_crashed(server)
            disk.make_room()
            await accepted(ledger, 100)
            await until(lambda: server.health("ingest")["http_status"] == 200)
        await assert_invariants(server.database_url, ledger)
        assert_never_crashed(server)
    assert ledger.retry_after_missing == 0


# -- the directory


async def test_a_data_directory_belongs_to_one_process(cluster: Cluster, tmp_path: Path) -> None:
    url = cluster.database()
    with Server(tmp_path, database_url=url):
        second = Server(tmp_path, database_url=url)
        process = second.launch()
        assert await trio.to_thread.run_sync(process.wait) == 2
        last = second.log_path.read_text().splitlines()[-1]
        assert last.startswith("dunetrace: DUNETRACE_DATA_DIR: another dunetrace process is running on ")
