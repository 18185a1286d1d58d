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

from dunetrace.nursery import EXIT_FORCED, SHUTDOWN_LIMIT_S
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
    async with (
        connected(server.ingest_url) as deaf, connected(server.api_url) as deaf_too, connected(server.ingest_url) as slow
    ):  # fmt: skip
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


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_under_load_ends_it_in_order(database: str, tmp_path: Path, number: int) -> None:
    ledger = Ledger()
    with Server(tmp_path, database_url=database) as server:
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
            await trio.to_thread.run_sync(server.start)
            await accepted(ledger, 100)
        await assert_invariants(database, ledger)
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
