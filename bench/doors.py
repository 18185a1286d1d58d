"""The doors that `bench.ingest` compares: ours and `bench.rival`'s two, on one embedded Postgres.

Ours has a database of its own, the two of the rival share one.

Each asks for the same key. A door counts what it has accepted, so that at the end it can be said whether all of it was
stored, once.
"""

from __future__ import annotations

import asyncio
import json
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg

from bench.clients import Result
from bench.copying import copied
from bench.rival import KEY
from dunetrace.serving.auth import key_hash
from dunetrace.store import migrations
from tests.harness.server import Server

SETTINGS = {"AUTH_MODE": "prod", "DUNETRACE_RATE_LIMIT_RPM": "0"}
START_TIMEOUT_S = 30
SETTLE_TIMEOUT_S = 120
LOOK_S = 0.02
_COUNT = "SELECT count(*) FROM events"
_NUMBERED = "SELECT last_value FROM events_id_seq"  # counts the rows begun, at no cost


@dataclass
class Counts:
    """What was sent into one database. `accepted` events were promised; `uncertain` ones had no answer: both are right,
    stored and not.
    """

    accepted: int = 0
    uncertain: int = 0


@dataclass
class Door:
    """One door, and what was sent into its database through all doors to it."""

    url: str
    database_url: str
    seconds: float
    counts: Counts

    def load(self, **options: Any) -> Result:
        """Clients in a process of their own, for `seconds`; options as in `bench.clients.Load`."""
        options = {"seconds": self.seconds, "key": KEY, **options}
        flags = [f"--{name}" if value is True else f"--{name}={value}" for name, value in options.items()]
        done = subprocess.run(
            [sys.executable, "-m", "bench.clients", f"--url={self.url}", *flags], stdout=subprocess.PIPE, check=True
        )
        result = Result(**json.loads(done.stdout))
        self.counts.accepted += result.accepted_events
        self.counts.uncertain += (result.errors + result.unanswered) * options.get("batch", 100)
        return result

    def arrived(self, **options: Any) -> tuple[Result, float]:
        """As `load`, and the seconds from its first request until the last event was in Postgres."""
        result = self.load(**options)
        ended_s = time.perf_counter()
        return result, result.seconds + max(0.0, self.settle() - ended_s)

    def copied_per_s(self, seconds: float) -> float:
        """Rows a second of a bare COPY into this door's table."""
        rows, took_s = copied(self.database_url, seconds)
        self.counts.accepted += rows
        return rows / took_s

    def settle(self) -> float:
        """Wait until all that was accepted is stored; since when it is, by the performance counter."""
        return asyncio.run(self._settle())

    async def _settle(self) -> float:
        conn: Any = await asyncpg.connect(self.database_url)
        try:
            until_s = time.perf_counter() + SETTLE_TIMEOUT_S
            while (now_s := time.perf_counter()) < until_s:
                if (
                    await conn.fetchval(_NUMBERED) >= self.counts.accepted
                    and await conn.fetchval(_COUNT) >= self.counts.accepted
                ):
                    return now_s
                await asyncio.sleep(LOOK_S)
            raise SystemExit(f"of {self.counts.accepted:,} events accepted, {await conn.fetchval(_COUNT):,} are stored")
        finally:
            await conn.close()

    def query(self, sql: str) -> int:
        """The one number it says."""
        return asyncio.run(_query(self.database_url, sql))

    def stored(self) -> int:
        return self.query(_COUNT)


@dataclass
class Ground:
    """The doors, and the process of ours. `usual` answers at once, `careful` when it has stored."""

    server: Server
    ours: Door
    usual: Door
    careful: Door


@contextmanager
def ground(seconds: float) -> Iterator[Ground]:
    """The doors, open. The server runs the roles ingest and writer, as a host does that only takes events in."""
    with tempfile.TemporaryDirectory(prefix="dunetrace-bench-") as directory:
        with Server(Path(directory), env=SETTINGS, args=["--actors", "ingest,writer"]) as server:
            ours, theirs = server.database_url, server.database_url.replace("/dunetrace?", "/rival?")
            asyncio.run(_prepare(ours, theirs))
            with _rival(theirs, "at-once") as usual, _rival(theirs, "stored") as careful:
                counts = Counts()
                yield Ground(
                    server,
                    Door(server.ingest_url, ours, seconds, Counts()),
                    Door(usual, theirs, seconds, counts),
                    Door(careful, theirs, seconds, counts),
                )


async def _prepare(ours: str, theirs: str) -> None:
    await _execute(ours, "CREATE DATABASE rival")
    await _execute(theirs, *(migration.sql for migration in migrations.load()))
    for database_url in (ours, theirs):
        await _execute(
            database_url, f"INSERT INTO api_keys (key_hash, scopes) VALUES ('{key_hash(KEY)}', '{{ingest}}')"
        )


async def _execute(database_url: str, *statements: str) -> None:
    conn: Any = await asyncpg.connect(database_url)
    for sql in statements:
        await conn.execute(sql)
    await conn.close()


async def _query(database_url: str, sql: str) -> int:
    conn: Any = await asyncpg.connect(database_url)
    try:
        return int(await conn.fetchval(sql))
    finally:
        await conn.close()


@contextmanager
def _rival(database_url: str, answer: str) -> Iterator[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [
        sys.executable, "-m", "bench.rival", "--database-url", database_url, "--port", str(port), "--answer", answer
    ]  # fmt: skip
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL)
    try:
        _wait_for(port, process)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(10)


def _wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    until_s = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < until_s and process.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            time.sleep(0.1)
        else:
            return
    raise SystemExit(f"the FastAPI door was not open within {START_TIMEOUT_S} s")
