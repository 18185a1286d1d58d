"""HTTP/1.1 as the ingest door reads it, without any I/O: bytes in; heads, pieces of bodies and errors out.

`engine.py` feeds it what a socket gave and asks for what it needs. The whole grammar of a head is one expression that
names what may come: a bare LF, a bare CR, NUL, a folded line or a space before a colon match nothing in it. A stream is
read the same way however it was cut into pieces, and anything two readers could understand differently is an error.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from enum import Enum
from typing import Final, NamedTuple

from dunetrace.errors import DunetraceError

MAX_HEAD_BYTES: Final = 16 << 10
MAX_TARGET_BYTES: Final = 8 << 10
MAX_FIELDS: Final = 100
MAX_BLANK_LINES: Final = 4  # before a request line; some old clients send one after a body
MAX_LENGTH_DIGITS: Final = 18  # more is no body anybody sends
MAX_EXTENSION_BYTES: Final = 4 << 10  # of all chunks of one body together
MAX_TRAILER_BYTES: Final = 4 << 10
MAX_SMALL_CHUNKS: Final = (
    10_000  # of one body, beside one for every SMALL_CHUNK_BYTES of it: they cost more than they hold
)
SMALL_CHUNK_BYTES: Final = 64
CHUNKS_AT_ONCE: Final = 200  # about 0.2 ms of the loop
# Said twice, each of these means two things. The other names may come in several lines, as a list.
ONCE: Final = frozenset(
    {"host", "content-length", "authorization", "content-type", "content-encoding", "idempotency-key"}
)

_TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]"  # noqa: S105 - RFC 9110's word for it
_TEXT = r"[\t\x20-\x7e\x80-\xff]"
_TARGET = r"[\x21-\x22\x24-\x7e]"
_FIELDS = rf"(?:{_TOKEN}++:{_TEXT}*+\r\n)*+"
_HEAD = re.compile(rf"({_TOKEN}{{1,32}}) ({_TARGET}++) HTTP/1\.([01])\r\n({_FIELDS})\r\n")
_FIELD = re.compile(r"([^:]+):([^\r]*)\r\n")  # within what _HEAD has matched
_OTHER_VERSION = re.compile(rf"{_TOKEN}{{1,32}} {_TARGET}+ HTTP/(?!1\.[01]\r)[0-9]\.[0-9]\r\n".encode("latin-1"))
_LONG_TARGET = re.compile(rf"{_TOKEN}{{1,32}} {_TARGET}{{{MAX_TARGET_BYTES + 1}}}".encode("latin-1"))
_NEVER = re.compile(rb"[^\t\r\n\x20-\x7e\x80-\xff]|(?<!\r)\n|\r(?!\n|\Z)")  # wherever it stands in a head
_ABSOLUTE = re.compile(r"https?://([^/?]+)(/[^?]*)?(\?.*)?", re.IGNORECASE)
_HOST = re.compile(r"(?:\[[0-9A-Fa-f:.]+\]|[0-9A-Za-z._~!$&'()*+,;=%-]*)(?::[0-9]*)?")

_SIZE_LINE = re.compile(rb"([0-9A-Fa-f]{1,8})([\t ]*;[\t\x20-\x7e\x80-\xff]*)?\r\n")
_SIZE_LINE_BEGUN = re.compile(rb"[0-9A-Fa-f]{0,8}|[0-9A-Fa-f]{1,8}(?:[\t ]*|[\t ]*;[\t\x20-\x7e\x80-\xff]*)\r?")
_TRAILERS = re.compile(_FIELDS.encode("latin-1") + rb"\r\n")


class ProtocolError(DunetraceError):
    """What came is not a request we read. Answered with `status`; where the next request begins is not known."""

    def __init__(self, status: int, detail: str) -> None:
        super().__init__(detail)
        self.status, self.detail = status, detail


class Head(NamedTuple):
    """A request line and its fields. `target` is as it was sent, in origin form; names are lower case."""

    method: str
    target: str
    headers: Mapping[str, str]
    is_persistent: bool  # the client would send another request on this connection
    expects_continue: bool


class _Chunk(Enum):
    """What comes next of a chunked body."""

    SIZE = 1
    DATA = 2
    DATA_END = 3
    TRAILERS = 4


class Parser:
    """The requests of one connection, one after the other: `head()`, then `piece()` until `whole`, then `head()`."""

    __slots__ = (
        "_begun", "_blank_lines", "_buffer", "_chunk", "_extension_bytes", "_rest_bytes", "_seen", "_small_chunks",
        "whole",
    )  # fmt: skip

    def __init__(self) -> None:
        self._buffer = b""
        self._seen = 0  # bytes of an unfinished head that were looked at
        self._blank_lines = 0
        self._begun = False
        self._chunk: _Chunk | None = None
        self._rest_bytes = 0
        self._extension_bytes = 0
        self._small_chunks = 0
        self.whole = True  # the body of the request in hand has been given out

    def feed(self, data: bytes) -> None:
        """Take what came from the client."""
        self._buffer = self._buffer + data if self._buffer else data

    @property
    def holds_bytes(self) -> int:
        """Bytes that were fed and not asked for yet."""
        return len(self._buffer)

    @property
    def body_begun(self) -> bool:
        """True once anything of the body has come."""
        return self._begun or bool(self._buffer)

    @property
    def rest_bytes(self) -> int | None:
        """How much of the body is to come; None when only its end will tell."""
        return None if self._chunk is not None else self._rest_bytes

    def head(self) -> Head | None:
        """The next request, None until it is here. Raises ProtocolError."""
        if not self._buffer:
            return None
        while self._buffer.startswith(b"\r\n"):
            self._buffer = self._buffer[2:]
            self._blank_lines += 1
            if self._blank_lines > MAX_BLANK_LINES:
                raise ProtocolError(400, "Too many blank lines before a request")
        end = self._buffer.find(b"\r\n\r\n", self._seen, MAX_HEAD_BYTES) + 4
        if end < 4:
            self._check_begun()
            return None
        head, self._buffer = self._buffer[:end], self._buffer[end:]
        self._seen = self._blank_lines = 0
        return self._read(head)

    def _check_begun(self) -> None:
        """Refuse an unfinished head as soon as it can't become one."""
        if _NEVER.search(self._buffer, self._seen, MAX_HEAD_BYTES):
            raise _malformed()
        if _LONG_TARGET.match(self._buffer):
            raise _long_target()
        if len(self._buffer) >= MAX_HEAD_BYTES:
            raise ProtocolError(431, f"The request's head is over {MAX_HEAD_BYTES} bytes")
        self._seen = max(0, len(self._buffer) - 3)

    def _read(self, head: bytes) -> Head:
        matched = _HEAD.fullmatch(head.decode("latin-1"))
        if matched is None:
            if _OTHER_VERSION.match(head) and not _NEVER.search(head):
                raise ProtocolError(505, "Only HTTP/1.1 and HTTP/1.0 are spoken here")
            raise _malformed()
        method, target, minor, lines = matched.groups()
        if len(target) > MAX_TARGET_BYTES:
            raise _long_target()
        fields = _FIELD.findall(lines)
        headers = {name.lower(): value.strip("\t ") for name, value in fields}
        if len(headers) != len(fields):
            headers = _joined(fields)
        if len(fields) > MAX_FIELDS:
            raise ProtocolError(431, f"The request has over {MAX_FIELDS} header fields")
        is_1_1 = minor == "1"
        if not target.startswith("/"):
            target = _origin_form(method, target, headers)
        host = headers.get("host")
        if (host is None and is_1_1) or (host and not _HOST.fullmatch(host)):
            raise ProtocolError(400, "The request needs one valid Host")
        self._frame(headers, is_1_1)
        expects = headers.get("expect") if is_1_1 else None
        if expects is not None and expects.lower() != "100-continue":
            raise ProtocolError(417, "Expect may only be 100-continue")
        connection = headers.get("connection")
        persistent = is_1_1
        if connection is not None:
            options = {option.strip("\t ").lower() for option in connection.split(",")}
            persistent = "close" not in options and (is_1_1 or "keep-alive" in options)
        return Head(method, target, headers, persistent, expects is not None and not self.whole)

    def _frame(self, headers: dict[str, str], is_1_1: bool) -> None:
        """Where the body ends: exactly one way to tell, or none and no body."""
        length = headers.get("content-length")
        coding = headers.get("transfer-encoding")
        self._begun, self._chunk, self._rest_bytes = False, None, 0
        if coding is not None:
            if length is not None:
                raise ProtocolError(400, "Content-Length and Transfer-Encoding exclude each other")
            if not is_1_1:
                raise ProtocolError(400, "HTTP/1.0 has no Transfer-Encoding")
            if coding.lower() != "chunked":
                raise ProtocolError(501, "Transfer-Encoding may only be chunked")
            self._chunk, self._extension_bytes, self._small_chunks = _Chunk.SIZE, 0, 0
        elif length is not None:
            if not (length.isascii() and length.isdecimal()):
                raise ProtocolError(400, "Content-Length must be a number")
            if len(length) > MAX_LENGTH_DIGITS:
                raise ProtocolError(413, "The body is too large")
            self._rest_bytes = int(length)
        self.whole = self._chunk is None and not self._rest_bytes

    def piece(self) -> bytes:
        """What has come of the body since the last call, or some of it; b"" when there is nothing.

        Raises ProtocolError.
        """
        if self.whole:
            return b""
        if self._chunk is not None:
            return self._dechunked(self._chunk)
        buffer, rest_bytes = self._buffer, self._rest_bytes
        if len(buffer) <= rest_bytes:
            piece, self._buffer = buffer, b""
        else:
            piece, self._buffer = buffer[:rest_bytes], buffer[rest_bytes:]
        self._begun = self._begun or bool(piece)
        self._rest_bytes -= len(piece)
        self.whole = not self._rest_bytes
        return piece

    def _dechunked(self, state: _Chunk) -> bytes:
        buffer, at, pieces = self._buffer, 0, list[bytes]()
        while len(pieces) < CHUNKS_AT_ONCE:
            if state is _Chunk.SIZE:
                line = _SIZE_LINE.match(buffer, at)
                if line is None:
                    self._check_size_begun(buffer, at)
                    break
                at = line.end()
                self._rest_bytes = int(line[1], 16)
                self._count(line.end(2) - line.start(2))
                state = _Chunk.DATA if self._rest_bytes else _Chunk.TRAILERS
            elif state is _Chunk.DATA:
                piece = buffer[at : at + self._rest_bytes]
                pieces.append(piece)
                at += len(piece)
                self._rest_bytes -= len(piece)
                if self._rest_bytes:
                    break
                state = _Chunk.DATA_END
            elif state is _Chunk.DATA_END:
                end = buffer[at : at + 2]
                if end != b"\r\n":
                    if end not in (b"", b"\r"):
                        raise _bad_chunk()
                    break
                at += 2
                state = _Chunk.SIZE
            else:
                at = self._drop_trailers(buffer, at)
                break
        self._begun = self._begun or bool(at)
        self._chunk, self._buffer = state, buffer[at:]
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _check_size_begun(self, buffer: bytes, at: int) -> None:
        if not _SIZE_LINE_BEGUN.fullmatch(buffer, at) or len(buffer) - at > MAX_EXTENSION_BYTES + 10:
            raise _bad_chunk()

    def _count(self, extension_bytes: int) -> None:
        """Bound what a chunk carries beside its data, and how many there are with hardly any."""
        self._extension_bytes += extension_bytes
        self._small_chunks = max(0, self._small_chunks + 1 - self._rest_bytes // SMALL_CHUNK_BYTES)
        if self._extension_bytes > MAX_EXTENSION_BYTES or self._small_chunks > MAX_SMALL_CHUNKS:
            raise _bad_chunk()

    def _drop_trailers(self, buffer: bytes, at: int) -> int:
        """Where the body ends, or `at` while that hasn't come."""
        trailers = _TRAILERS.match(buffer, at)
        if (trailers.end() if trailers else len(buffer)) - at > MAX_TRAILER_BYTES:
            raise ProtocolError(431, f"The trailers are over {MAX_TRAILER_BYTES} bytes")
        if trailers is None:
            ended = buffer.startswith(b"\r\n", at) or buffer.find(b"\r\n\r\n", at) >= 0
            if ended or _NEVER.search(buffer, at):
                raise ProtocolError(400, "The trailers are malformed")
            return at
        self.whole = True
        return trailers.end()


def _joined(fields: list[tuple[str, str]]) -> dict[str, str]:
    headers: dict[str, str] = {}
    for name, value in fields:
        known = name.lower()
        if known in headers:
            if known in ONCE:
                raise ProtocolError(400, "A header field that may come once came twice")
            headers[known] += ", " + value.strip("\t ")
        else:
            headers[known] = value.strip("\t ")
    return headers


def _origin_form(method: str, target: str, headers: dict[str, str]) -> str:
    """The path and query of a target that doesn't begin with them. An authority in it is the Host."""
    if target == "*" and method == "OPTIONS":
        return target
    absolute = _ABSOLUTE.fullmatch(target)
    if absolute is None:
        raise ProtocolError(400, "The request's target must be a path")
    authority, path, query = absolute.groups("")
    headers["host"] = authority
    return (path or "/") + query


def _malformed() -> ProtocolError:
    return ProtocolError(400, "The request's head is malformed")


def _long_target() -> ProtocolError:
    return ProtocolError(414, f"The request's target is over {MAX_TARGET_BYTES} bytes")


def _bad_chunk() -> ProtocolError:
    return ProtocolError(400, "A chunk of the body is malformed")
