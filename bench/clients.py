"""The load: clients of the ingest door that cost as little as they can, in a process of their own.

One thread, raw sockets, epoll. Bodies are serialised before the clock starts; while it runs, only the ids of their runs
are put in, so that each request holds runs nobody else sends. ``python -m bench.clients --help``; ends with one line of
JSON. Used by every bench here.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import selectors
import socket
import time
from abc import ABC, abstractmethod
from collections import Counter, deque
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from urllib.parse import urlsplit

from tests.harness.shapes import Event, run_events

TEMPLATES = 100  # bodies made before the clock starts
RECV_BYTES = 1 << 16
LAST_ANSWERS_S = 5.0  # how long those under way at the end are waited for
_ID = re.compile(rb"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_STATUS = re.compile(rb"HTTP/1\.1 (\d{3})")
_LENGTH = re.compile(rb"\r\ncontent-length: (\d+)", re.IGNORECASE)
_CLOSE = re.compile(rb"\r\nconnection: close", re.IGNORECASE)
_ACCEPTED = re.compile(rb'"accepted": ?(\d+)')


@dataclass
class Load:
    """What is sent. `rate` is requests a second (None: as fast as they are answered); `retry`: a 503 or 429 at once.

    `seed` decides the shapes of the runs; ids and keys are new in every process.
    """

    url: str
    connections: int = 16
    batch: int = 100
    seconds: float = 5.0
    rate: float | None = None
    retry: bool = False
    agents: int = 20
    key: str = ""
    seed: int = 0


@dataclass
class Result:
    """What came of it. Latencies are milliseconds; paced ones count from when a request was due.

    `unanswered` were sent, or due, and had no answer `LAST_ANSWERS_S` after the end; their wait so far is counted.
    """

    seconds: float
    requests: int
    accepted_events: int
    statuses: dict[str, int]
    errors: int
    p50_ms: float
    p99_ms: float
    max_ms: float
    client_cpu_s: float
    unanswered: int = 0

    @property
    def requests_per_s(self) -> float:
        """Those that were accepted."""
        return self.statuses.get("202", 0) / self.seconds

    @property
    def events_per_s(self) -> float:
        return self.accepted_events / self.seconds


class Requests(ABC):
    """Requests without end."""

    def __init__(self, load: Load) -> None:
        self._rng = random.Random(load.seed)
        self._fresh = random.Random()
        host = urlsplit(load.url).netloc
        key = f"Authorization: Bearer {load.key}\r\n" if load.key else ""
        self._head = (
            f"POST /v1/ingest HTTP/1.1\r\nHost: {host}\r\nAccept-Encoding: identity\r\n"
            "User-Agent: dunetrace-python/1.0.0\r\nX-Dunetrace-Agent: bench\r\nContent-Type: application/json\r\n"
            f"{key}Idempotency-Key: %032x\r\nContent-Length: %d\r\n\r\n"
        ).encode()

    @abstractmethod
    def body(self) -> bytes:
        """The next one's."""

    def request(self) -> bytes:
        """The next one."""
        body = self.body()
        return self._head % (self._fresh.getrandbits(128), len(body)) + body


