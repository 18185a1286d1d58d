"""A receiver of alerts that can misbehave: a real HTTP server on a port of its own, whose manners change as it runs.

    with Receiver() as receiver:
        receiver.mode = Mode.OK              # from now on
        receiver.script(Mode.ERROR, Mode.OK) # the next two requests, then `mode` again
        receiver.choose = lambda body: Mode.ERROR if b"poison" in body else None  # None: as above
        received = receiver.wait_for(1)      # blocks; from trio: await trio.to_thread.run_sync(receiver.wait_for, 1)

`Receiver(slack=True)` plays Slack: it answers in plain words, and `invalid_payload` to what Slack would not take.
`Receiver(pagerduty=True)` plays PagerDuty's Events API: 202 to an event, 400 to what it would not take.
Every request is recorded with its arrival time before it is answered, however badly that answer goes.
"""

from __future__ import annotations

import json
import secrets
import socket
import ssl
import struct
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self, cast

from tests import pagerduty, slack


class Mode(StrEnum):
    """How a request is answered."""

    OK = "ok"  # 200
    SLOW = "slow"  # 200 after `slow_s`
    HANG = "hang"  # never, until the receiver closes
    TRICKLE = "trickle"  # a byte of the header now and then, so that no single read takes long
    RESET = "reset"  # the connection is reset
    GARBAGE = "garbage"  # not HTTP
    RATE_LIMITED = "rate limited"  # 429 with Retry-After: `retry_after`
    UNAVAILABLE = "unavailable"  # 503 with Retry-After: `retry_after`
    ERROR = "error"  # 500
    BAD_REQUEST = "bad request"  # 400
    FORBIDDEN = "forbidden"  # 403
    NOT_FOUND = "not found"  # 404
    GONE = "gone"  # 410
    TIMEOUT = "timeout"  # 408
    REDIRECT = "redirect"  # 302 to `redirect_to`
    HUGE_BODY = "huge body"  # 200 with a body that does not end
    STUCK_BODY = "stuck body"  # 200 with half of its body
    BROKEN_BODY = "broken body"  # 200 with a body that breaks HTTP's rules
    CUT = "cut"  # half of the status line, and the connection ends


_STATUS = {
    Mode.OK: 200,
    Mode.SLOW: 200,
    Mode.RATE_LIMITED: 429,
    Mode.UNAVAILABLE: 503,
    Mode.ERROR: 500,
    Mode.BAD_REQUEST: 400,
    Mode.FORBIDDEN: 403,
    Mode.NOT_FOUND: 404,
    Mode.GONE: 410,
    Mode.TIMEOUT: 408,
    Mode.REDIRECT: 302,
}


@dataclass(frozen=True)
class Service:
    """A service a receiver plays: what it takes (`accept` raises AssertionError), its status for that, its words."""

    accept: Callable[[bytes], object]
    ok: int
    words: Mapping[Mode, bytes]


_PLAIN = Service(lambda _body: None, 200, dict.fromkeys(Mode, b'{"received":true}'))
_SLACK = Service(
    slack.accept,
    200,
    {
        Mode.BAD_REQUEST: b"invalid_payload",
        Mode.FORBIDDEN: b"action_prohibited",
        Mode.NOT_FOUND: b"no_service",
        Mode.GONE: b"channel_is_archived",
        Mode.RATE_LIMITED: b"rate_limited",
        Mode.ERROR: b"rollup_error",
    },
)
_PAGERDUTY = Service(
    pagerduty.accept,
    202,
    {
        Mode.OK: b'{"status":"success","message":"Event processed","dedup_key":"key"}',
        Mode.BAD_REQUEST: b'{"status":"invalid event","message":"Event object is invalid","errors":["Length of ..."]}',
    },
)


@dataclass(frozen=True, slots=True)
class Received:
    """One request. `arrived_at` is Unix seconds, `monotonic` for measuring; header names are lower case."""

    path: str
    headers: dict[str, str]
    body: bytes
    arrived_at: float
    monotonic: float
    mode: Mode

    @property
    def document(self) -> dict[str, Any]:
        """The JSON body."""
        return cast("dict[str, Any]", json.loads(self.body))


