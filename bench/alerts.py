"""``python -m bench.alerts``: how fast alerts arrive under load, with one receiver away for a while and one that hangs.

The server is one process, its receivers are another; this one offers runs that loop, each of which is one signal, at
an even pace. What arrived when is told by the receivers, counted from the `detected_at` within each alert. With
``--kills`` the server is killed again and again on the way. Ends with the invariants.
"""

from __future__ import annotations

import argparse
import http.client
import json
import math
import multiprocessing
import random
import statistics
import tempfile
import threading
import time
import uuid
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from bench.processes import cpu_s, memory_mib
from tests.harness.invariants import rows, violations
from tests.harness.server import Server
from tests.harness.shapes import Event, Script, looping
from tests.receiver import Mode, Receiver

HEALTHY, RETURNING, HANGING = NAMES = ("healthy", "returning", "hanging")
AGENTS = 20
LOOK_S = 0.2
DRAIN_LIMIT_S = 400.0  # for what is left at the end: a lease, a probe a minute later, and the rest
_DUE = f"""
SELECT (SELECT count(*) FROM deliveries WHERE state = 'pending' AND destination <> '{HANGING}')
     + (SELECT count(*) FROM failure_signals WHERE fanned_out_at IS NULL AND NOT shadow)
     + (SELECT count(*) FROM run_touches)
     + (SELECT count(*) FROM destinations WHERE name = '{HANGING}' AND circuit_open_since IS NULL)
"""
_FOUND = "SELECT run_id, failure_type FROM failure_signals WHERE NOT shadow"


class Arrival(NamedTuple):
    """One alert at one receiver. Times are Unix seconds."""

    delivery_id: str
    run_id: str
    failure_type: str
    detected_at: float
    arrived_at: float


@dataclass
class Figures:
    """What was seen. `found` are the signals that are stored; `memory_mib` is the server's once a second."""

    signals: int
    arrivals: dict[str, list[Arrival]] = field(default_factory=dict)
    found: set[tuple[str, str]] = field(default_factory=set)
    memory_mib: list[float] = field(default_factory=list)
    cpu_share: float = 0.0  # of a core, by the server
    offered_s: float = 0.0
    drained_s: float = 0.0  # from the last run to the last delivery
    kills: int = 0
    violations: list[str] = field(default_factory=list)

    def told(self, name: str) -> set[tuple[str, str]]:
        """The signals that arrived at `name`."""
        return {(arrival.run_id, arrival.failure_type) for arrival in self.arrivals[name]}

    def ids(self, name: str) -> int:
        return len({arrival.delivery_id for arrival in self.arrivals[name]})

    def lag_s(self, name: str) -> list[float]:
        """From detection to the first arrival of each alert, shortest first."""
        first: dict[str, float] = {}
        for arrival in self.arrivals[name]:
            lag_s = arrival.arrived_at - arrival.detected_at
            first[arrival.delivery_id] = min(lag_s, first.get(arrival.delivery_id, lag_s))
        return sorted(first.values())

    def lag_at(self, name: str, share: float) -> float:
        lags_s = self.lag_s(name)
        return lags_s[min(len(lags_s) - 1, int(len(lags_s) * share))] if lags_s else math.inf


# -- the receivers' process


def _receive(pipe: Connection) -> None:
    """Until told to report; `RETURNING` refuses until told that it is back."""
    with ExitStack() as stack:
        receivers = {name: stack.enter_context(Receiver()) for name in NAMES}
        receivers[HANGING].mode = Mode.HANG
        with receivers[RETURNING].refusing():
            pipe.send({name: receiver.url for name, receiver in receivers.items()})
            pipe.recv()
        pipe.recv()
        pipe.send({name: [_arrival(r.document, r.arrived_at) for r in receivers[name].requests] for name in NAMES})


def _arrival(document: dict[str, Any], arrived_at: float) -> Arrival:
    return Arrival(
        document["delivery_id"], document["run_id"], document["failure_type"], document["detected_at"], arrived_at
    )


class Receivers:
    """The three, as a process of their own, which dies with the block."""

    def __init__(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_receive, args=(theirs,), daemon=True)
        self._process.start()
        self.urls: dict[str, str] = self._pipe.recv()

    def let_return(self) -> None:
        self._pipe.send("back")

    def report(self) -> dict[str, list[Arrival]]:
        self._pipe.send("report")
        found: dict[str, list[Arrival]] = self._pipe.recv()
        self._process.join()
        return found


# -- the sender


class Sender:
    """Offers runs when they are due; what is refused, or cut off, is sent again until it is taken."""

    def __init__(self, ingest_url: str, rng: random.Random) -> None:
        self._address = urlsplit(ingest_url)
        self._rng = rng
        self._connection: http.client.HTTPConnection | None = None

    def offer(self, runs: int, rate: float) -> None:
        """All that are due share a request: after a pause they come at once, as from clients that kept them."""
        started, sent = time.monotonic(), 0
        while sent < runs:
            time.sleep(max(0.0, started + sent / rate - time.monotonic()))
            due = min(runs, int((time.monotonic() - started) * rate) + 1)
            self._send_until_taken(self._body(sent, due))
            sent = due
        self._close()

    def _body(self, first: int, end: int) -> bytes:
        events: list[Event] = []
        for number in range(first, end):
            script = Script(self._rng, f"agent-{number % AGENTS}", time.time())
            looping(script)
            events += script.events
        return json.dumps({"agent_id": "bench", "events": events}).encode()

    def _send_until_taken(self, body: bytes) -> None:
        headers = {"Content-Type": "application/json", "Idempotency-Key": str(uuid.uuid4())}
        while not self._is_taken(body, headers):
            time.sleep(LOOK_S)

    def _is_taken(self, body: bytes, headers: dict[str, str]) -> bool:
        if self._connection is None:
            host, port = self._address.hostname, self._address.port
            self._connection = http.client.HTTPConnection(str(host), port, timeout=10)
        try:
            self._connection.request("POST", "/v1/ingest", body, headers)
            answer = self._connection.getresponse()
            answer.read()
        except (OSError, http.client.HTTPException):
            self._close()
            return False
        return answer.status == 202

    def _close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


