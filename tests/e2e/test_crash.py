"""The whole process crashes: killed, or all of its actors at once. What single actors do is test_crash_matrix.py."""

from __future__ import annotations

import random
from pathlib import Path
from typing import cast

import pytest
import trio

from dunetrace import nursery
from dunetrace.actors import delivering
from dunetrace.health import Health
from dunetrace.nursery import Context
from dunetrace.store.embedded import EmbeddedPostgres
from tests.e2e.crashing import PATIENCE_S, Bug, Moment, accepted, environment, house, load
from tests.e2e.told import assert_told
from tests.harness.invariants import assert_invariants
from tests.harness.load import Ledger
from tests.harness.server import Server
from tests.receiver import Receiver

# httpx leaves its body's generator unfinished when a request is cancelled half way, which is what a crash does to it.
pytestmark = pytest.mark.filterwarnings("ignore:Async generator 'httpx._content.ByteStream:ResourceWarning")


async def test_all_actors_crash_at_once(
    database: str, tmp_path: Path, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nursery, "RESTART_BASE_S", 0.2)
    monkeypatch.setattr(delivering, "LEASE_S", 2.0)
    ledger, told = Ledger(), {"webhook": receiver}
    async with house(environment(database, told), tmp_path) as home, load(home.ingest_url, ledger, seed=2):
        for restarts in (1, 2):
            await accepted(ledger, 100)
            for actor in home.actors.values():
                actor.crash(Moment.ANYWHERE)
            for name in home.actors:
                await home.sees("api", name, "running", restarts)
        await accepted(ledger, 100)
    async with house(environment(database, told), tmp_path):
        await assert_invariants(database, ledger)
    await trio.to_thread.run_sync(assert_told, database, told)


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
    ledger, told = Ledger(), {"webhook": receiver}
    env = {name: value for name, value in environment("", told).items() if name != "DATABASE_URL"}
    with Server(tmp_path, env=env) as server:
        await kill_under_load(server, ledger, times=25)
        await assert_invariants(server.database_url, ledger, timeout_s=120)
        await trio.to_thread.run_sync(assert_told, server.database_url, told)
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
