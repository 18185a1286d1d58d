"""``python -m bench.whole``: everything at once, for as long as is asked.

A fleet of clients posts at an even rate into a server that runs all of its roles on a Postgres of its own; somebody
looks at the API, and a receiver takes the alerts. Each second is looked at; the figures are a table of what was asked
and seen, and the invariants close it. `--split` runs the poller in a second process on the same Postgres.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import cycle
from pathlib import Path
from typing import Any

import httpx
import trio

from bench.clients import Result
from bench.detection import LAG_SQL, with_commit_times
from bench.fleet import AGENTS
from bench.processes import children_of, cpu_s, memory_mib
from dunetrace.store.embedded import EmbeddedPostgres
from tests.harness.invariants import rows, settle, violations
from tests.harness.server import Server
from tests.receiver import Receiver

ROLES = "ingest,writer,dispatcher,digest,api"
READ_EVERY_S = 0.2
LAG_LIMIT_S = 2.0
WARM_UP_SHARE = 0.1  # of the time, not counted for what has to stay flat
NOW_SQL = """
SELECT count(*) AS touches, coalesce(extract(epoch FROM now() - min(received_at)), 0)::float8 AS behind_s,
       (SELECT count(*) FROM deliveries WHERE state = 'pending') AS deliveries FROM run_touches
"""
ALERTS_SQL = """
SELECT count(*) AS n, percentile_cont(ARRAY[0.5, 0.99]) WITHIN GROUP (
    ORDER BY extract(epoch FROM d.done_at - s.detected_at)::float8) AS delay_s
FROM deliveries d JOIN failure_signals s USING (customer_id, run_id, failure_type) WHERE d.state = 'done'
"""


@dataclass
class Seen:
    """One entry a second."""

    behind_s: list[float] = field(default_factory=list)
    touches: list[int] = field(default_factory=list)
    deliveries: list[int] = field(default_factory=list)
    journal_kib: list[float] = field(default_factory=list)
    server_mib: list[float] = field(default_factory=list)
    postgres_mib: list[float] = field(default_factory=list)
    reads_ms: list[float] = field(default_factory=list)  # one a request
    failed_reads: int = 0


class Ground:
    """The server, or the two, with their Postgres."""

    def __init__(self, server: Server, poller: Server | None) -> None:
        self.server = server
        self.pids = [server.pid, *([poller.pid] if poller else [])]
        self._postmaster = EmbeddedPostgres(server.data_dir).running_pid() or 0

    @property
    def postgres_pids(self) -> list[int]:
        return [self._postmaster, *children_of(self._postmaster)]

    def cpu_s(self) -> tuple[float, float]:
        """Of the server and of its Postgres so far."""
        postgres = sum(map(cpu_s, self.postgres_pids)) + cpu_s(self._postmaster, children=True)
        return sum(map(cpu_s, self.pids)), postgres


async def watch(ground: Ground, http: httpx.AsyncClient, seen: Seen, sampling: trio.Event) -> None:
    """Once a second, what is waiting and how much memory is taken."""
    while not sampling.is_set():
        health = (await http.get(f"{ground.server.ingest_url}/health")).json()
        ((touches, behind_s, deliveries),) = await trio.to_thread.run_sync(rows, ground.server.database_url, NOW_SQL)
        seen.touches.append(touches)
        seen.behind_s.append(behind_s)
        seen.deliveries.append(deliveries)
        seen.journal_kib.append(health["journal"]["backlog_bytes"] / 1024)
        seen.server_mib.append(memory_mib(*ground.pids))
        seen.postgres_mib.append(memory_mib(*ground.postgres_pids))
        with trio.move_on_after(1):
            await sampling.wait()


async def read(http: httpx.AsyncClient, seen: Seen, sampling: trio.Event) -> None:
    """Somebody at the page: agents, an agent's runs, one of them, its signals and insights, over and over."""

    async def get(path: str) -> Any:
        with trio.move_on_after(READ_EVERY_S):
            await sampling.wait()
        started = trio.current_time()
        answer = await http.get(path)
        seen.reads_ms.append((trio.current_time() - started) * 1000)
        seen.failed_reads += answer.status_code != 200
        return answer.json()

    for number in cycle(range(AGENTS)):
        if sampling.is_set():
            return
        agent = f"/v1/agents/fleet-{number}"
        await get("/v1/agents")
        for run in (await get(f"{agent}/runs"))["runs"][:1]:
            await get(f"/v1/runs/{run['run_id']}")
        await get(f"{agent}/signals")
        await get(f"{agent}/insights")


async def drive(ground: Ground, asked: argparse.Namespace) -> tuple[Result, Seen]:
    """The load, with somebody watching and somebody reading beside it."""
    seen, sampling = Seen(), trio.Event()
    command = [
        sys.executable, "-m", "bench.fleet", f"--url={ground.server.ingest_url}", f"--batch={asked.batch}",
        f"--rate={asked.rate / asked.batch}", f"--seconds={asked.seconds}", f"--connections={asked.connections}",
    ]  # fmt: skip
    api = httpx.AsyncClient(base_url=ground.server.api_url, trust_env=False, timeout=30)
    async with api, trio.open_nursery() as nursery:
        nursery.start_soon(watch, ground, api, seen, sampling)
        nursery.start_soon(read, api, seen, sampling)
        done = await trio.run_process(command, capture_stdout=True)
        sampling.set()
    return Result(**json.loads(done.stdout)), seen