class Receiver:
    """See the module. `tls` makes it an HTTPS server."""

    def __init__(self, *, tls: ssl.SSLContext | None = None, slack: bool = False, pagerduty: bool = False) -> None:
        self.mode = Mode.OK
        self.service = _SLACK if slack else _PAGERDUTY if pagerduty else _PLAIN
        self.choose: Callable[[bytes], Mode | None] = lambda _body: None
        # Not guessable: a stray client of another test, whose port this one got, is answered 404 and not recorded.
        self.path = f"/hook-{secrets.token_hex(8)}"
        self.slow_s = 0.5
        self.retry_after = "1"
        self.redirect_to = "/elsewhere"
        self.stopping = threading.Event()
        self._script: deque[Mode] = deque()
        self._received: list[Received] = []
        self._changed = threading.Condition()
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.receiver = self
        if tls is not None:
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True)
        self._scheme = "http" if tls is None else "https"
        self._thread = self._serving()

    def _serving(self) -> threading.Thread:
        return threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})

    @property
    def port(self) -> int:
        return int(self._server.server_address[1])

    @property
    def url(self) -> str:
        return f"{self._scheme}://127.0.0.1:{self.port}{self.path}"

    @property
    def requests(self) -> list[Received]:
        """What arrived so far, in order of arrival."""
        with self._changed:
            return list(self._received)

    def script(self, *modes: Mode) -> None:
        """The manners of the next requests, one each."""
        with self._changed:
            self._script.extend(modes)

    def wait_for(self, count: int, timeout_s: float = 10.0) -> list[Received]:
        """The requests, once at least `count` have arrived; TimeoutError when they do not."""
        with self._changed:
            if not self._changed.wait_for(lambda: len(self._received) >= count, timeout_s):
                raise TimeoutError(f"{len(self._received)} of {count} requests arrived within {timeout_s} s")
            return list(self._received)

    def record(self, path: str, headers: dict[str, str], body: bytes) -> Mode:
        """Called by the handler: keeps a request and says how to answer it."""
        with self._changed:
            mode = self.choose(body) or (self._script.popleft() if self._script else self.mode)
            if mode in {Mode.OK, Mode.SLOW} and not self._takes(body):
                mode = Mode.BAD_REQUEST
            self._received.append(Received(path, headers, body, time.time(), time.monotonic(), mode))
            self._changed.notify_all()
        return mode

    def _takes(self, body: bytes) -> bool:
        try:
            self.service.accept(body)
        except AssertionError:
            return False
        return True

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @contextmanager
    def refusing(self) -> Iterator[None]:
        """For the length of the block nobody listens at the port: open connections are cut, new ones refused."""
        self._server.shutdown()
        self._thread.join()
        self._server.socket.close()
        self._server.cut_connections()
        with socket.socket() as placeholder:  # bound and not listening: nobody else gets the port meanwhile
            placeholder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            placeholder.bind(self._server.server_address)
            try:
                yield
            finally:
                placeholder.listen(self._server.request_queue_size)
                self._server.socket = placeholder.dup()
                self._thread = self._serving()
                self._thread.start()

    def close(self) -> None:
        """Stop answering: open connections are cut, new ones refused."""
        if not self.stopping.is_set():
            self.stopping.set()
            self._server.shutdown()
            self._server.cut_connections()
            self._server.server_close()
            self._thread.join()


class _Server(ThreadingHTTPServer):
    daemon_threads = False
    request_queue_size = 128
    receiver: Receiver

    def __init__(self, *args: Any) -> None:
        self._connections: set[socket.socket] = set()
        self._lock = threading.Lock()
        super().__init__(*args)

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._lock:
            self._connections.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        with self._lock:
            self._connections.discard(request)
        super().shutdown_request(request)

    def cut_connections(self) -> None:
        with self._lock:
            for connection in self._connections:
                try:
                    connection.shutdown(socket.SHUT_RDWR)
                except OSError:
                    continue

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hangs up is a part of the test, not news for the console."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # or the body of each answer waits 40 ms for an acknowledgement of its head

    def do_POST(self) -> None:
        receiver = cast("_Server", self.server).receiver
        length = int(self.headers.get("Content-Length", "0"))
        body = self.rfile.read(length)
        if len(body) < length:  # the sender was cut off in the middle of it: nothing arrived
            self.close_connection = True
            return
        if not self.path.startswith((receiver.path, receiver.redirect_to)):
            self.send_error(404)
            return
        mode = receiver.record(self.path, {name.lower(): value for name, value in self.headers.items()}, body)
        if mode is Mode.SLOW:
            receiver.stopping.wait(receiver.slow_s)
        if mode in _STATUS:
            self._answer(mode, receiver)
        else:
            self.close_connection = True
            _MISBEHAVE[mode](self, receiver)

    def do_GET(self) -> None:
        self.do_POST()

    def _answer(self, mode: Mode, receiver: Receiver) -> None:
        body = receiver.service.words.get(mode, b"ok")
        self.send_response(receiver.service.ok if _STATUS[mode] == 200 else _STATUS[mode])
        if mode in {Mode.RATE_LIMITED, Mode.UNAVAILABLE}:
            self.send_header("Retry-After", receiver.retry_after)
        if mode is Mode.REDIRECT:
            self.send_header("Location", receiver.redirect_to)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _hang(self, receiver: Receiver) -> None:
        receiver.stopping.wait()

    def _trickle(self, receiver: Receiver) -> None:
        self.wfile.write(b"HTTP/1.1 200 OK\r\nX-Slow: ")
        while not receiver.stopping.wait(0.1):
            self.wfile.write(b"x")

    def _reset(self, _receiver: Receiver) -> None:
        # Lingering for 0 seconds makes close() send RST instead of FIN.
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()

    def _garbage(self, _receiver: Receiver) -> None:
        self.wfile.write(b"220 mail.example.org ESMTP\r\n")

    def _huge_body(self, receiver: Receiver) -> None:
        self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\n")
        while not receiver.stopping.is_set():
            self.wfile.write(b"x" * 65536)

    def _stuck_body(self, receiver: Receiver) -> None:
        self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")
        receiver.stopping.wait()

    def _broken_body(self, _receiver: Receiver) -> None:
        self.wfile.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nno length of a chunk\r\n")

    def _cut(self, _receiver: Receiver) -> None:
        self.wfile.write(b"HTTP/1.1 2")

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing on the console."""


_MISBEHAVE = {
    Mode.HANG: _Handler._hang,
    Mode.TRICKLE: _Handler._trickle,
    Mode.RESET: _Handler._reset,
    Mode.GARBAGE: _Handler._garbage,
    Mode.HUGE_BODY: _Handler._huge_body,
    Mode.STUCK_BODY: _Handler._stuck_body,
    Mode.BROKEN_BODY: _Handler._broken_body,
    Mode.CUT: _Handler._cut,
}
