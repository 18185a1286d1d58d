"""A signal ends the process in order and in time, whoever is connected; a second one ends it at once."""

from __future__ import annotations

import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import trio

from dunetrace.process import EXIT_FORCED, SHUTDOWN_LIMIT_S
from dunetrace.store.embedded import EmbeddedPostgres
from tests.e2e.clusters import Cluster
from tests.e2e.crashing import accepted, load, until
from tests.harness.invariants import assert_invariants
from tests.harness.load import Ledger
from tests.harness.server import Server

STUCK_S = 0.5  # nothing could be sent for this long: the other side does not read
SLOW_BODY = (
    b"POST /v1/ingest HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n{"
)


def asking(path: str) -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode() * 100


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[trio.SocketStream]:
    parts = urlsplit(url)
    assert parts.hostname is not None
    assert parts.port is not None
    async with await trio.open_tcp_stream(parts.hostname, parts.port) as stream:
        yield stream


@asynccontextmanager
async def rude_clients(server: Server) -> AsyncIterator[None]:
    """On both ports one that asks and asks and never reads; and one whose body never ends."""
    ingest, api = server.ingest_url, server.api_url
    async with connected(ingest) as deaf, connected(api) as deaf_too, connected(ingest) as slow:
        await slow.send_all(SLOW_BODY)
        for stream, path in ((deaf, "/health"), (deaf_too, "/openapi.json")):
            stuck = False
            while not stuck:
                with trio.move_on_after(STUCK_S) as sending:
                    await stream.send_all(asking(path))
                stuck = sending.cancelled_caught
        yield


async def stopped(server: Server, *signals: int) -> tuple[int, float]:
    """Send `signals`, each once the process has taken note of the one before. Its exit status, and how long it took."""
    assert server.process is not None
    started = time.monotonic()
    for number in signals:
        server.process.send_signal(number)
        await until(lambda: "process.stopping" in server.log_path.read_text() or server.process.poll() is not None)
    code = await trio.to_thread.run_sync(server.process.wait, SHUTDOWN_LIMIT_S + 10)
    return code, time.monotonic() - started


@pytest.mark.parametrize("number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.prove)])
async def test_a_signal_under_load_ends_it_in_order(tmp_path: Path, number: int) -> None:
    ledger = Ledger()
    with Server(tmp_path) as server:  # its Postgres has to stop within the same ten seconds
        async with load(server.ingest_url, ledger, seed=1):
            await accepted(ledger, 100)
            async with rude_clients(server):
                code, took_s = await stopped(server, number)
            print(f"{signal.Signals(number).name}: stopped after {took_s:.2f} s")
            assert code == 0, server.log_tail()
            assert took_s < SHUTDOWN_LIMIT_S
            said = server.log_path.read_text()
            assert "process.stopped" in said
            assert "process.stop_forced" not in said
            assert EmbeddedPostgres(tmp_path).running_pid() is None
            await trio.to_thread.run_sync(server.start)
            await accepted(ledger, 100)
        await assert_invariants(server.database_url, ledger)
    assert ledger.unsettled == set()


async def test_a_second_signal_ends_it_at_once(database: str, tmp_path: Path) -> None:
    ledger = Ledger()
    with Server(tmp_path, database_url=database) as server:
        async with load(server.ingest_url, ledger, seed=1):
            await accepted(ledger, 100)
            async with rude_clients(server):
                code, took_s = await stopped(server, signal.SIGTERM, signal.SIGINT)
            assert code == EXIT_FORCED
            assert took_s < 2.0
            await trio.to_thread.run_sync(server.start)
            await accepted(ledger, 1)
        await assert_invariants(database, ledger)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_while_postgres_is_still_being_made(tmp_path: Path, number: int) -> None:
    server = Server(tmp_path)
    process = server.launch()
    await until(lambda: any(tmp_path.glob("postgres*")))
    process.send_signal(number)
    assert await trio.to_thread.run_sync(process.wait, SHUTDOWN_LIMIT_S + 10) in (0, EXIT_FORCED)
    assert "Traceback" not in server.log_path.read_text()
    with server:
        assert server.health()["status"] == "ok"


@pytest.mark.prove
async def test_a_frozen_postgres_does_not_hold_it_up(tmp_path: Path) -> None:
    ledger = Ledger()
    with Cluster(tmp_path / "cluster") as cluster, Server(tmp_path, database_url=cluster.database()) as server:
        async with load(server.ingest_url, ledger, seed=1):
            await accepted(ledger, 100)
            await trio.to_thread.run_sync(cluster.freeze)
            code, took_s = await stopped(server, signal.SIGTERM)
            print(f"stopped after {took_s:.2f} s with status {code}")
            assert code in (0, EXIT_FORCED)
            assert took_s < SHUTDOWN_LIMIT_S + 1.0
            cluster.thaw()
            await trio.to_thread.run_sync(server.start)
            await accepted(ledger, 1)
        await assert_invariants(server.database_url, ledger)
