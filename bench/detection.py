"""``python -m bench.detection``: what judging costs, and how far behind it is, apart from the door.

One process runs the poller alone on a Postgres of its own; this one appends events and touches as the writer does, in
units at an even pace. Lag is measured by Postgres: from
the commit of a run's last event to the commit of its processed mark. Ends with the invariants.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
import time
from pathlib import Path
from typing import Any

import asyncpg

from bench.fleet import Reel
from bench.processes import children_of, cpu_s, memory_mib
from dunetrace.store.embedded import EmbeddedPostgres
from dunetrace.store.packing import Packer
from dunetrace.store.writes.events import append
from tests.harness.invariants import rows, violations
from tests.harness.server import Server
from tests.harness.shapes import Event

WARM_UP_S = 2.0  # not counted
LAG_SQL = """
SELECT count(*) AS runs, percentile_cont(ARRAY[0.5, 0.99]) WITHIN GROUP (ORDER BY lag_s) AS lag FROM (
    SELECT extract(epoch FROM pg_xact_commit_timestamp(p.xmin) - max(pg_xact_commit_timestamp(e.xmin)))::float8 AS lag_s
    FROM processed_runs p JOIN events e USING (run_id, customer_id)
    WHERE e.event_type IN ('run.completed', 'run.errored') GROUP BY p.run_id, p.customer_id, p.xmin) l
"""
UNJUDGED_SQL = (
    "SELECT (SELECT count(*) FROM run_touches) + (SELECT count(*) FROM runs WHERE judged_event_count < event_count)"
)


def with_commit_times(data_dir: Path) -> None:
    """Make the embedded Postgres of `data_dir`, and have it remember when each transaction was committed."""
    postgres = EmbeddedPostgres(data_dir)
    postgres.start()
    asyncio.run(_execute(postgres.url, "ALTER SYSTEM SET track_commit_timestamp = on"))
    postgres.stop()


async def _execute(url: str, sql: str) -> None:
    conn = await asyncpg.connect(url)
    await conn.execute(sql)
    await conn.close()


class Feeder:
    """Appends the units of a reel through one connection, as `store.writes.events` does."""

    def __init__(self, conn: Any, unit: int) -> None:
        self._conn = conn
        self._units = Reel(unit).play()
        self.events = 0

    async def feed(self, rate: float, seconds: float) -> None:
        """`rate` events a second for `seconds`; a unit that comes late is followed at once by the next."""
        started = time.monotonic()
        while (passed_s := time.monotonic() - started) < seconds:
            await self._append(next(self._units))
            await asyncio.sleep(max(0.0, self.events / rate - passed_s))

    async def _append(self, events: list[Event]) -> None:
        now = time.time()
        packer = Packer("default", "bench", now)
        for place, event in enumerate(events):
            run = (event["run_id"], event["agent_id"], event["agent_version"], None)
            packer.add(
                run, event["event_type"], event["step_index"], now + place * 1e-6, int(now // 86_400),
                f"{self.events}:{place}", event["payload"],
            )  # fmt: skip
        async with self._conn.transaction():
            await append(self._conn, [packer.batch("bench")])
        await self._conn.execute("SELECT pg_notify('dunetrace', 'feeder poller')")  # as `actors.wakeups` does
        self.events += len(events)


class Costs:
    """Processor time since the last look: of the poller, of its Postgres backends, of the feeder's, of the rest."""

    def __init__(self, server: Server, feeding: Any) -> None:
        self._server = server
        self._postmaster = EmbeddedPostgres(server.data_dir).running_pid() or 0
        self._own = feeding.get_server_pid()
        self._before: dict[str, float] = {}

    async def look(self, conn: Any) -> dict[str, float]:
        backends = {
            row["pid"]
            for row in await conn.fetch("SELECT pid FROM pg_stat_activity WHERE application_name = 'dunetrace'")
        }
        others = set(children_of(self._postmaster)) - backends - {self._own}
        now = {
            "poller": cpu_s(self._server.pid),
            "Postgres for the poller": sum(map(cpu_s, backends)),
            "Postgres for the feeder": cpu_s(self._own),
            "Postgres, the rest": sum(map(cpu_s, others)) + cpu_s(self._postmaster, children=True),
        }
        spent = {name: value - self._before.get(name, 0.0) for name, value in now.items()}
        self._before = now
        return spent


async def _measure(server: Server, rate: float, unit: int, seconds: float) -> None:
    conn, looking = [await asyncpg.connect(server.database_url) for _ in range(2)]
    feeder, costs = Feeder(conn, unit), Costs(server, conn)
    feeding = asyncio.create_task(feeder.feed(rate, WARM_UP_S + seconds))
    await asyncio.sleep(WARM_UP_S)
    await costs.look(looking)
    judged, fed, started = await _judged(looking), feeder.events, time.monotonic()
    left: list[int] = []
    memory: list[float] = []
    for second in range(1, int(seconds)):
        await asyncio.sleep(started + second - time.monotonic())
        left.append(await looking.fetchval("SELECT count(*) FROM run_touches"))
        memory.append(memory_mib(server.pid))
    took_s = time.monotonic() - started
    spent = await costs.look(looking)
    judged = await _judged(looking) - judged
    fed = feeder.events - fed
    print(f"fed {fed / took_s:,.0f} events/s for {took_s:.1f} s, judged {judged / took_s:,.0f} events/s")
    for name, value in spent.items():
        print(f"{name:<26}{value / judged * 1e6:6.1f} µs an event{value / took_s * 100:6.0f} % of a core")
    print(f"touches waiting, each second: {left}")
    print(f"poller's memory, each second: {[round(mib) for mib in memory]} MiB")
    await feeding
    fed_at = time.monotonic()
    while await looking.fetchval(UNJUDGED_SQL):
        await asyncio.sleep(0.05)
    print(f"all judged {time.monotonic() - fed_at:.1f} s after the last event")
    await looking.close()
    await conn.close()


async def _judged(conn: Any) -> int:
    return int(await conn.fetchval("SELECT coalesce(sum(judged_event_count), 0)::bigint FROM runs"))


def main() -> None:
    parser = argparse.ArgumentParser(description="What judging costs, and how far behind it is.")
    parser.add_argument("--rate", type=float, default=20_000, help="events a second (%(default)s)")
    parser.add_argument("--unit", type=int, default=2_000, help="events a transaction of the feeder (%(default)s)")
    parser.add_argument("--seconds", type=float, default=10.0, help="(%(default)s)")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="dunetrace-bench-") as directory:
        with_commit_times(Path(directory))
        with Server(Path(directory), args=("--actors", "poller")) as server:
            asyncio.run(_measure(server, asked.rate, asked.unit, asked.seconds))
            ((runs, lag),) = rows(server.database_url, LAG_SQL)
            print(f"lag of {runs} ended runs: p50 {lag[0]:.2f} s, p99 {lag[1]:.2f} s")
            found = [line for line in violations(server.database_url) if "fanned out" not in line]
    if found:
        raise SystemExit("\n".join(found))


if __name__ == "__main__":
    main()
