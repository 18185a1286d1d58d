"""``python -m bench`` (`make bench`): how much one server on this machine takes, client and server sharing its cores.

Each row is a few seconds of clients that post batches of one size as fast as they are answered, into a server with a
Postgres of its own; then how long the server takes to judge what is left. Ends with the invariants checker.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import tempfile
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import trio

from tests.harness.invariants import settle, violations
from tests.harness.server import Server
from tests.harness.shapes import Event, run_events

BATCHES = (1, 10, 100)  # events a request
CLIENTS = 16
HEADERS = {"Content-Type": "application/json"}


@dataclass
class Tally:
    """What one size of batch came to. `waits_s` holds the time of each request."""

    batch: int
    events: int = 0
    refused: int = 0
    waits_s: list[float] = field(default_factory=list)

    def row(self, seconds: float, behind_s: float) -> str:
        median, last = statistics.median(self.waits_s), statistics.quantiles(self.waits_s, n=100)[98]
        return (
            f"{self.batch:>6}{len(self.waits_s) / seconds:>12.0f}{self.events / seconds:>12.0f}"
            f"{median * 1000:>10.1f}{last * 1000:>10.1f}{self.refused:>9}{behind_s:>11.1f}"
        )


async def measure(server: Server, batch: int, seconds: float) -> str:
    """One row of the table."""
    tally = Tally(batch)
    started = trio.current_time()
    async with httpx.AsyncClient(base_url=server.ingest_url, trust_env=False, timeout=30) as http:
        with trio.move_on_after(seconds):
            async with trio.open_nursery() as nursery:
                for number in range(CLIENTS):
                    nursery.start_soon(_client, http, tally, random.Random(number))
    took_s = trio.current_time() - started
    stopped = trio.current_time()
    await settle(server.database_url, timeout_s=300)
    return tally.row(took_s, trio.current_time() - stopped)


async def _client(http: httpx.AsyncClient, tally: Tally, rng: random.Random) -> None:
    for events in _batches(rng, tally.batch):
        body = json.dumps({"agent_id": "bench", "events": events}).encode()
        started = trio.current_time()
        answer = await http.post("/v1/ingest", content=body, headers={**HEADERS, "Idempotency-Key": str(uuid.uuid4())})
        tally.waits_s.append(trio.current_time() - started)
        if answer.status_code == 202:
            tally.events += len(events)
        else:
            tally.refused += 1


def _batches(rng: random.Random, size: int) -> Iterator[list[Event]]:
    """Without end: runs of every shape, cut into batches."""
    waiting: list[Event] = []
    while True:
        while len(waiting) < size:
            waiting += run_events(rng, f"bench-{rng.randint(1, 20)}", time.time() - 1)
        yield waiting[:size]
        waiting = waiting[size:]


def main() -> None:
    parser = argparse.ArgumentParser(description="How much one server on this machine takes.")
    parser.add_argument("--seconds", type=float, default=5.0, help="for each size of batch (%(default)s)")
    seconds = parser.parse_args().seconds
    print(f"{CLIENTS} clients, {seconds:g} s each\n")
    head = ("batch", "requests/s", "events/s", "p50 ms", "p99 ms", "refused", "judged +s")
    print("".join(f"{word:>{width}}" for word, width in zip(head, (6, 12, 12, 10, 10, 9, 11), strict=True)))
    with (
        tempfile.TemporaryDirectory(prefix="dunetrace-bench-") as directory,
        Server(Path(directory), env={"DUNETRACE_RATE_LIMIT_RPM": "0", "DUNETRACE_STALL_TIMEOUT": "86400"}) as server,
    ):
        for batch in BATCHES:
            print(trio.run(measure, server, batch, seconds))
        found = violations(server.database_url)
    if found:
        raise SystemExit("\n".join(found))


if __name__ == "__main__":
    main()
