"""Whatever crashes, nothing accepted is lost, nothing is counted twice, and every alert arrives."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple, cast

import httpx
import pytest
import trio

from dunetrace import nursery
from dunetrace.actors import destination
from dunetrace.health import Health
from dunetrace.nursery import Context
from dunetrace.store.embedded import EmbeddedPostgres
from dunetrace.store.writes import deliveries, events, judgements
from dunetrace.store.writes.fanout import fan_out
from tests.e2e.crashing import PATIENCE_S, Bug, House, Moment, StoreFunction, accepted, house, load
from tests.harness.invariants import assert_invariants, rows
from tests.harness.load import Ledger
from tests.harness.server import Server
from tests.receiver import Receiver

# httpx leaves its body's generator unfinished when a request is cancelled half way, which is what a crash does to it.
pytestmark = pytest.mark.filterwarnings("ignore:Async generator 'httpx._content.ByteStream:ResourceWarning")

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
            with suppress(httpx.TransportError):
                assert (await http.get("/v1/agents")).status_code in (200, 503)
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
    await crash_in_turn(database, receiver, FALLS)


@pytest.mark.prove
async def test_actors_crash_for_minutes_at_the_real_pace(database: str, receiver: Receiver) -> None:
    await crash_in_turn(database, receiver, random.Random(1).sample(FALLS * 3, len(FALLS) * 3))


async def crash_in_turn(database: str, receiver: Receiver, falls: Sequence[Fall]) -> None:
    ledger, restarts, away_s = Ledger(), dict.fromkeys((at.actor for at in FALLS), 0), []
    async with house(environment(database, receiver)) as home:
        async with trio.open_nursery() as reading:
            reading.start_soon(read_on, home.api_url)
            async with load(home.ingest_url, ledger, seed=1):
                await accepted(ledger, 100)
                for at in falls:
                    restarts[at.actor] += 1
                    away_s.append((await fall(home, at, restarts[at.actor]), at.actor))
                await accepted(ledger, 100)
            reading.cancel_scope.cancel()
        await assert_invariants(database, ledger, timeout_s=300)
        said = await home.health("api")
        assert said["status"] == "ok"
        assert {name: actor["restarts"] for name, actor in said["actors"].items()} == restarts
        assert set(home.actors) == set(restarts)
    repeated = await trio.to_thread.run_sync(assert_told, database, receiver)
    assert repeated >= 1  # the attempt whose outcome was lost before it was kept
    assert ledger.unsettled == set()
    print(f"{len(ledger.accepted)} events, {dict(ledger.answers)}, {len(receiver.requests)} requests")
    print(f"{repeated} deliveries came twice; longest away: {max(away_s)}")


async def test_all_actors_crash_at_once(database: str, receiver: Receiver, quick: None) -> None:
    ledger = Ledger()
    async with house(environment(database, receiver)) as home, load(home.ingest_url, ledger, seed=2):
        for restarts in (1, 2):
            await accepted(ledger, 100)
            for actor in home.actors.values():
                actor.crash(ANYWHERE)
            for name in home.actors:
                await home.sees("api", name, "running", restarts)
        await accepted(ledger, 100)
    async with house(environment(database, receiver)):
        await assert_invariants(database, ledger)
    await trio.to_thread.run_sync(assert_told, database, receiver)


class Stubborn:
    """Doesn't stop when asked to, and one of its tasks raises when it is cut off."""

    name = "stubborn"

    async def run(self, ctx: object, *, task_status: trio.TaskStatus[None]) -> None:
        async with trio.open_nursery() as tasks:
            tasks.start_soon(trio.sleep_forever)
            tasks.start_soon(self._fail_at_the_end)
            task_status.started()

    async def _fail_at_the_end(self) -> None:
        try:
            await trio.sleep_forever()
        finally:
            raise Bug


async def test_a_crash_while_being_cut_off_does_not_spoil_the_shutdown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nursery, "STAGE_LIMIT_S", 0.1)
    stage = nursery.Stage([Stubborn()], stops=0)
    supervisor = nursery.Supervisor([stage], lambda _: cast("Context", None), Health("test", lambda: "ok"))
    with trio.fail_after(PATIENCE_S):
        async with trio.open_nursery() as running:
            await running.start(supervisor.run)
            supervisor.stop()
    assert stage.stopped.is_set()


async def test_the_process_is_killed_under_load(tmp_path: Path) -> None:
    ledger = Ledger()
    with Server(tmp_path) as server:
        await kill_under_load(server, ledger, times=3)
        await assert_invariants(server.database_url, ledger)
    assert ledger.unsettled == set()


@pytest.mark.prove
async def test_the_process_is_killed_many_times(tmp_path: Path, receiver: Receiver) -> None:
    ledger = Ledger()
    env = {name: value for name, value in environment("", receiver).items() if name != "DATABASE_URL"}
    with Server(tmp_path, env=env) as server:
        await kill_under_load(server, ledger, times=25)
        await assert_invariants(server.database_url, ledger, timeout_s=120)
        await trio.to_thread.run_sync(assert_told, server.database_url, receiver)
    assert ledger.unsettled == set()


async def kill_under_load(server: Server, ledger: Ledger, times: int) -> None:
    """SIGKILL the process after some events each time, and start it again; its Postgres is taken over."""
    rng, took_s = random.Random(times), []
    async with load(server.ingest_url, ledger, seed=times):
        for _ in range(times):
            await accepted(ledger, rng.randint(1, 300))
            await trio.to_thread.run_sync(server.kill)
            started = trio.current_time()
            await trio.to_thread.run_sync(server.start)
            await accepted(ledger, 1)
            took_s.append(round(trio.current_time() - started, 2))
        await accepted(ledger, 100)
    assert server.log_path.read_text().count("postgres.adopted") == times
    print(f"{len(ledger.accepted)} events, {dict(ledger.answers)}, accepted again after {took_s} s")


@pytest.mark.prove
async def test_a_first_start_killed_at_any_point_can_be_made_again(tmp_path: Path) -> None:
    rng, server, ledger = random.Random(5), Server(tmp_path), Ledger()
    try:
        for _ in range(20):
            process = await trio.to_thread.run_sync(server.launch)
            with trio.move_on_after(rng.uniform(0.3, PATIENCE_S / 5)):
                await trio.to_thread.run_sync(process.wait, abandon_on_cancel=True)
            assert process.poll() is None, server.log_tail()
            server.kill()
            if rng.random() < 0.3:
                EmbeddedPostgres(tmp_path).kill()
        server.start()
        async with load(server.ingest_url, ledger, seed=9):
            await accepted(ledger, 100)
        await assert_invariants(server.database_url, ledger)
    finally:
        server.close()
