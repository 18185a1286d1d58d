"""A request as the ingest door reads it: headers, query, and a body that is bounded while it arrives and inflates.

Speaks ASGI's `receive` and nothing else of ASGI, so that another engine can hand over its requests the same way.
"""

from __future__ import annotations

import zlib
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl

import trio

from dunetrace.errors import DunetraceError
from dunetrace.serving.answers import RefusedError, invalid
from dunetrace.serving.auth import bearer

if TYPE_CHECKING:
    from dunetrace.serving.limits import Lease

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

INFLATE_STEP_BYTES = 1 << 20  # about 3 ms of the loop
# What is still read of a body that was refused, so that the client reads our answer instead of a reset connection.
DRAIN_BYTES = 64 << 20
DRAIN_S = 10.0


class DisconnectedError(DunetraceError):
    """The client went away before its request was whole: there is nobody to answer."""


class Request:
    """One request. `path` is the raw path, still percent-encoded; header names are lower case."""

    def __init__(self, scope: Scope, receive: Receive) -> None:
        self.method: str = scope["method"]
        raw_path: bytes = scope.get("raw_path") or scope["path"].encode("utf-8")
        self.path = raw_path.decode("latin-1")
        self._query: bytes = scope["query_string"]
        headers: Iterable[tuple[bytes, bytes]] = scope["headers"]
        self.headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in headers}
        self.flow = bearer(self.headers)  # whose turn it is where many wait
        self._receive = receive
        self._whole = False

    def query(self, name: str) -> str:
        """The last value of a query parameter, "" when it is missing."""
        values = dict(parse_qsl(self._query.decode("latin-1"), keep_blank_values=True, errors="replace"))
        return values.get(name, "")

    def check_json(self) -> None:
        """Raises RefusedError 415 unless the body is JSON, plain or gzipped."""
        kind = self.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind != "application/json":
            raise RefusedError(415, "Content-Type must be application/json")
        if self._encoding() not in ("", "identity", "gzip"):
            raise RefusedError(415, "Content-Encoding must be gzip or identity", accept_encoding="gzip")

    def _encoding(self) -> str:
        return self.headers.get("content-encoding", "").strip().lower()

    async def body(self, limit_bytes: int, lease: Lease) -> bytes:
        """The inflated body. Raises RefusedError 413 over the limit, 422 for broken gzip, 503 over the shared bound."""
        announced = self.headers.get("content-length", "")
        if announced.isdecimal() and int(announced[:20]) > limit_bytes:
            raise _too_large(limit_bytes)
        received = bytearray()
        while not self._whole:
            piece = await self._next()
            lease.grow(len(piece))
            received += piece
            if len(received) > limit_bytes:
                raise _too_large(limit_bytes)
        if self._encoding() == "gzip":
            return await _inflated(bytes(received), limit_bytes, lease)
        return bytes(received)

    async def drain(self) -> None:
        """Read on and throw away what the client still sends, within bounds."""
        left_bytes = DRAIN_BYTES
        with trio.move_on_after(DRAIN_S):
            while not self._whole and left_bytes > 0:
                left_bytes -= len(await self._next())

    async def _next(self) -> bytes:
        message = await self._receive()
        if message["type"] != "http.request":
            self._whole = True
            raise DisconnectedError
        self._whole = not message.get("more_body", False)
        piece: bytes = message.get("body", b"")
        return piece


def _too_large(limit_bytes: int) -> RefusedError:
    return RefusedError(413, f"The body is over {limit_bytes} bytes; send fewer events at a time", connection="close")


async def _inflated(data: bytes, limit_bytes: int, lease: Lease) -> bytes:
    """All members of a gzip stream, in steps that let the loop go on and stop as soon as the limit is passed."""
    inflated = bytearray()
    while True:
        member = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)
        while not member.eof:
            try:
                piece = member.decompress(data, INFLATE_STEP_BYTES)
            except zlib.error:
                raise _broken_gzip() from None
            data = member.unconsumed_tail
            if not piece and not data and not member.eof:
                raise _broken_gzip()
            lease.grow(len(piece))
            inflated += piece
            if len(inflated) > limit_bytes:
                raise _too_large(limit_bytes)
            await trio.lowlevel.checkpoint()
        data = member.unused_data.lstrip(b"\0")
        if not data:
            return bytes(inflated)


def _broken_gzip() -> RefusedError:
    return invalid(["body"], "the gzip stream is broken or ends early", "gzip_invalid")
