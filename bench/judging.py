"""``python -m bench.judging``: how fast and how soon runs are judged, against what was asked of it, row by row.

- ``finished``: runs of 22 events that are stored and wait, one process with the poller alone beside Postgres.
- ``drain``: the same backlog under a whole server, while somebody reads its API at an even pace.
- ``end``: a quiet system; from the answer to a run's last event to its signal in the API.
- ``third``: default settings, many runs open; from the third identical call's request to its alert at a receiver.
- ``million``: one run that does not end; what an event costs early and late, and the poller's memory.

Each row has a server of its own and ends with the invariants.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import asyncpg
import httpx

from bench.processes import cpu_s, memory_mib
from dunetrace.store.packing import Packer
from dunetrace.store.writes.events import append
from tests.harness.invariants import rows, violations
from tests.harness.server import Server
from tests.harness.shapes import Event, Script
from tests.receiver import Receiver

AGENTS = 20
UNIT = 5_000  # events a transaction, where they are put into Postgres by the bench itself
LOOK_S = 0.05
LEFT = "SELECT (SELECT count(*) FROM run_touches) + (SELECT count(*) FROM runs WHERE judged_event_count < event_count)"
ONE_PART = 1_000  # events of the endless run a request


def run_of_22(rng: random.Random, number: int, *, loops: bool = False) -> Script:
    """A run of 22 events; one in fifty of these has a loop."""
    script = Script(rng, f"agent-{number % AGENTS}", time.time())
    same = script.digest() if loops else None
    script.begin()
    for _ in range(5):
        script.llm()
        script.tool("search", same)
    script.complete()
    return script


def runs_of_22(count: int) -> Iterator[Script]:
    rng = random.Random(count)
    return (run_of_22(rng, number, loops=number % 50 == 0) for number in range(count))


async def _store(url: str, scripts: Iterable[Script]) -> None:
    """Put runs into Postgres as the writer does, without a server."""
    conn: Any = await asyncpg.connect(url)
    try:
        left = iter(scripts)
        number = 0
        while batch := list(islice(left, UNIT // 22)):
            now = time.time()
            packer = Packer("default", "bench", now)
            for event in (event for script in batch for event in script.events):
                run = (event["run_id"], event["agent_id"], event["agent_version"], None)
                number += 1
                packer.add(
                    run, event["event_type"], event["step_index"], event["timestamp"], int(now // 86_400),
                    str(number), event["payload"],
                )  # fmt: skip
            async with conn.transaction():
                await append(conn, [packer.batch("bench")])
        await conn.execute("ANALYZE events")
    finally:
        await conn.close()


def _stored(directory: Path, runs: int) -> None:
    """A database in `directory` with `runs` finished runs that nobody judged."""
    with Server(directory, args=("--actors", "api")) as server:
        asyncio.run(_store(server.database_url, runs_of_22(runs)))


def _wait_judged(server: Server) -> float:
    """When all is judged, by the monotonic clock."""
    while rows(server.database_url, LEFT)[0][0]:
        time.sleep(LOOK_S)
    return time.monotonic()


def _percentiles(values: list[float], unit: str) -> str:
    ordered = sorted(values)
    p50, p99 = (ordered[int((len(ordered) - 1) * share)] for share in (0.5, 0.99))
    return f"p50 {p50:,.1f} {unit}, p99 {p99:,.1f} {unit}, most {ordered[-1]:,.1f} {unit}"


def finished(directory: Path, size: int) -> str:
    """Runs a second of a backlog, by the poller alone."""
    _stored(directory, size)
    with Server(directory, args=("--actors", "poller")) as server:
        began_at = time.monotonic()
        took_s = _wait_judged(server) - began_at
        core = cpu_s(server.pid) / took_s
        signals = rows(server.database_url, "SELECT count(*) FROM failure_signals")[0][0]
        _prove(server)
    return f"{size / took_s:,.0f} runs/s ({size:,} runs, {signals} signals, {took_s:.1f} s, {core:.0%} of a core)"


def drain(directory: Path, size: int) -> str:
    """How long the API takes while a backlog is judged in the same process."""
    _stored(directory, size)
    with Server(directory) as server:
        took_ms: list[float] = []
        over = threading.Event()
        reader = threading.Thread(target=_read, args=(server.api_url, took_ms, over))
        began_at = time.monotonic()
        reader.start()
        took_s = _wait_judged(server) - began_at
        over.set()
        reader.join()
        _prove(server)
    return f"{_percentiles(took_ms, 'ms')} of {len(took_ms)} reads in the {took_s:.0f} s that {size:,} runs took"


def _read(api_url: str, took_ms: list[float], over: threading.Event) -> None:
    """Twenty reads a second, over the agents in turn."""
    paths = [
        "/v1/agents", *(f"/v1/agents/agent-{n}{what}" for n in range(5) for what in ("/runs", "/signals", "/insights"))
    ]  # fmt: skip
    with httpx.Client(base_url=api_url, trust_env=False) as http:
        while not over.wait(LOOK_S):
            began_at = time.monotonic()
            http.get(paths[len(took_ms) % len(paths)]).raise_for_status()
            took_ms.append((time.monotonic() - began_at) * 1000)


def end(directory: Path, size: int) -> str:
    """From a run's end to its signal in the API, one after the other."""
    rng = random.Random(size)
    took_ms = []
    with Server(directory) as server, httpx.Client(trust_env=False) as http:
        for _ in range(size):
            script = Script(rng, "agent", time.time())
            script.begin()
            script.llm("length")
            script.llm("length")
            script.complete()
            _send(http, server, script.events)
            began_at = time.monotonic()
            path = f"{server.api_url}/v1/runs/{script.run_id}"
            while not (answer := http.get(path)).is_success or not answer.json()["signals"]:
                pass
            took_ms.append((time.monotonic() - began_at) * 1000)
        _prove(server)
    return f"{_percentiles(took_ms, 'ms')} of {size} runs"


