"""Postgres goes away in every way it can: clients are told when to come back, and nothing accepted is lost."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlsplit

import httpx
import pytest
import trio

from dunetrace.errors import StoreUnavailableError
from dunetrace.serving.auth import key_hash
from dunetrace.store.embedded import EmbeddedPostgres
from dunetrace.store.gateway import OUTAGE_FAST_FAIL_S, Connection, open_gateway
from tests.e2e.clusters import PASSWORD, USER, Cluster
from tests.e2e.crashing import PATIENCE_S, accepted, load, until
from tests.harness.invariants import assert_invariants
from tests.harness.load import Ledger
from tests.harness.server import Server
from tests.harness.world import execute

KEY = "dt_key_of_the_tests"
PROD = {"AUTH_MODE": "prod"}
SOON_S = 3.0  # the promise is about a second; the machine may be busy


@dataclass
class Client:
    """Asks a server, one request at a time; what it is promised goes into the ledger too."""

    server: Server
    ledger: Ledger

    def post(self, key: str = KEY) -> httpx.Response:
        name = ("probe", time.time())
        event = {
            "event_type": "llm.called", "run_id": name[0], "agent_id": "probe", "agent_version": "v", "step_index": 0,
            "timestamp": name[1],
        }  # fmt: skip
        self.ledger.sent.add(name)
        answer = httpx.post(
            f"{self.server.ingest_url}/v1/ingest", json={"agent_id": "probe", "events": [event]},
            headers={"Authorization": f"Bearer {key}"}, timeout=40, trust_env=False,
        )  # fmt: skip
        if answer.status_code == 202:
            self.ledger.accepted.add(name)
        return answer

    def read(self) -> httpx.Response:
        headers = {"Authorization": f"Bearer {KEY}"}
        return httpx.get(f"{self.server.api_url}/v1/agents", headers=headers, timeout=40, trust_env=False)

    def assert_away(self, state: str) -> None:
        """Every port says that it is Postgres and when to come back; a key that can't be checked isn't called wrong."""
        for answer in (self.post(), self.post("dt_never_seen"), self.read()):
            assert answer.status_code == 503
            assert int(answer.headers["retry-after"]) >= 1
            assert set(answer.json()) == {"detail"}
        for port in ("ingest", "api"):
            said = self.server.health(port)
            assert (said["http_status"], said["status"], said["db"]) == (503, "unavailable", state)

    def refused(self, state: str) -> bool:
        return self.post().status_code == 503 and self.server.health()["db"] == state

    def served(self) -> bool:
        return self.post().status_code == 202 and self.read().status_code == 200 and self.server.health()["db"] == "ok"

    async def outage(self, what: str, state: str, go: Callable[[], Any], back: Callable[[], Any]) -> None:
        """`go`, see every port say so, `back`, see all served again."""
        await trio.to_thread.run_sync(go)
        went_s = await until(lambda: self.refused(state))
        await trio.to_thread.run_sync(self.assert_away, state)
        await trio.to_thread.run_sync(back)
        came_s = await until(self.served)
        print(f"{what}: refused after {went_s:.2f} s, served again {came_s:.2f} s after it was back")
        assert went_s < SOON_S

    def assert_never_crashed(self) -> None:
        actors = self.server.health()["actors"]
        assert {name: actor for name, actor in actors.items() if actor["restarts"]} == {}


def permit(url: str) -> None:
    """Make the one key the tests use."""
    execute(url, f"INSERT INTO api_keys (key_hash, scopes) VALUES ('{key_hash(KEY)}', '{{ingest,read}}')")


async def test_postgres_is_stopped_killed_and_locked_under_load(cluster: Cluster, tmp_path: Path) -> None:
    def lock_out() -> None:
        cluster.admin(
            f"ALTER USER {USER} PASSWORD 'another'",
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'dunetrace'",
        )

    def let_in() -> None:
        execute(cluster.inside, f"ALTER USER {USER} PASSWORD '{PASSWORD}'")

    ledger, url = Ledger(), cluster.database()
    with Server(tmp_path, database_url=url, env=PROD) as server:
        client = Client(server, ledger)
        await trio.to_thread.run_sync(permit, url)
        async with load(server.ingest_url, ledger, seed=1, api_key=KEY):
            await accepted(ledger, 100)
            await client.outage("stopped", "unreachable", cluster.stop, cluster.start)
            await accepted(ledger, 100)
            await client.outage("killed", "unreachable", cluster.kill, cluster.start)
            await accepted(ledger, 100)
            await client.outage("another password", "unreachable", lock_out, let_in)
            await accepted(ledger, 100)
        await assert_invariants(url, ledger)
        client.assert_never_crashed()
    assert "401" not in ledger.answers
    assert ledger.answers["503"] > 0
    assert ledger.retry_after_missing == 0
    print(f"{len(ledger.accepted)} events, {dict(ledger.answers)}")


@pytest.mark.prove
async def test_postgres_freezes_and_is_shot_under_load(cluster: Cluster, tmp_path: Path) -> None:
    ledger, url = Ledger(), cluster.database()
    with Server(tmp_path, database_url=url, env=PROD) as server:
        client = Client(server, ledger)
        await trio.to_thread.run_sync(permit, url)
        async with load(server.ingest_url, ledger, seed=2, api_key=KEY):
            for _ in range(2):
                await accepted(ledger, 100)
                await client.outage("frozen", "timeout", cluster.freeze, cluster.thaw)
                await accepted(ledger, 100)
                await client.outage("shot", "unreachable", cluster.shoot, cluster.start_after_shot)
            await accepted(ledger, 100)
        await assert_invariants(url, ledger)
        client.assert_never_crashed()
    assert "401" not in ledger.answers
    assert ledger.retry_after_missing == 0


async def test_a_cancelled_unit_comes_back_while_postgres_is_frozen(cluster: Cluster) -> None:
    async def frozen_half_way(conn: Connection) -> None:
        await conn.execute("SELECT 1")
        cluster.freeze()
        await conn.execute("SELECT 1")

    async def look(conn: Connection) -> int | None:
        return cast("int | None", await conn.fetchval("SELECT 1"))

    async with open_gateway(cluster.database()) as gateway:
        await gateway.unit(look)
        try:
            with trio.fail_after(PATIENCE_S), trio.move_on_after(0.1):
                with suppress(StoreUnavailableError):
                    await gateway.unit(frozen_half_way)
        finally:
            cluster.thaw()
        await trio.sleep(OUTAGE_FAST_FAIL_S)
        assert await gateway.unit(look) == 1


async def test_the_database_is_dropped_and_made_anew(cluster: Cluster, tmp_path: Path) -> None:
    url = cluster.database()
    name = urlsplit(url).path[1:]
    before, after = Ledger(), Ledger()
    with Server(tmp_path, database_url=url) as server:
        client = Client(server, before)
        async with load(server.ingest_url, before, seed=1):
            await accepted(before, 100)
        await client.outage(
            "dropped", "schema",
            lambda: cluster.admin(f"DROP DATABASE {name} WITH (FORCE)"),
            lambda: cluster.admin(f"CREATE DATABASE {name}"),
        )  # fmt: skip
        client.ledger.accepted.clear()  # went with the old database, but for the last probe
        async with load(server.ingest_url, after, seed=2):
            await accepted(after, 100)
        after.sent |= before.sent
        await assert_invariants(url, after)
        client.assert_never_crashed()


async def test_it_starts_while_postgres_is_away(cluster: Cluster, tmp_path: Path) -> None:
    ledger, url = Ledger(), cluster.database()
    cluster.stop()
    with Server(tmp_path, database_url=url) as server:
        client = Client(server, ledger)
        await trio.to_thread.run_sync(client.assert_away, "unreachable")
        await trio.to_thread.run_sync(cluster.start)
        await until(client.served)
        await assert_invariants(url, ledger)
        client.assert_never_crashed()


@pytest.mark.parametrize(
    ("database", "password", "error"),
    [
        ("postgres", "wrong", "InvalidPasswordError"),
        ("elsewhere", PASSWORD, "InvalidCatalogNameError"),
    ],
)
def test_a_wrong_password_or_database_is_one_line(
    cluster: Cluster, tmp_path: Path, database: str, password: str, error: str
) -> None:
    server = Server(tmp_path, database_url=cluster.address(database, password))
    process = server.launch()
    assert process.wait(30) == 2
    said = server.log_path.read_text()
    assert said.splitlines()[-1].startswith(f"dunetrace: DATABASE_URL: Postgres answered {error}: check the user")
    assert "Traceback" not in said
    assert password not in said
    assert cluster.running_pid() is not None


def is_another(postgres: EmbeddedPostgres, pid: int | None) -> bool:
    return postgres.running_pid() not in (None, pid)


async def test_the_embedded_postgres_comes_back_by_itself(tmp_path: Path) -> None:
    ledger = Ledger()
    with Server(tmp_path) as server:
        client, own = Client(server, ledger), EmbeddedPostgres(tmp_path)
        async with load(server.ingest_url, ledger, seed=1):
            for kill in (own.kill, own.stop):
                await accepted(ledger, 100)
                other = partial(is_another, own, own.running_pid())
                await trio.to_thread.run_sync(kill)
                back_s = await until(lambda: other() and client.served())  # noqa: B023 - called in this turn
                print(f"embedded: served again {back_s:.2f} s after")
            await accepted(ledger, 100)
        await assert_invariants(server.database_url, ledger)
        client.assert_never_crashed()
