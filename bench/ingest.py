"""``python -m bench ingest``: how much the door takes, against what was asked of it, a usual door, and a bare COPY.

Client, server and Postgres share the machine. The server runs the roles ingest and writer, as a host does that only
takes events in; `bench.whole` measures everything at once. The usual door (`bench.rival`) runs on the same Postgres,
and its rows alternate with ours.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import asyncpg

from bench.clients import Result
from bench.copying import copied_rows_per_s
from bench.processes import memory_mib
from bench.rival import KEY
from dunetrace.serving.auth import key_hash
from dunetrace.store import migrations
from dunetrace.store.embedded import EmbeddedPostgres
from tests.harness.server import Server

ROUNDS = 3  # of ours and the rival's in turn
ROWS = ("single", "ten", "hundred", "latency", "overload")
SETTINGS = {"DUNETRACE_RATE_LIMIT_RPM": "0"}


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    what: str
    asked: str
    seen: str


@dataclass
class Ground:
    """The two doors on one Postgres, and how many events each has accepted."""

    server: Server
    rival_url: str
    rival_database: str
    seconds: float
    accepted: dict[str, int] = field(default_factory=dict)

    def load(self, url: str, **options: Any) -> Result:
        """Clients in a process of their own, without end until `seconds` are over."""
        options = {"seconds": self.seconds, "key": KEY, "seed": time.time_ns() % 2**31, **options}
        flags = [f"--{name}" if value is True else f"--{name}={value}" for name, value in options.items()]
        done = subprocess.run(
            [sys.executable, "-m", "bench.clients", f"--url={url}", *flags], stdout=subprocess.PIPE, check=True
        )
        result = Result(**json.loads(done.stdout))
        self.accepted[url] = self.accepted.get(url, 0) + result.accepted_events
        return result

    def arrived(self, url: str, **options: Any) -> tuple[Result, float]:
        """As `load`, and the seconds from its first request until the last event was in Postgres."""
        result = self.load(url, **options)
        ended = time.perf_counter()
        settled(self.rival_database if url == self.rival_url else self.server.database_url, self.accepted[url])
        return result, result.seconds + time.perf_counter() - ended


def measure(rows: list[str], seconds: float, sustained_s: float) -> Iterator[Row]:
    """The rows asked for, as they are done."""
    with grounds(seconds) as ground:
        ground.load(ground.server.ingest_url, seconds=2)  # warm
        ground.load(ground.rival_url, seconds=2)
        if "single" in rows:
            yield from _requests(ground, 1, "≥ 3,500, and ≥ 10 × the usual door")
        if "ten" in rows:
            yield from _requests(ground, 10, "≥ 2,500")
        if "latency" in rows:
            paced = ground.load(ground.server.ingest_url, batch=1, rate=1000, seconds=seconds * 2)
            yield Row(
                "the 202 at 1,000 requests/s, 16 connections, 1 event",
                "p50 ≤ 5 ms, p99 ≤ 25 ms",
                f"p50 {paced.p50_ms:.1f} ms, p99 {paced.p99_ms:.1f} ms",
            )
        if "hundred" in rows:
            yield from _sustained(ground, sustained_s)
        if "overload" in rows:
            yield from _overload(ground, sustained_s / 2)
        url = ground.server.ingest_url
        stored = settled(ground.server.database_url, ground.accepted[url])
        yield Row("accepted, and stored exactly once", "equal", f"{ground.accepted[url]:,} and {stored:,}")


def _requests(ground: Ground, batch: int, asked: str) -> Iterator[Row]:
    ours: list[float] = []
    theirs: list[float] = []
    for _ in range(ROUNDS):
        for url, rates in ((ground.server.ingest_url, ours), (ground.rival_url, theirs)):
            result, took_s = ground.arrived(url, batch=batch)
            rates.append(result.statuses.get("202", 0) / took_s)
    mine, usual = statistics.median(ours), statistics.median(theirs)
    events = "event" if batch == 1 else "events"
    yield Row(
        f"requests/s of {batch} {events}, 16 connections, until all is in Postgres",
        asked,
        f"{mine:,.0f}; the usual door {usual:,.0f}: {mine / usual:.1f} ×",
    )


def _sustained(ground: Ground, seconds: float) -> Iterator[Row]:
    url, database = ground.server.ingest_url, ground.server.database_url
    usual, usual_s = ground.arrived(ground.rival_url, batch=100)
    before = copied_rows_per_s(database, seconds / 15)
    ground.accepted[url] = query(database, "SELECT count(*) FROM events")
    size, wal, events = sizes(database), query(database, WAL), ground.accepted[url]
    result, took_s = ground.arrived(url, batch=100, connections=32, seconds=seconds)
    disk, log = sizes(database) - size, query(database, WAL) - wal
    rate, stored = result.accepted_events / took_s, ground.accepted[url] - events
    after = copied_rows_per_s(database, seconds / 15)
    ground.accepted[url] = query(database, "SELECT count(*) FROM events")
    copying = statistics.mean((before, after))
    yield Row(
        f"events/s arriving in Postgres for {seconds:.0f} s, 100 a request, 32 connections",
        "≥ 60,000, and ≥ 50 % of COPY",
        f"{rate:,.0f}; COPY {copying:,.0f} ({before:,.0f} before, {after:,.0f} after): {rate / copying:.0%}",
    )
    yield Row("the usual door's events/s, 100 a request", "–", f"{usual.accepted_events / usual_s:,.0f}")
    yield Row(
        "bytes an event on disk",
        "–",
        f"{disk / stored:,.0f} in the table with its index, {log / stored:,.0f} in Postgres's log",
    )


def _overload(ground: Ground, seconds: float) -> Iterator[Row]:
    url = ground.server.ingest_url
    peak, over = [], []
    with sampled(ground.server.pid) as memory:
        for _ in range(ROUNDS):
            peak.append(ground.load(url, connections=64, seconds=seconds / 3).events_per_s)
            settled(ground.server.database_url, ground.accepted[url])
            over.append(ground.load(url, connections=256, retry=True, seconds=seconds).events_per_s)
            settled(ground.server.database_url, ground.accepted[url])
    best, loaded = statistics.median(peak), statistics.median(over)
    yield Row(
        "events/s accepted from 256 clients that retry at once, against 64 that don't",
        "≥ 80 %",
        f"{loaded:,.0f} and {best:,.0f}: {loaded / best:.0%}",
    )
    half = len(memory) // 2
    early, late = statistics.median(memory[:half]), statistics.median(memory[half:])
    yield Row(
        f"memory of the server over {len(memory)} s of that",
        "flat, ≤ 300 MiB",
        f"{early:.0f} MiB in the first half, {late:.0f} in the second, {max(memory):.0f} at most",
    )


@contextmanager
def grounds(seconds: float) -> Iterator[Ground]:
    """Both doors, each with its own database in the same embedded Postgres."""
    with tempfile.TemporaryDirectory(prefix="dunetrace-bench-") as directory:
        with Server(Path(directory), env=SETTINGS, args=["--actors", "ingest,writer"]) as server:
            rival_database = asyncio.run(_rival_database(server.data_dir))
            with _rival(rival_database) as url:
                yield Ground(server, url, rival_database, seconds)


async def _rival_database(data_dir: Path) -> str:
    ours = EmbeddedPostgres(data_dir).url
    conn: Any = await asyncpg.connect(ours)
    await conn.execute("CREATE DATABASE rival")
    await conn.close()
    theirs = ours.replace("/dunetrace?", "/rival?")
    conn = await asyncpg.connect(theirs)
    for migration in migrations.load():
        await conn.execute(migration.sql)
    await conn.execute("INSERT INTO api_keys (key_hash, scopes) VALUES ($1, '{ingest}')", key_hash(KEY))
    await conn.close()
    return theirs


@contextmanager
def _rival(database: str) -> Iterator[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "bench.rival", "--database-url", database, "--port", str(port)]
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL)
    try:
        _wait_for(port, process)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(10)


def _wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    for _ in range(300):
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            if process.poll() is not None:
                raise SystemExit("the usual door did not start") from None
            time.sleep(0.1)
        else:
            return
    raise SystemExit("the usual door did not start within 30 s")


@contextmanager
def sampled(pid: int) -> Iterator[list[float]]:
    """Memory of a process in MiB, each second of the block."""
    found: list[float] = []
    stop = threading.Event()

    def sample() -> None:
        while not stop.wait(1):
            found.append(memory_mib(pid))

    thread = threading.Thread(target=sample)
    thread.start()
    try:
        yield found
    finally:
        stop.set()
        thread.join()


def settled(database: str, events: int) -> int:
    """Wait until so many events are stored; how many there are."""
    for _ in range(3_000):
        stored = query(database, "SELECT count(*) FROM events")
        if stored >= events:
            break
        time.sleep(0.02)
    return int(stored)


WAL = "SELECT pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0')::bigint"


def sizes(database: str) -> int:
    """Bytes of ``events`` with its index."""
    return query(database, "SELECT pg_total_relation_size('events')")


def query(database: str, sql: str) -> int:
    async def ask() -> int:
        conn: Any = await asyncpg.connect(database)
        try:
            return int(await conn.fetchval(sql))
        finally:
            await conn.close()

    return asyncio.run(ask())


def cores() -> int:
    return len(os.sched_getaffinity(0))