def third(directory: Path, size: int) -> str:
    """From the third identical call to its alert, with `size` other runs open."""
    rng = random.Random(size)
    took_ms = []
    with Receiver() as receiver:
        environment = {"WEBHOOK_URL": receiver.url, "DUNETRACE_ALLOW_PRIVATE_DESTINATIONS": "true"}
        with Server(directory, env=environment) as server, httpx.Client(trust_env=False) as http:
            _open_runs(http, server, rng, size)
            _wait_judged(server)
            for number in range(200):
                script = Script(rng, f"looper-{number % AGENTS}", time.time())
                script.begin()
                same = script.digest()
                for _ in range(3):
                    script.tool("search", same)
                _send(http, server, script.events[:-2])
                time.sleep(rng.uniform(0.02, 0.2))
                seen = len(receiver.requests)
                began_at = time.time()
                _send(http, server, script.events[-2:-1])
                arrived = receiver.wait_for(seen + 1, 30.0)[seen]
                took_ms.append((arrived.arrived_at - began_at) * 1000)
            _prove(server)
    return f"{_percentiles(took_ms, 'ms')} of {len(took_ms)} loops, {size:,} other runs open"


def _open_runs(http: httpx.Client, server: Server, rng: random.Random, count: int) -> None:
    for first in range(0, count, 200):
        events: list[Event] = []
        for number in range(first, min(count, first + 200)):
            script = Script(rng, f"agent-{number % AGENTS}", time.time())
            script.begin()
            script.llm()
            script.tool("search")
            events += script.events
        _send(http, server, events)


def million(directory: Path, size: int) -> str:
    """What an event of one long run costs the poller in each tenth of it, and how much memory that takes."""
    rng = random.Random(size)
    script = Script(rng, "endless", time.time())
    script.begin()
    costs_us, memory = [], []
    with Server(directory) as server, httpx.Client(trust_env=False, timeout=60) as http:
        for _ in range(10):
            before = cpu_s(server.pid)
            for _ in range(max(1, size // 10 // ONE_PART)):
                while len(script.events) < ONE_PART:
                    script.llm()
                    script.tool(f"tool-{rng.randrange(30)}")
                _send(http, server, script.events)
                script.events.clear()
            _wait_judged(server)
            costs_us.append((cpu_s(server.pid) - before) / (size / 10) * 1e6)
            memory.append(memory_mib(server.pid))
        _prove(server)
    first, last = costs_us[1], statistics.median(costs_us[-3:])
    return (
        f"{first:.0f} µs an event in the second tenth, {last:.0f} at the end ({last / first:.2f} ×), of the whole "
        f"server; memory {memory[0]:.0f} MiB after a tenth, {memory[-1]:.0f} at the end"
    )


def _send(http: httpx.Client, server: Server, events: list[Event]) -> None:
    body = {"agent_id": events[0]["agent_id"], "events": events}
    while (answer := http.post(f"{server.ingest_url}/v1/ingest", json=body)).status_code == 503:
        time.sleep(LOOK_S)
    assert answer.status_code == 202, answer.text


def _prove(server: Server) -> None:
    found = [line for line in violations(server.database_url) if "fanned out" not in line]
    if found:
        raise SystemExit("\n".join(found))


ROWS: dict[str, tuple[Callable[[Path, int], str], int, str]] = {
    "finished": (finished, 30_000, "≥ 3,000 runs/s"),
    "drain": (drain, 50_000, "p99 ≤ 100 ms"),
    "end": (end, 200, "p99 ≤ 300 ms"),
    "third": (third, 5_000, "p99 ≤ 1 s"),
    "million": (million, 1_000_000, "constant, bounded"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description="How fast and how soon runs are judged.")
    parser.add_argument("--rows", default=",".join(ROWS), help="which, with commas between (%(default)s)")
    parser.add_argument("--size", type=int, help="runs (events, for `million`) instead of each row's own number")
    asked: Any = parser.parse_args()
    names = asked.rows.split(",")
    if unknown := set(names) - set(ROWS):
        parser.error(f"no such rows: {', '.join(sorted(unknown))}")
    print("| row | asked | seen |\n|---|---|---|", flush=True)
    for name in names:
        measure, size, wanted = ROWS[name]
        with tempfile.TemporaryDirectory(prefix="dunetrace-bench-") as directory:
            seen = measure(Path(directory), asked.size or size)
        print(f"| {name} | {wanted} | {seen} |", flush=True)


if __name__ == "__main__":
    main()
