"""A real HTTP server in a thread: it takes what the SDK sends and answers as a test tells it."""

from __future__ import annotations

import json
import socket
import ssl
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple


class Request(NamedTuple):
    path: str
    headers: dict[str, str]
    body: bytes
    status: int

    def json(self) -> Any:
        return json.loads(self.body)


class Answer(NamedTuple):
    status: int = 202
    headers: dict[str, str] = {}  # noqa: RUF012
    body: dict[str, Any] | None = None
    between: Callable[[], object] = lambda: None  # called after the head, before the body


RESET = Answer(-1)  # instead of an answer
CUT = Answer(202)  # taken, and reset before the body


class Sink(ThreadingHTTPServer):
    """`answer(request so far)` decides; `accepted` is the events of every request answered 2xx."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, port: int = 0, host: str = "127.0.0.1", context: ssl.SSLContext | None = None) -> None:
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        super().__init__((host, port), _Handler)
        if context is not None:
            self.socket = context.wrap_socket(self.socket, server_side=True)
        self.answer: Callable[[str, bytes], Answer] = lambda path, body: Answer()
        self.requests: list[Request] = []
        self.connections: list[socket.socket] = []
        self.arrived = threading.Condition()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def process_request(self, request: Any, client_address: Any) -> None:
        self.connections.append(request)
        super().process_request(request, client_address)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that goes away is no news."""

    def take(self, request: Request) -> None:
        with self.arrived:
            self.requests.append(request)
            self.arrived.notify_all()

    def batches(self) -> list[Request]:
        return [r for r in self.requests if r.path == "/v1/ingest" and 200 <= r.status < 300]

    @property
    def stored(self) -> list[dict[str, Any]]:
        """The events of what was accepted, a batch that was sent again counted once, as the server does."""
        unique = {(batch.headers["idempotency-key"], batch.body): batch for batch in self.batches()}
        return [event for batch in unique.values() for event in batch.json()["events"]]

    @property
    def reported_lost(self) -> int:
        """What senders said they lost, counted in the same way."""
        unique = {(batch.headers["idempotency-key"], batch.body): batch for batch in self.batches()}
        return sum(batch.json().get("dropped_events", 0) for batch in unique.values())

    @property
    def accepted(self) -> list[dict[str, Any]]:
        return [event for batch in self.batches() for event in batch.json()["events"]]

    def wait_for(self, condition: Callable[[], bool], timeout_s: float = 10.0) -> bool:
        with self.arrived:
            return self.arrived.wait_for(condition, timeout_s)

    def stop(self) -> None:
        self.shutdown()
        self.server_close()
        for connection in self.connections:
            connection.close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Sink

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        answer = self.server.answer(self.path, body)
        request = Request(self.path, {k.lower(): v for k, v in self.headers.items()}, body, answer.status)
        self.server.take(request)
        if answer is RESET:
            self._reset()
            return
        reply = json.dumps({"accepted": 0} if answer.body is None else answer.body).encode()
        self.send_response(answer.status)
        for name, value in {
            "Content-Length": str(len(reply)),
            "Content-Type": "application/json",
            **answer.headers,
        }.items():
            self.send_header(name, value)
        self.end_headers()
        answer.between()
        if answer is CUT:
            self._reset()
        else:
            self.wfile.write(reply)

    def _reset(self) -> None:
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()
        self.close_connection = True

    def log_message(self, format: str, *args: Any) -> None:
        """Quiet."""


@contextmanager
def running_sink(port: int = 0, *, host: str = "127.0.0.1", context: ssl.SSLContext | None = None) -> Iterator[Sink]:
    sink = Sink(port, host, context)
    thread = threading.Thread(target=sink.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield sink
    finally:
        sink.stop()
        thread.join()