class ManyRuns(Requests):
    """Each with runs of its own."""

    def __init__(self, load: Load) -> None:
        super().__init__(load)
        self._templates = [self._template(events) for events in self._batches(load)]
        self._number = 0

    def body(self) -> bytes:
        number = self._number
        self._number += 1
        texts, places, ids = self._templates[number % len(self._templates)]
        unique = self._fresh.getrandbits(80)
        runs = [b"%08x-%04x-4000-8000-%012x" % (unique >> 48, run, unique & 0xFFFFFFFFFFFF) for run in range(ids)]
        parts = [texts[0]]
        for place, text in zip(places, texts[1:], strict=True):
            parts += (runs[place], text)
        return b"".join(parts)

    def _batches(self, load: Load) -> Iterator[list[Event]]:
        waiting: list[Event] = []
        for _ in range(TEMPLATES):
            while len(waiting) < load.batch:
                agent = f"bench-{self._rng.randint(1, load.agents)}"
                waiting += run_events(self._rng, agent, time.time())
            yield waiting[: load.batch]
            waiting = waiting[load.batch :]

    @staticmethod
    def _template(events: list[Event]) -> tuple[list[bytes], list[int], int]:
        """The body's text between the run ids, which id stands where, and how many there are."""
        named = [{**event, "event_id": f"0123456789ab-{place}"} for place, event in enumerate(events)]
        body = json.dumps({"agent_id": "bench", "events": named}, separators=(",", ":")).encode()
        found = _ID.findall(body)
        ids = list(dict.fromkeys(found))
        return _ID.split(body), [ids.index(one) for one in found], len(ids)


@dataclass
class _Connection:
    sock: socket.socket
    request: bytes = b""
    since_s: float = 0.0
    answer: bytes = b""
    unsent: memoryview = field(default_factory=lambda: memoryview(b""))


