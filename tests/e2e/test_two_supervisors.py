"""Two processes on one database share the work, and either goes on alone when the other is killed."""

from __future__ import annotations

import os
import signal
import uuid
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import trio

from dunetrace.batches import BUCKETS
from dunetrace.store.writes.leases import LEASE_S, RENEW_EVERY_S
from tests.e2e.crashing import accepted, load, until
from tests.harness.invariants import assert_invariants, rows
from tests.harness.load import Ledger
from tests.harness.server import Server

HALF = BUCKETS // 2
# What the dead one held expires, then the other one notices at its next turn; the rest is for a machine that is busy.
TAKEN_OVER_S = LEASE_S + RENEW_EVERY_S + 5.0


@contextmanager
def two(database: str, tmp_path: Path) -> Iterator[tuple[Server, Server]]:
    with Server(tmp_path / "one", database_url=database) as one, Server(tmp_path / "two", database_url=database) as two:
        yield one, two


def held(database: str) -> Counter[uuid.UUID]:
    """How many buckets each live poller holds."""
    found = rows(database, "SELECT holder FROM bucket_leases WHERE holder IS NOT NULL AND expires_at > now()")
    return Counter(row["holder"] for row in found)


def epochs(database: str) -> list[int]:
    return [row["epoch"] for row in rows(database, "SELECT epoch FROM bucket_leases ORDER BY bucket")]


def shared(database: str) -> bool:
    return sorted(held(database).values()) == [HALF, HALF]


async def kill_one_of_two(server: Server, other: Server, database: str, ledger: Ledger, seed: int) -> float:
    """Load on both, SIGKILL on `server`; returns the seconds until `other` held every bucket."""
    async with load(other.ingest_url, ledger, seed=seed):
        async with trio.open_nursery() as doomed:
            await doomed.start(under_load, server, ledger, seed + 1)
            await accepted(ledger, 200)
            await trio.to_thread.run_sync(server.kill)
            doomed.cancel_scope.cancel()
        taken_s = await until(lambda: list(held(database).values()) == [BUCKETS])
        await accepted(ledger, 100)
    return taken_s


async def under_load(server: Server, ledger: Ledger, seed: int, *, task_status: trio.TaskStatus[None]) -> None:
    async with load(server.ingest_url, ledger, seed=seed):
        task_status.started()
        await trio.sleep_forever()


async def test_they_share_the_work_and_one_survives_the_other(database: str, tmp_path: Path) -> None:
    ledger = Ledger()
    with two(database, tmp_path) as (one, other):
        await until(lambda: shared(database))
        before = await trio.to_thread.run_sync(epochs, database)
        async with load(one.ingest_url, ledger, seed=1), load(other.ingest_url, ledger, seed=2):
            await accepted(ledger, 500)
        await assert_invariants(database, ledger)  # each run counted once, whoever took its events in
        assert await trio.to_thread.run_sync(epochs, database) == before  # and no bucket went from hand to hand
        taken_s = await kill_one_of_two(one, other, database, ledger, seed=3)
        assert taken_s < TAKEN_OVER_S
        await trio.to_thread.run_sync(one.start)  # what it had accepted waits in its journal
        await assert_invariants(database, ledger)
    print(f"{len(ledger.accepted)} events, {dict(ledger.answers)}, every bucket taken over after {taken_s:.1f} s")


@pytest.mark.prove
async def test_a_clean_stop_hands_over_at_once(database: str, tmp_path: Path) -> None:
    with two(database, tmp_path) as (one, _):
        await until(lambda: shared(database))
        assert await trio.to_thread.run_sync(one.terminate) == 0
        taken_s = await until(lambda: list(held(database).values()) == [BUCKETS])
        assert taken_s < LEASE_S
    print(f"handed over after {taken_s:.1f} s")


@pytest.mark.prove
async def test_they_are_killed_in_turn(database: str, tmp_path: Path) -> None:
    ledger = Ledger()
    with two(database, tmp_path) as both:
        for turn in range(6):
            await until(lambda: shared(database))
            killed, other = both[turn % 2], both[(turn + 1) % 2]
            await kill_one_of_two(killed, other, database, ledger, seed=10 * turn + 1)
            await assert_invariants(database, ledger)
            await trio.to_thread.run_sync(killed.start)


@pytest.mark.prove
async def test_one_that_was_frozen_past_its_lease_changes_nothing_of_what_the_other_did(
    database: str, tmp_path: Path
) -> None:
    ledger = Ledger()
    with two(database, tmp_path) as (one, other):
        for turn in range(3):
            await until(lambda: shared(database))
            async with load(other.ingest_url, ledger, seed=20 + turn):
                try:
                    async with trio.open_nursery() as doomed:
                        await doomed.start(under_load, one, ledger, 30 + turn)
                        await accepted(ledger, 300)
                        os.kill(one.pid, signal.SIGSTOP)
                        doomed.cancel_scope.cancel()
                    # Transactions it was in the middle of keep their locks until Postgres ends them, one after another.
                    taken_s = await until(lambda: list(held(database).values()) == [BUCKETS], timeout_s=60)
                    await accepted(ledger, 100)
                finally:
                    os.kill(one.pid, signal.SIGCONT)
                await accepted(ledger, 100)
            print(f"every bucket taken over after {taken_s:.1f} s")
            await assert_invariants(database, ledger)
        assert {actor["restarts"] for actor in one.health()["actors"].values()} == {0}
