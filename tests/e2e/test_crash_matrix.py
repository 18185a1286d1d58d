"""Every actor crashes under load, with everything there and with each thing it depends on away.

A cell is one actor and one thing that is away. Load runs, the thing goes, the actor crashes wherever it is, and once
more in one of its units of work: while the thing is away or, when that is Postgres, as it comes back. The actor is seen
down with all others running, and up again. The thing returns, everything goes on by itself, and the invariants hold.
"""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import ExitStack, asynccontextmanager, suppress
from functools import partial
from pathlib import Path

import asyncpg
import pytest
import trio

from dunetrace import deliveries, nursery
from dunetrace.actors import database, delivering, digest, fleet
from dunetrace.alerts import post
from dunetrace.store import gateway, migrations
from dunetrace.store.reads import digest as digest_reads
from dunetrace.store.reads import installation, work
from dunetrace.store.writes import deliveries as delivery_writes
from dunetrace.store.writes import deploys, events, judgements, leases, notices
from dunetrace.store.writes import digest as digest_writes
from dunetrace.store.writes import fleet as fleet_writes
from dunetrace.store.writes.fanout import fan_out
from dunetrace.store.writes.notes import tell_resolved
from dunetrace.store.writes.updates import tell_due
from tests.e2e.clusters import Cluster
from tests.e2e.crashing import (
    PATIENCE_S,
    Fall,
    House,
    Moment,
    StoreFunction,
    accepted,
    environment,
    house,
    load,
    until,
    visits,
)
from tests.e2e.missing import MISSING, MISSING_AT_LENGTH, Around, Missing
from tests.e2e.told import assert_told
from tests.harness.invariants import assert_invariants, rows
from tests.harness.load import Ledger
from tests.harness.world import execute
from tests.receiver import Receiver

# The units of work of each actor. An actor of the plan that has no row here is an error: every one has its cells.
UNITS: Mapping[str, tuple[StoreFunction | None, ...]] = {
    "api": (None,),  # any of its reads
    "database": (migrations.migrate, installation.hash_key),  # as Postgres comes back, and never else
    "destination:slack": (delivery_writes.claim, delivery_writes.keep),
    "destination:webhook": (delivery_writes.keep, delivery_writes.claim),
    "digest": (digest_writes.claim, digest_reads.week, digest_writes.keep),
    "dispatcher": (fan_out, tell_due, tell_resolved),
    "fleet": (fleet_writes.watch, fleet_writes.fan_out),
    "ingest": (deploys.mark_deploy,),
    "journal": (),
    "poller": (judgements.commit, work.take, leases.renew),
    "wakeups": (notices.notify,),
    "writer": (events.append,),
}
IN_A_UNIT = (Moment.BEFORE_COMMIT, Moment.AFTER_COMMIT)
WEEK_S = 0.4
ENOUGH = 20  # events accepted before something goes, and after it came back
SEVERITIES = {"slack": "HIGH"}  # the default
OWE_A_DIGEST = ("DELETE FROM digest_log", "UPDATE digests SET due_at = due_at - interval '7 days'")
SENT_DIGESTS = "SELECT FROM digests JOIN digest_log USING (destination, digest_type, due_at) WHERE state = 'done'"