class Clients:
    """`Load` in the making, of `requests`."""

    def __init__(self, load: Load, requests: Requests) -> None:
        self._load = load
        self._requests = requests
        self._selector = selectors.DefaultSelector()
        self._idle: deque[_Connection] = deque()
        self._statuses: Counter[str] = Counter()
        self._waits_s: list[float] = []
        self._accepted_events = 0
        self._errors = 0
        self._unanswered = 0
        self._until_s = 0.0

    def run(self) -> Result:
        """Send for as long as `seconds` says, then wait for the answers that are due."""
        load = self._load
        self._idle.extend(self._connect() for _ in range(load.connections))
        started, cpu_s = time.perf_counter(), time.process_time()
        self._until_s = started + load.seconds
        last_s = self._until_s + LAST_ANSWERS_S
        if load.rate is None:
            self._hurry()
        else:
            self._keep_pace(started, load.rate, last_s)
        while len(self._idle) < load.connections and time.perf_counter() < last_s:
            self._wait(0.1)
        seconds, cpu_s = time.perf_counter() - started, time.process_time() - cpu_s
        self._close()
        waits_ms = sorted(wait_s * 1000 for wait_s in self._waits_s) or [0.0]
        return Result(
            seconds=seconds,
            requests=sum(self._statuses.values()),
            accepted_events=self._accepted_events,
            statuses=dict(self._statuses),
            errors=self._errors,
            p50_ms=waits_ms[len(waits_ms) // 2],
            p99_ms=waits_ms[int(len(waits_ms) * 0.99)],
            max_ms=waits_ms[-1],
            client_cpu_s=cpu_s,
            unanswered=self._unanswered,
        )

    def _hurry(self) -> None:
        """The next request as soon as a connection is free."""
        while (now := time.perf_counter()) < self._until_s:
            while self._idle:
                self._begin(self._idle.popleft(), now)
            self._wait(self._until_s - now)

    def _keep_pace(self, started_s: float, rate: float, last_s: float) -> None:
        """A request whenever one is due; those that found no connection free go late, also after the end."""
        at = [started_s + number / rate for number in range(round(rate * self._load.seconds))]
        due = 0
        while due < len(at) and (now := time.perf_counter()) < last_s:
            while self._idle and due < len(at) and at[due] <= now:
                self._begin(self._idle.popleft(), at[due])
                due += 1
            if due < len(at):
                self._wait(max(0.0, at[due] - time.perf_counter()) if self._idle else 0.1)
        self._give_up(at[due:])

    def _give_up(self, since_s: list[float]) -> None:
        now = time.perf_counter()
        self._unanswered += len(since_s)
        self._waits_s += [now - since for since in since_s]

    def _close(self) -> None:
        idle = {id(connection) for connection in self._idle}
        connections = [key.data for key in self._selector.get_map().values()]
        self._give_up([connection.since_s for connection in connections if id(connection) not in idle])
        for connection in connections:
            connection.sock.close()
        self._selector.close()

    def _connect(self) -> _Connection:
        parts = urlsplit(self._load.url)
        sock = socket.create_connection((parts.hostname, parts.port), timeout=10)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setblocking(False)
        connection = _Connection(sock)
        self._selector.register(sock, selectors.EVENT_READ, connection)
        return connection

    def _begin(self, connection: _Connection, since_s: float, request: bytes | None = None) -> None:
        connection.request = request or self._requests.request()
        connection.since_s, connection.answer = since_s, b""
        connection.unsent = memoryview(connection.request)
        self._send(connection)

    def _send(self, connection: _Connection) -> None:
        try:
            sent = connection.sock.send(connection.unsent)
        except BlockingIOError:
            sent = 0
        except OSError:
            self._lost(connection)
            return
        connection.unsent = connection.unsent[sent:]
        events = selectors.EVENT_READ | (selectors.EVENT_WRITE if connection.unsent else 0)
        if self._selector.get_key(connection.sock).events != events:
            self._selector.modify(connection.sock, events, connection)

    def _wait(self, timeout_s: float) -> None:
        for key, events in self._selector.select(timeout_s):
            if events & selectors.EVENT_WRITE:
                self._send(key.data)
            else:
                self._receive(key.data)

    def _receive(self, connection: _Connection) -> None:
        try:
            data = connection.sock.recv(RECV_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._lost(connection)
            return
        connection.answer += data
        head, found, body = connection.answer.partition(b"\r\n\r\n")
        if not found:
            return
        length, status = _LENGTH.search(head), _STATUS.match(head)
        if length is None or status is None or len(body) > int(length[1]):
            self._lost(connection)
        elif len(body) == int(length[1]):
            self._answered(connection, head, status[1].decode(), body)

    def _answered(self, connection: _Connection, head: bytes, status: str, body: bytes) -> None:
        self._statuses[status] += 1
        since_s, request, now = connection.since_s, connection.request, time.perf_counter()
        if connection.unsent or _CLOSE.search(head):  # what is left of the body would be read as the next request
            connection = self._replaced(connection)
        if status in ("503", "429") and self._load.retry and now < self._until_s:
            self._begin(connection, since_s, request)
            return
        if status == "202" and (accepted := _ACCEPTED.search(body)):
            self._accepted_events += int(accepted[1])
        self._waits_s.append(now - since_s)
        self._idle.append(connection)

    def _lost(self, connection: _Connection) -> None:
        """No answer, or none that is HTTP."""
        self._errors += 1
        fresh = self._replaced(connection)
        if self._load.retry and time.perf_counter() < self._until_s:
            self._begin(fresh, connection.since_s, connection.request)
        else:
            self._idle.append(fresh)

    def _replaced(self, connection: _Connection) -> _Connection:
        self._selector.unregister(connection.sock)
        connection.sock.close()
        return self._connect()


def send(make: Callable[[Load], Requests]) -> None:
    """The whole of a command that sends: reads what is asked for, sends, prints the line."""
    parser = argparse.ArgumentParser(description="Clients that post events as fast as they are answered, or at a rate.")
    parser.add_argument("--url", required=True)
    parser.add_argument("--connections", type=int, default=16)
    parser.add_argument("--batch", type=int, default=100, help="events a request (%(default)s)")
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--rate", type=float, help="requests a second; left out: as fast as they are answered")
    parser.add_argument("--retry", action="store_true", help="send a refused request again at once")
    parser.add_argument("--agents", type=int, default=20)
    parser.add_argument("--key", default="")
    parser.add_argument("--seed", type=int, default=0)
    load = Load(**vars(parser.parse_args()))
    print(json.dumps(asdict(Clients(load, make(load)).run())))


if __name__ == "__main__":
    send(ManyRuns)
