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


@dataclass
class Load:
    """What is sent. `rate` is requests a second (None: as fast as they are answered); `retry`: a 503 or 429 at once."""

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
    """What came of it. Latencies are milliseconds; paced ones count from when a request was due."""

    seconds: float
    requests: int
    accepted_events: int
    statuses: dict[str, int]
    errors: int
    p50_ms: float
    p99_ms: float
    max_ms: float
    client_cpu_s: float

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
        host = urlsplit(load.url).netloc
        key = f"Authorization: Bearer {load.key}\r\n" if load.key else ""
        self._head = (
            f"POST /v1/ingest HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n{key}"
            "Idempotency-Key: %032x\r\nContent-Length: %d\r\n\r\n"
        ).encode()

    @abstractmethod
    def body(self) -> bytes:
        """The next one's."""

    def request(self) -> bytes:
        """The next one."""
        body = self.body()
        return self._head % (self._rng.getrandbits(128), len(body)) + body


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
        unique = self._rng.getrandbits(80)
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
        body = json.dumps({"agent_id": "bench", "events": events}).encode()
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
        self._errors = 0
        self._until_s = 0.0

    def run(self) -> Result:
        """Send for as long as `seconds` says, then wait for the answers that are due."""
        load = self._load
        self._idle.extend(self._connect() for _ in range(load.connections))
        started, cpu_s = time.perf_counter(), time.process_time()
        until = self._until_s = started + load.seconds
        due = 0
        while (now := time.perf_counter()) < until:
            if load.rate is None:
                while self._idle:
                    self._begin(self._idle.popleft(), now)
                self._wait(until - now)
            else:
                while self._idle and (at := started + due / load.rate) <= now:
                    self._begin(self._idle.popleft(), at)
                    due += 1
                self._wait(max(0.0, started + due / load.rate - time.perf_counter()) if self._idle else 1.0)
        while len(self._idle) < load.connections and time.perf_counter() < until + LAST_ANSWERS_S:
            self._wait(0.1)
        seconds = time.perf_counter() - started
        waits_ms = sorted(wait_s * 1000 for wait_s in self._waits_s) or [0.0]
        return Result(
            seconds=seconds,
            requests=sum(self._statuses.values()),
            accepted_events=self._statuses["202"] * load.batch,
            statuses=dict(self._statuses),
            errors=self._errors,
            p50_ms=waits_ms[len(waits_ms) // 2],
            p99_ms=waits_ms[int(len(waits_ms) * 0.99)],
            max_ms=waits_ms[-1],
            client_cpu_s=time.process_time() - cpu_s,
        )

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
        length = _LENGTH.search(head)
        if length is None or len(body) < int(length[1]):
            return
        status = _STATUS.match(head)
        code = status[1].decode() if status else "?"
        self._statuses[code] += 1
        now = time.perf_counter()
        if code in ("503", "429") and self._load.retry and now < self._until_s:
            self._begin(connection, connection.since_s, connection.request)
            return
        self._waits_s.append(now - connection.since_s)
        self._idle.append(connection)

    def _lost(self, connection: _Connection) -> None:
        self._errors += 1
        self._selector.unregister(connection.sock)
        connection.sock.close()
        self._idle.append(self._connect())


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