def table(asked: argparse.Namespace, result: Result, seen: Seen, url: str, cpu: Sequence[float]) -> str:
    """What was asked and what was seen, as markdown."""
    ((runs, lag),) = rows(url, LAG_SQL)
    ((alerts, delay),) = rows(url, ALERTS_SQL)
    lines = [
        ("events/s accepted", f"{asked.rate:,.0f}", f"{result.events_per_s:,.0f} ({result.statuses})"),
        ("the 202, p50 / p99 / most", "", f"{result.p50_ms:.0f} / {result.p99_ms:.0f} / {result.max_ms:.0f} ms"),
        (f"last event to judged, {runs:,} runs, p50 / p99", f"≤ {LAG_LIMIT_S} s", f"{lag[0]:.2f} / {lag[1]:.2f} s"),
        ("age of the oldest news not judged, p50 / p99", f"≤ {LAG_LIMIT_S} s", _spread(seen.behind_s, "s")),
        ("touches waiting", "flat", _flat(seen.touches)),
        ("journal not yet stored, KiB", "flat", _flat(seen.journal_kib)),
        ("deliveries waiting", "flat", _flat(seen.deliveries)),
        ("memory of the server, MiB", "flat", _flat(seen.server_mib)),
        ("memory of Postgres, MiB", "flat", _flat(seen.postgres_mib)),
        (f"API reads, {len(seen.reads_ms)}, p50 / p99", "", _spread(seen.reads_ms, "ms")),
        ("API reads that failed", "0", str(seen.failed_reads)),
        (f"detected to told, {alerts:,} alerts, p50 / p99", "", _delay(delay)),
        ("cores: server, Postgres, clients", "", " / ".join(f"{used_s / result.seconds:.2f}" for used_s in cpu)),
    ]
    head = "| what | asked | seen |\n|---|---|---|\n"
    return head + "\n".join(f"| {what} | {wanted} | {found} |" for what, wanted, found in lines)


def _spread(values: Sequence[float], unit: str) -> str:
    if len(values) < 2:
        return "-"
    return f"{statistics.median(values):.2f} / {statistics.quantiles(values, n=100)[98]:.2f} {unit}"


def _flat(values: Sequence[float]) -> str:
    """The middle of the first and of the last third after the warm-up, and the most."""
    counted = values[int(len(values) * WARM_UP_SHARE) :]
    third = max(1, len(counted) // 3)
    first, last = statistics.median(counted[:third]), statistics.median(counted[-third:])
    return f"{first:,.0f} at first, {last:,.0f} at last, {max(counted):,.0f} at most"


def _delay(delay_s: Sequence[float] | None) -> str:
    return "-" if delay_s is None else f"{delay_s[0]:.2f} / {delay_s[1]:.2f} s"


async def measure(ground: Ground, asked: argparse.Namespace) -> None:
    url = ground.server.database_url
    before = ground.cpu_s()
    result, seen = await drive(ground, asked)
    spent = [now - then for now, then in zip(ground.cpu_s(), before, strict=True)]
    await settle(url, timeout_s=300)
    print(table(asked, result, seen, url, [*spent, result.client_cpu_s]), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.whole", description="Everything at once.")
    parser.add_argument("--rate", type=float, default=20_000, help="events a second (%(default)s)")
    parser.add_argument("--seconds", type=float, default=600, help="(%(default)s)")
    parser.add_argument("--batch", type=int, default=100, help="events a request (%(default)s)")
    parser.add_argument("--connections", type=int, default=16, help="(%(default)s)")
    parser.add_argument("--split", action="store_true", help="the poller in a process of its own")
    asked = parser.parse_args()
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="dunetrace-bench-")))
        receiver = stack.enter_context(Receiver())
        env = {
            "DUNETRACE_RATE_LIMIT_RPM": "0",
            "WEBHOOK_URL": receiver.url,
            "DUNETRACE_ALLOW_PRIVATE_DESTINATIONS": "true",
        }
        data_dir = directory / "server"
        data_dir.mkdir()
        with_commit_times(data_dir)
        args = ("--actors", ROLES) if asked.split else ()
        server = stack.enter_context(Server(data_dir, env=env, args=args))
        poller = Server(
            directory / "poller", env=env, args=("--actors", "poller"), database_url=server.database_url
        )  # fmt: skip
        if asked.split:
            stack.enter_context(poller)
        trio.run(measure, Ground(server, poller if asked.split else None), asked)
        print(f"\nalerts that arrived: {len(receiver.requests):,}")
        found = violations(server.database_url)
    if found:
        raise SystemExit("\n".join(found))


if __name__ == "__main__":
    main()