# -- the course of things


def measure(directory: Path, *, signals: int, rate: float, away_s: float, kills: int = 0, seed: int = 0) -> Figures:
    """Offer `signals` at `rate` a second to a server in `directory`. After `away_s` a receiver is back."""
    receivers = Receivers()
    _write_config(directory / "alerts.yml", receivers.urls)
    figures = Figures(signals)
    over = threading.Event()
    with Server(directory, env={"DUNETRACE_ALLOW_PRIVATE_DESTINATIONS": "true"}) as server:
        began_at = time.monotonic()
        helpers = [
            threading.Thread(target=_watch, args=(server, figures, over)),
            threading.Thread(target=_after, args=(away_s, over, receivers.let_return)),
            threading.Thread(target=_kill, args=(server, figures, kills, signals / rate, over)),
        ]
        for helper in helpers:
            helper.start()
        Sender(server.ingest_url, random.Random(seed)).offer(signals, rate)
        figures.offered_s = time.monotonic() - began_at
        _drain(server)
        figures.drained_s = time.monotonic() - began_at - figures.offered_s
        figures.cpu_share = cpu_s(server.pid) / (figures.offered_s + figures.drained_s)
        over.set()
        for helper in helpers:
            helper.join()
        figures.arrivals = receivers.report()
        figures.found = {(row["run_id"], row["failure_type"]) for row in rows(server.database_url, _FOUND)}
        figures.violations = violations(server.database_url)
    return figures


def _write_config(path: Path, urls: dict[str, str]) -> None:
    path.write_text(
        json.dumps({"destinations": [{"name": name, "kind": "webhook", "url": url} for name, url in urls.items()]})
    )


def _watch(server: Server, figures: Figures, over: threading.Event) -> None:
    while not over.wait(1.0):
        figures.memory_mib.append(memory_mib(server.pid))


def _after(seconds: float, over: threading.Event, then: Callable[[], None]) -> None:
    over.wait(seconds)
    then()


def _kill(server: Server, figures: Figures, kills: int, within_s: float, over: threading.Event) -> None:
    for _ in range(kills):
        if over.wait(within_s / (kills + 1)):
            return
        server.kill()
        server.start()
        figures.kills += 1


def _drain(server: Server) -> None:
    deadline = time.monotonic() + DRAIN_LIMIT_S
    while rows(server.database_url, _DUE)[0][0]:
        if time.monotonic() > deadline:
            raise TimeoutError(f"deliveries are left after {DRAIN_LIMIT_S:.0f} s")
        time.sleep(LOOK_S)


def show(figures: Figures) -> None:
    """The figures, a line each."""
    print(
        f"{figures.signals:,} runs offered in {figures.offered_s:.0f} s, {figures.kills} kills; "
        f"all told {figures.drained_s:.1f} s after the last"
    )
    for name in NAMES:
        repeats = len(figures.arrivals[name]) - figures.ids(name)
        print(f"{name:<10}{len(figures.told(name)):>7,} of {len(figures.found):,} signals came, {repeats} came again")
    shares = {"p50": 0.5, "p99": 0.99, "longest": 1.0}
    lags = ", ".join(f"{words} {figures.lag_at(HEALTHY, share):.3f} s" for words, share in shares.items())
    print(f"{HEALTHY}: from the signal to its arrival {lags}")
    memory = tenths(figures.memory_mib)
    print(f"server: {figures.cpu_share * 100:.0f} % of a core, memory each tenth of the time {memory} MiB")


def tenths(values: list[float]) -> list[int]:
    """Medians of ten equal parts."""
    size = max(1, len(values) // 10)
    return [round(statistics.median(values[at : at + size])) for at in range(0, len(values) - size + 1, size)]


def main() -> None:
    parser = argparse.ArgumentParser(description="How fast alerts arrive under load, whatever some receivers do.")
    parser.add_argument("--signals", type=int, default=10_000, help="(%(default)s)")
    parser.add_argument("--rate", type=float, default=100.0, help="a second (%(default)s)")
    parser.add_argument("--away", type=float, default=60.0, help="seconds one receiver is away (%(default)s)")
    parser.add_argument("--kills", type=int, default=0, help="kill -9 of the server on the way (%(default)s)")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="dunetrace-bench-") as directory:
        figures = measure(Path(directory), signals=asked.signals, rate=asked.rate, away_s=asked.away, kills=asked.kills)
    show(figures)
    if figures.violations:
        raise SystemExit("\n".join(figures.violations))


if __name__ == "__main__":
    main()
