"""One client's connection: its requests are read, answered and, at the end, closed in good order.

`engine.py` accepts it and gives it a task. The way of a small request is kept bare on purpose: one wait for the socket,
one recv, one send, no nursery and no timeout of trio's. Instead `deadline_s` says until when the client may keep us
waiting, and the engine's sweeper, once a second, ends the connections it has passed for.
"""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

import trio
from trio.lowlevel import checkpoint, wait_readable, wait_writable

from dunetrace.serving.answers import Answer, overloaded
from dunetrace.serving.http1 import Head, Parser, ProtocolError
from dunetrace.serving.requests import DisconnectedError, Request
from dunetrace.telemetry import kind, log, where

RECV_BYTES: Final = 64 << 10  # a batch of a hundred events in one call, and little enough to hold for each connection
SMALL_REST_BYTES: Final = 64 << 10  # of a body nobody wants: read it to keep the connection
LINGER_BYTES: Final = 64 << 20  # the largest body there may be: its sender still gets to read the refusal

_CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"
_CLOSE: Final = b"connection: close\r\n"
_KEEP: Final = b"connection: keep-alive\r\n"

App = Callable[[Request], Awaitable[Answer]]


@dataclass(frozen=True, slots=True)
class EngineLimits:
    """How long a client may keep us waiting, and how many may. Tests shorten them."""

    head_s: float = 10.0  # a head is one packet or two
    body_s: float = 15.0  # without a single byte of the body; a mobile network's worst gap is shorter
    request_s: float = 120.0  # a whole request, answer included: 18 MB over a slow line
    idle_s: float = 75.0  # above the 60 s that load balancers keep a connection, so that they close it, not we
    answer_s: float = 10.0  # an answer is small: who doesn't take it in that time isn't reading
    linger_s: float = 10.0  # to read an answer before the rest of a refused request is cut off
    grace_s: float = 2.0  # for requests under way at a stop: the supervisor gives each stage of a stop 3 s
    sweep_s: float = 1.0  # how late any of these may be noticed
    connections: int = 10_000  # about 6 KiB each while idle


@dataclass(slots=True)
class Shared:
    """What the connections of one engine have in common."""

    app: App
    limits: EngineLimits
    date: bytes = b""  # a header line
    is_stopping: bool = False
    # Connections that have no whole request in hand, the longest waiting first: these make room for new ones.
    waiting: dict[Connection, None] = field(default_factory=dict)


