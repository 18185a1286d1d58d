"""A request as the ingest door reads it: headers, query, and a body that is bounded while it arrives and inflates.

`connection.py` makes one of each head and gives it the way to its body.
"""

from __future__ import annotations

import re
import zlib
from typing import TYPE_CHECKING, Final, Protocol
from urllib.parse import parse_qsl

import trio

from dunetrace.errors import DunetraceError
from dunetrace.serving.answers import RefusedError, invalid

if TYPE_CHECKING:
    from dunetrace.serving.http1 import Head
    from dunetrace.serving.limits import Lease

INFLATE_STEP_BYTES: Final = 64 << 10  # about 0.2 ms of the loop
MAX_GZIP_MEMBERS: Final = 64  # clients send one; thousands of empty ones would cost time and hold nothing
_PADDING = re.compile(rb"\0*")


class DisconnectedError(DunetraceError):
    """The client went away before its request was whole: there is nobody to answer."""


class Body(Protocol):
    """Where a request's body comes from."""

    flow: str  # whose requests come this way: the host's address, the key once one was seen

    @property
    def whole(self) -> bool:
        """True when nothing of it is to come."""

    async def next(self) -> bytes:
        """The next piece, b"" at the end. Raises DisconnectedError."""

    def answer_within(self, seconds: float) -> None:
        """End the request with a 503 if it isn't answered so many seconds from now, or up to a sweep later."""


class Request:
    """One request. `path` is the raw path, still percent-encoded; header names are lower case."""

    __slots__ = ("_body", "_query", "headers", "method", "path")

    def __init__(self, head: Head, body: Body) -> None:
        self.method = head.method
        self.path, _, self._query = head.target.partition("?")
        self.headers = head.headers
        self._body = body

    @property
    def flow(self) -> str:
        """Whose turn it is where many wait: the key this connection showed last, else its host."""
        return self._body.flow

    def came_with(self, key_hash: str) -> None:
        """Remember the key for the connection's next request, whose body is read before its key is."""
        self._body.flow = key_hash or self._body.flow

    def answer_within(self, seconds: float) -> None:
        """End the request with a 503 if it isn't answered then: cheaper than a timeout of trio's, and less exact."""
        self._body.answer_within(seconds)

    def query(self, name: str) -> str:
        """The last value of a query parameter, "" when it is missing."""
        values = dict(parse_qsl(self._query, keep_blank_values=True, errors="replace"))
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
        received: bytes | bytearray = b""
        while not self._body.whole:
            piece = await self._body.next()
            lease.grow(len(piece))
            if not received:
                received = piece  # the usual body is one piece, and is not copied
            elif isinstance(received, bytes):
                received = bytearray(received + piece)
            else:
                received += piece
            if len(received) > limit_bytes:
                raise _too_large(limit_bytes)
        body = bytes(received)  # of bytes, the very same object
        return await _inflated(body, limit_bytes, lease) if self._encoding() == "gzip" else body


def _too_large(limit_bytes: int) -> RefusedError:
    return RefusedError(413, f"The body is over {limit_bytes} bytes; send fewer events at a time")


async def _inflated(data: bytes, limit_bytes: int, lease: Lease) -> bytes:
    """All members of a gzip stream, in steps that let the loop go on and stop as soon as the limit is passed."""
    inflated = bytearray()
    at = 0
    for _ in range(MAX_GZIP_MEMBERS):
        member = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)
        packed = b""
        while not member.eof:
            if not packed:
                packed = data[at : at + INFLATE_STEP_BYTES]
                at += len(packed)
            try:
                piece = member.decompress(packed, INFLATE_STEP_BYTES)
            except zlib.error:
                raise _broken_gzip() from None
            packed = member.unconsumed_tail
            if not (piece or packed or member.eof or at < len(data)):
                raise _broken_gzip()
            lease.grow(len(piece))
            inflated += piece
            if len(inflated) > limit_bytes:
                raise _too_large(limit_bytes)
            if not member.eof:
                await trio.lowlevel.checkpoint()
        at = _past_padding(data, at - len(member.unused_data))
        if at == len(data):
            return bytes(inflated)
    raise _broken_gzip()


def _past_padding(data: bytes, at: int) -> int:
    """Where what follows a member begins: zeros may stand between."""
    padding = _PADDING.match(data, at)
    return padding.end() if padding else at


def _broken_gzip() -> RefusedError:
    return invalid(["body"], "the gzip stream is broken or ends early", "gzip_invalid")