@pytest.fixture
def receivers() -> Iterator[dict[str, Receiver]]:
    with ExitStack() as stack:
        yield {name: stack.enter_context(Receiver(slack=name == "slack")) for name in ("webhook", "slack")}


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same schedules in less time."""
    for room, name, seconds in (
        (nursery, "RESTART_BASE_S", 0.05),
        (nursery, "RESTART_CAP_S", 0.2),
        (database, "HEALTHY_CHECK_S", 0.2),
        (database, "OUTAGE_CHECK_S", 0.1),
        (gateway, "OUTAGE_FAST_FAIL_S", 0.1),
        (leases, "RENEW_EVERY_S", 0.3),
        (post, "ATTEMPT_TIMEOUT_S", 0.5),
        (deliveries, "ATTEMPT_BASE_S", 0.1),
        (delivering, "LEASE_S", 1.0),
        (digest, "LEASE_S", 1.0),
        (digest, "LOOK_S", 0.2),
        (fleet, "LOOK_S", 0.2),
    ):
        monkeypatch.setattr(room, name, seconds)
    monkeypatch.setattr(deliveries, "ROUND_WAITS_S", (0.2,))


def in_units(actor: str, missing: Missing) -> list[Fall]:
    """Each moment of each unit of work that `actor` gets to, whatever is missing."""
    if actor == "database" and not missing.postgres:
        return []
    return [Fall(actor, moment, within) for within in UNITS[actor] for moment in IN_A_UNIT]


@pytest.mark.parametrize("name", MISSING)
async def test_every_actor_crashes(
    name: str, cluster: Cluster, receivers: dict[str, Receiver], tmp_path: Path, quick: None
) -> None:
    missing, row = MISSING[name], list(MISSING).index(name)
    async with surroundings(name, cluster, receivers, tmp_path, 100 * row) as around:
        for number, actor in enumerate(UNITS):
            possible = in_units(actor, missing)
            # Where something is missing one moment is enough, and each time another one.
            course = possible if name == "nothing" else possible[(row + number) % max(1, len(possible)) :][:1]
            here = around._replace(seed=100 * row + number)
            await cell(here, missing, [[Fall(actor), *course]], meanwhile=not missing.postgres)
            await assert_all_is_well(here)


@pytest.mark.prove
@pytest.mark.parametrize("name", MISSING_AT_LENGTH)
async def test_actors_crash_side_by_side_at_the_real_pace(
    name: str,
    cluster: Cluster,
    receivers: dict[str, Receiver],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(fleet, "LOOK_S", 1.0)  # a minute for each of its falls would be all there is to see
    missing, first_seed = MISSING_AT_LENGTH[name], 10_000 + 100 * list(MISSING_AT_LENGTH).index(name)
    rng = random.Random(first_seed)
    async with surroundings(name, cluster, receivers, tmp_path, first_seed) as around:
        for number in range(2):
            for nth, pair in enumerate(pairs(rng)):
                here = around._replace(seed=first_seed + 10 * number + nth)
                units = {actor: in_units(actor, missing) for actor in pair}
                courses = [[Fall(actor), *rng.sample(units[actor], min(1, len(units[actor])))] for actor in pair]
                await cell(here, missing, courses, meanwhile=name == "nothing", clients=3)
            await assert_all_is_well(around, timeout_s=300)


def pairs(rng: random.Random) -> list[tuple[str, ...]]:
    """All actors two by two, an odd one alone; not both that have a port: one has to say how the others are."""
    while True:
        names = rng.sample(list(UNITS), len(UNITS))
        found = [tuple(names[at : at + 2]) for at in range(0, len(names), 2)]
        if not any({"api", "ingest"} == set(pair) for pair in found):
            return found


@asynccontextmanager
async def surroundings(
    name: str, cluster: Cluster, receivers: dict[str, Receiver], data_dir: Path, seed: int
) -> AsyncIterator[Around]:
    """A house in an empty database; at the end it says what was done to it, and that nobody was spared."""
    ledger, url, started = Ledger(), cluster.database(), trio.current_time()
    async with house(environment(url, receivers), data_dir) as home:
        assert set(UNITS) == set(home.actors)
        await until(partial(rows, url, "SELECT FROM digests"))  # from here on one can be owed
        yield Around(home, cluster, url, receivers, ledger, seed)
        assert all(home.fallen.values())
    posts = sum(len(receiver.requests) for receiver in receivers.values())
    repeats = await trio.to_thread.run_sync(assert_told, url, receivers)
    print(
        f"{name}: {len(home.fallen)} actors, {home.fallen.total()} crashes, {len(ledger.accepted)} events, "
        f"{dict(ledger.answers)}, {posts} POSTs, {repeats} repeats, longest recovery {home.longest_away}, "
        f"{trio.current_time() - started:.1f} s"
    )


async def cell(
    around: Around, missing: Missing, courses: Sequence[Sequence[Fall]], *, meanwhile: bool, clients: int = 1
) -> None:
    """Load; something goes; the first fall of each course; it comes back. The other falls before that, or `meanwhile`.

    The courses run side by side, the falls of one behind each other.
    """
    home, rng = around.home, random.Random(around.seed)
    async with (
        load(home.ingest_url, around.ledger, seed=around.seed, clients=clients),
        visits(home),
        weeks_pass(around.database),
    ):
        await accepted(around.ledger, ENOUGH)
        async with trio.open_nursery() as returning:
            async with missing.leave(around):
                async with trio.open_nursery() as away:
                    for course in courses:
                        away.start_soon(fall_down, home, course if meanwhile else course[:1], rng.uniform(0.0, 0.1))
                if not meanwhile:
                    for course in courses:
                        returning.start_soon(fall_down, home, course[1:])
        await accepted(around.ledger, ENOUGH)


@asynccontextmanager
async def weeks_pass(url: str) -> AsyncIterator[None]:
    """For the length of the block a digest is owed again and again, whenever Postgres can be told so."""

    async def owe() -> None:
        while True:
            with suppress(OSError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError):
                await trio.to_thread.run_sync(execute, url, *OWE_A_DIGEST)
            await trio.sleep(WEEK_S)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(owe)
        yield
        nursery.cancel_scope.cancel()


async def fall_down(home: House, falls: Sequence[Fall], after_s: float = 0.0) -> None:
    await trio.sleep(after_s)
    for at in falls:
        await home.fall(at, 5 * PATIENCE_S)


async def assert_all_is_well(around: Around, timeout_s: float = 60) -> None:
    """The server is quiet, and everything is as promised."""
    await assert_invariants(around.database, around.ledger, timeout_s=timeout_s, min_severity=SEVERITIES)
    await around.home.assert_well()
    await until(partial(rows, around.database, SENT_DIGESTS), timeout_s)
    await trio.to_thread.run_sync(assert_told, around.database, around.receivers)