class Connection:
    """See the module. To a request it is also the `requests.Body`."""

    __slots__ = (
        "_awaits_continue", "_fd", "_is_expired", "_is_last", "_owes_answer", "_parser", "_request_ends_s", "_scope",
        "_shared", "_sock", "deadline_s", "flow", "is_lingering",
    )  # fmt: skip

    def __init__(self, sock: socket.socket, host: str, shared: Shared) -> None:
        """`sock`, which `host` is at the other end of, is this connection's from now on, non-blocking."""
        self.flow = host
        self._sock, self._fd = sock, sock.fileno()
        self._shared = shared
        self._parser = Parser()
        self._scope = trio.CancelScope()
        self._request_ends_s = 0.0
        self._awaits_continue = False  # the client sends no body before it is told to
        self._owes_answer = False  # a request has begun and nothing of its answer was sent
        self._is_last = False  # what is in hand is this connection's last request
        self._is_expired = False
        self.is_lingering = False
        self.deadline_s = trio.current_time() + shared.limits.head_s

    async def run(self) -> None:
        """Serve the client until it or we have had enough. Raises nothing but a cancel from outside."""
        try:
            with self._scope:
                await self._converse()
        except DisconnectedError:
            pass
        except Exception as error:
            log.error("ingest.failed", error=kind(error), at=where(error))
        finally:
            if self._is_expired and self._owes_answer:
                self._say_too_late()
            self._shared.waiting.pop(self, None)
            self._sock.close()

    def close(self) -> None:
        """End it now, in the middle of whatever it does."""
        self._scope.cancel()

    def expire(self) -> None:
        """End it because its deadline has passed."""
        self._is_expired = True
        self._scope.cancel()

    # -- the requests

    async def _converse(self) -> None:
        try:
            while not self._is_last and (head := await self._next_head()) is not None:
                await self._serve(head)
        except ProtocolError as error:
            self._is_last = True
            await self._send(self._rendered(Answer(error.status, {"detail": error.detail})))
            await self._linger()
        else:
            if not self._parser.whole or self._parser.holds_bytes:
                await self._linger()

    async def _next_head(self) -> Head | None:
        """The next request, None when there will be none."""
        parser, shared = self._parser, self._shared
        if parser.holds_bytes:  # sent before we had answered the last one
            await checkpoint()
        while (head := parser.head()) is None and not shared.is_stopping:
            if parser.holds_bytes and not self._owes_answer:
                self._owes_answer = True
                self.deadline_s = trio.current_time() + shared.limits.head_s
            shared.waiting[self] = None
            data = await self._receive()
            if not data:
                break
            parser.feed(data)
        shared.waiting.pop(self, None)
        return head

    async def _serve(self, head: Head) -> None:
        limits = self._shared.limits
        self.deadline_s = self._request_ends_s = trio.current_time() + limits.request_s
        self._owes_answer = True
        self._awaits_continue = head.expects_continue
        try:
            answer = await self._shared.app(Request(head, self))
        except (ProtocolError, DisconnectedError):
            raise
        except Exception as error:
            log.error("ingest.failed", error=kind(error), at=where(error))
            answer, self._is_last = Answer(500, {"detail": "Internal error"}), True
        self._is_last = self._is_last or self._shared.is_stopping or not head.is_persistent or not self._rest_is_small()
        await self._send(self._rendered(answer, is_head=head.method == "HEAD"))
        if not self._is_last:
            while not self._parser.whole:
                await self.next()
            self.deadline_s = trio.current_time() + limits.idle_s

    def _rest_is_small(self) -> bool:
        """True when what is to come of the body may be read for the sake of the connection."""
        parser = self._parser
        if parser.whole:
            return True
        if self._awaits_continue and not parser.body_begun:
            return False  # it will not be sent
        try:
            while parser.piece():
                pass
        except ProtocolError:
            return False
        self._awaits_continue = False
        return parser.whole or (parser.rest_bytes is not None and parser.rest_bytes <= SMALL_REST_BYTES)

    # -- as a request's body

    @property
    def whole(self) -> bool:
        """True when nothing of the body is to come."""
        return self._parser.whole

    async def next(self) -> bytes:
        """The next piece of the body, b"" at its end. Raises DisconnectedError, ProtocolError."""
        parser = self._parser
        while not (piece := parser.piece()) and not parser.whole:
            if self._awaits_continue:
                self._awaits_continue = False
                if not parser.body_begun:
                    await self._send_all(_CONTINUE)
            self.deadline_s = min(trio.current_time() + self._shared.limits.body_s, self._request_ends_s)
            data = await self._receive()
            if not data:
                raise DisconnectedError
            parser.feed(data)
            self.deadline_s = self._request_ends_s
        if parser.holds_bytes and not parser.whole:
            await checkpoint()  # there is more at once: let others have their turn
        return piece

    def answer_within(self, seconds: float) -> None:
        """Give the request, which is here whole, so long from now on: after it the client is told that it may retry."""
        self.deadline_s = min(trio.current_time() + seconds, self._request_ends_s)

    # -- the socket

    async def _receive(self) -> bytes:
        """What the client sent, b"" at its end. Waits first: a client that never pauses must not keep the loop."""
        while True:
            await wait_readable(self._fd)
            try:
                return self._sock.recv(RECV_BYTES)
            except BlockingIOError:
                continue
            except OSError:
                raise DisconnectedError from None

    async def _send(self, answer: bytes) -> None:
        self._owes_answer = False
        await self._send_all(answer)

    async def _send_all(self, data: bytes) -> None:
        rest = memoryview(data)
        while True:
            try:
                sent = self._sock.send(rest)
            except BlockingIOError:
                sent = 0
            except OSError:
                raise DisconnectedError from None
            if sent == len(rest):
                return
            if len(rest) == len(data):
                self.deadline_s = trio.current_time() + self._shared.limits.answer_s
            rest = rest[sent:]
            await wait_writable(self._fd)

    def _rendered(self, answer: Answer, *, is_head: bool = False) -> bytes:
        connection = _CLOSE if self._is_last else _KEEP
        return answer.rendered(is_head=is_head, date=self._shared.date, connection=connection)

    async def _linger(self) -> None:
        """Read and drop what the client still sends: closed on unread bytes, a socket takes the answer back."""
        self.is_lingering = True
        self._shared.waiting[self] = None
        self.deadline_s = trio.current_time() + self._shared.limits.linger_s
        with suppress(OSError):
            self._sock.shutdown(socket.SHUT_WR)
        left_bytes = LINGER_BYTES
        while left_bytes > 0 and (data := await self._receive()):
            left_bytes -= len(data)

    def _say_too_late(self) -> None:
        """Tell a client whose time is over, if that takes no waiting either."""
        if self._parser.whole and self not in self._shared.waiting:
            answer = overloaded("The request took too long; try again").answer()
        else:
            answer = Answer(408, {"detail": "The request did not arrive in time"})
        self._is_last = True
        with suppress(OSError):
            self._sock.send(self._rendered(answer))
            self._sock.shutdown(socket.SHUT_WR)
