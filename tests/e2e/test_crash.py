"""Whatever crashes, nothing accepted is lost, nothing is counted twice, and every alert arrives."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import httpx
import pytest
import trio

from dunetrace import nursery
from dunetrace.actors import destination
from dunetrace.store.embedded import EmbeddedPostgres
from dunetrace.store.writes import deliveries, events, judgements
from dunetrace.store.writes.fanout import fan_out
from tests.e2e.crashing import Crashing, House, Moment, StoreFunction, accepted, house, load, until
from tests.harness.invariants import assert_invariants, rows
from tests.harness.load import Ledger
from tests.harness.server import Server
from tests.receiver import Receiver

ANYWHERE, BEFORE_COMMIT, AFTER_COMMIT = Moment.ANYWHERE, Moment.BEFORE_COMMIT, Moment.AFTER_COMMIT
LIVE = (
    "SELECT s.run_id, s.failure_type, d.id::text AS delivery_id FROM failure_signals s JOIN deliveries d "
    "USING (customer_id, run_id, failure_type) WHERE NOT s.shadow"
)


class Fall(NamedTuple):
    actor: str
    moment: Moment
    within: StoreFunction | None = None


FALLS = (
    Fall("destination:webhook", ANYWHERE),
    Fall("destination:webhook", BEFORE_COMMIT, deliveries.claim),
    Fall("destination:webhook", AFTER_COMMIT, deliveries.claim),
    Fall("destination:webhook", BEFORE_COMMIT, deliveries.keep),
    Fall("destination:webhook", AFTER_COMMIT, deliveries.keep),
    Fall("dispatcher", ANYWHERE),
    Fall("dispatcher", BEFORE_COMMIT, fan_out),
    Fall("dispatcher", AFTER_COMMIT, fan_out),
    Fall("poller", ANYWHERE),
    Fall("poller", BEFORE_COMMIT, judgements.commit),
    Fall("poller", AFTER_COMMIT, judgements.commit),
    Fall("writer", ANYWHERE),
    Fall("writer", BEFORE_COMMIT, events.append),
    Fall("writer", AFTER_COMMIT, events.append),
    Fall("ingest", ANYWHERE),
    Fall("ingest", ANYWHERE),
    Fall("api", ANYWHERE),
    Fall("api", BEFORE_COMMIT),
    Fall("wakeups", ANYWHERE),
    Fall("wakeups", BEFORE_COMMIT),
    Fall("database", ANYWHERE),
    Fall("database", ANYWHERE),
)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as receiving:
        yield receiving


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same schedule in less time: shorter pauses before a restart, and before a lost attempt is made again."""
    monkeypatch.setattr(nursery, "RESTART_BASE_S", 0.2)
    monkeypatch.setattr(destination, "LEASE_S", 2.0)


def environment(database: str, receiver: Receiver) -> dict[str, str]:
    return {
        "DATABASE_URL": database, "WEBHOOK_URL": receiver.url, "WEBHOOK_SECRET": "a secret of the tests",
        "DUNETRACE_ALLOW_PRIVATE_DESTINATIONS": "true", "DUNETRACE_POLL_INTERVAL": "1",
        "DUNETRACE_ALERT_INTERVAL": "1",
    }  # fmt: skip


async def read_on(url: str) -> None:
    """Somebody looks at the API all the time."""
    async with httpx.AsyncClient(base_url=url, trust_env=False, timeout=5) as http:
        while True:
            try:
                assert (await http.get("/v1/agents")).status_code in (200, 503)
            except httpx.TransportError:
                pass
            await trio.sleep(0.05)


async def fall(home: House, at: Fall, restarts: int) -> float:
    """Bring one actor down and watch it come back from the port that still works. Returns the seconds it was away."""
    from_port = "ingest" if at.actor == "api" else "api"
    home.actors[at.actor].crash(at.moment, at.within)
    said = await home.sees(from_port, at.actor, "restarting", restarts)
    started = trio.current_time()
    assert (said["http_status"], said["status"]) == (200, "degraded")
    if at.actor == "writer":
        door = await home.health("ingest")
        assert (door["http_status"], door["status"]) == (503, "unavailable")
    elif at.actor not in ("ingest", "api"):
        assert (await home.health("ingest"))["http_status"] == 200
    await home.sees(from_port, at.actor, "running", restarts)
    return trio.current_time() - started


def assert_told(database: str, receiver: Receiver) -> int:
    """Every live signal arrived under the one delivery_id it has. Returns how many deliveries came more than once."""
    wanted = {(row["run_id"], row["failure_type"]): row["delivery_id"] for row in rows(database, LIVE)}
    arrived: dict[tuple[str, str], list[str]] = {}
    for request in receiver.requests:
        document = request.document
        arrived.setdefault((document["run_id"], document["failure_type"]), []).append(document["delivery_id"])
        assert request.headers["webhook-id"] == document["delivery_id"]
    assert {name: {delivery_id} for name, delivery_id in wanted.items()} == {
        name: set(ids) for name, ids in arrived.items()
    }
    assert wanted
    return sum(1 for ids in arrived.values() if len(ids) > 1)


async def test_each_actor_crashes_in_turn(database: str, receiver: Receiver, quick: None) -> None:
    ledger, restarts, away_s = Ledger(), dict.fromkeys((at.actor for at in FALLS), 0), []
    async with house(environment(database, receiver)) as home, trio.open_nursery() as reading:
        reading.start_soon(read_on, home.api_url)
        async with load(home.ingest_url, ledger, seed=1):
            await accepted(ledger, 100)
            for at in FALLS:
                restarts[at.actor] += 1
                away_s.append((await fall(home, at, restarts[at.actor]), at.actor))
            await accepted(ledger, 100)
        reading.cancel_scope.cancel()
        await assert_invariants(database, ledger)
        said = await home.health("api")
        assert said["status"] == "ok"
        assert {name: actor["restarts"] for name, actor in said["actors"].items()} == restarts
        assert set(home.actors) == set(restarts)
    repeated = await trio.to_thread.run_sync(assert_told, database, receiver)
    assert repeated >= 1  # the attempt whose outcome was lost before it was kept
    assert ledger.unsettled == set()
    print(f"{len(ledger.accepted)} events, {ledger.answers}, {len(receiver.requests)} requests, {repeated} repeated")
    print(f"longest away: {max(away_s)}")
