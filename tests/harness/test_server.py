"""The harness's server: a real process that comes up, is killed, comes back, and says why when it can't."""

from __future__ import annotations

import os
from pathlib import Path

import httpx
import pytest
import trio

from dunetrace.store.embedded import EmbeddedPostgres
from tests.harness.invariants import assert_invariants, rows
from tests.harness.load import Ledger, drive
from tests.harness.server import Server, ServerFailedError


def test_it_comes_up_with_a_postgres_of_its_own_and_back_after_a_kill(tmp_path: Path) -> None:
    with Server(tmp_path) as server:
        assert server.health()["http_status"] == 200
        assert server.health("ingest")["db"] == "ok"
        assert httpx.get(server.dashboard_url, trust_env=False).status_code == 200
        first = server.ingest_url
        server.kill()
        with pytest.raises(httpx.ConnectError):
            server.health()
        assert EmbeddedPostgres(tmp_path).running_pid() is not None
        server.start()
        assert server.ingest_url == first
        assert "postgres.adopted" in server.log_tail()
        assert rows(server.database_url, "SELECT 1 AS one")[0]["one"] == 1
        assert server.terminate() == 0
    assert EmbeddedPostgres(tmp_path).running_pid() is None


def test_it_says_why_when_it_does_not_come_up(tmp_path: Path) -> None:
    server = Server(tmp_path, env={"DUNETRACE_POLL_INTERVAL": "often"})
    with pytest.raises(ServerFailedError, match=r"status 2 .*(?s:.*)DUNETRACE_POLL_INTERVAL: 'often'"):
        server.start()
    server.close()


def test_nothing_of_the_callers_settings_goes_in(
    database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DUNETRACE_POLL_INTERVAL", "often")
    monkeypatch.setenv("DATABASE_URL", "postgresql://nowhere.invalid/x")
    with Server(tmp_path, database_url=database) as server:
        assert server.health()["status"] == "ok"
        assert server.pid != os.getpid()


def test_a_port_whose_role_runs_elsewhere_has_no_address(database: str, tmp_path: Path) -> None:
    with Server(tmp_path, database_url=database, args=["--actors", "api"]) as server:
        assert server.ingest_url == ""
        assert server.health()["http_status"] == 200


async def test_the_invariants_hold_after_a_kill_under_load(database: str, tmp_path: Path) -> None:
    ledger, stop = Ledger(), trio.Event()
    with Server(tmp_path, database_url=database) as server:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lambda: drive(server.ingest_url, ledger, clients=3, runs=None, stop=stop))
            for enough in (300, 900):
                with trio.fail_after(30):
                    while len(ledger.accepted) < enough:
                        await trio.sleep(0.01)
                if enough == 300:
                    await trio.to_thread.run_sync(server.kill)
                    await trio.to_thread.run_sync(server.start)
            stop.set()
        await assert_invariants(database, ledger)
    assert ledger.answers["202"] > 0
    assert any(name.endswith("Error") for name in ledger.answers)
    assert ledger.unsettled == set()
