"""The engine under a handler that does what the path says, and a client that speaks in bytes."""

from __future__ import annotations

import json
import socket
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

import trio

from dunetrace.serving.answers import Answer
from dunetrace.serving.connection import EngineLimits
from dunetrace.serving.engine import serve
from dunetrace.serving.limits import BodyBudget
from dunetrace.serving.requests import Request
from dunetrace.serving.sockets import listen

MAX_BODY_BYTES = 8 << 20


class Said(NamedTuple):
    """One answer, as a client read it."""

    status: int
    headers: dict[str, str]
    content: bytes

    @property
    def body(self) -> Any:
        return json.loads(self.content)


class Wire:
    """A client of one connection. `send` is any bytes, `answer` reads exactly one answer."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self.stream = stream
        self._held = b""

    async def send(self, data: bytes) -> None:
        await self.stream.send_all(data)

    async def line(self) -> bytes:
        """The next head, its blank line included."""
        while b"\r\n\r\n" not in self._held:
            more = await self.stream.receive_some(65_536)
            if not more:
                raise EOFError(self._held)
            self._held += more
        head, _, self._held = self._held.partition(b"\r\n\r\n")
        return head + b"\r\n\r\n"

    async def answer(self, *, is_head: bool = False) -> Said:
        first, *lines = (await self.line()).decode().split("\r\n")[:-2]
        headers = {name: value for name, _, value in (line.partition(": ") for line in lines)}
        length = 0 if is_head else int(headers["content-length"])
        while len(self._held) < length:
            more = await self.stream.receive_some(65_536)
            if not more:
                raise EOFError(self._held)
            self._held += more
        content, self._held = self._held[:length], self._held[length:]
        return Said(int(first.split(" ")[1]), headers, content)

    async def ask(self, data: bytes) -> Said:
        await self.send(data)
        return await self.answer()

    async def ends(self, within_s: float = 5) -> bytes:
        """What still comes until the server closes. A reset is a close too. Raises TooSlowError."""
        with trio.fail_after(within_s):
            try:
                while more := await self.stream.receive_some(65_536):
                    self._held += more
            except trio.BrokenResourceError:
                pass
        return self._held


@asynccontextmanager
async def connect(port: int, *, receive_buffer_bytes: int = 0) -> AsyncIterator[Wire]:
    """A connection to a port of this machine. With a small buffer, what isn't read soon stays with the server."""
    sock = trio.socket.socket()
    if receive_buffer_bytes:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer_bytes)
    await sock.connect(("127.0.0.1", port))
    async with trio.SocketStream(sock) as stream:
        yield Wire(stream)


@dataclass
class Served:
    """An engine on a port. A request to /wait has `started` once it is in the handler, and is answered on `release`."""

    port: int
    shutdown: trio.Event
    started: trio.Event = field(default_factory=trio.Event)
    release: trio.Event = field(default_factory=trio.Event)
    paths: list[str] = field(default_factory=list)
    budget: BodyBudget = field(default_factory=lambda: BodyBudget(64 << 20))

    def connect(self, *, receive_buffer_bytes: int = 0) -> AbstractAsyncContextManager[Wire]:
        return connect(self.port, receive_buffer_bytes=receive_buffer_bytes)

    async def handle(self, request: Request) -> Answer:
        """/echo reads its body, /wait waits, /boom and /booms raise, /big is a big answer; others leave the body be."""
        self.paths.append(request.path)
        match request.path:
            case "/echo":
                with self.budget.lease() as lease:
                    body = await request.body(MAX_BODY_BYTES, lease)
                return Answer(200, {"length": len(body), "end": body[-20:].decode("latin-1")})
            case "/wait":
                self.started.set()
                await self.release.wait()
            case "/boom":
                raise RuntimeError("secret")
            case "/booms":
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(_boom)
                    nursery.start_soon(trio.sleep_forever)
            case "/big":
                return Answer(200, "x" * (1 << 20))
        return Answer(200, "ok")


async def _boom() -> None:
    raise RuntimeError("secret")


def request(path: str, *fields: str, method: str = "GET", version: str = "1.1", body: bytes = b"") -> bytes:
    lines = [f"{method} {path} HTTP/{version}", "Host: localhost", *fields]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def post(path: str, body: bytes, *fields: str) -> bytes:
    return request(path, f"Content-Length: {len(body)}", *fields, method="POST", body=body)


@asynccontextmanager
async def open_engine(limits: EngineLimits | None = None) -> AsyncIterator[Served]:
    """Serve on a free port for the length of the block."""
    with listen("127.0.0.1:0", "DUNETRACE_INGEST_BIND") as sock:
        served = Served(sock.getsockname()[1], trio.Event())
        async with trio.open_nursery() as nursery:
            await nursery.start(partial(serve, served.handle, sock, served.shutdown, limits=limits or EngineLimits()))
            yield served
            served.shutdown.set()
