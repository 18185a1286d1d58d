"""What both HTTP servers say when they refuse: one error shape, and the exception that carries it up to the answer.

`Answer.rendered` is how the ingest door's own engine writes one; the API's framework writes its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, NamedTuple

import msgspec

from dunetrace.errors import DunetraceError

INVALID_KEY = "Invalid or inactive API key"
OVERLOADED_RETRY_S = 1
OVERLOAD_HOLD_S = 0.1  # before a 503: a client that retries at once then costs ten requests a second, not thousands
STORE_AWAY_RETRY_S = 5

_STATUS_LINES = {
    status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\ncontent-type: application/json\r\n".encode()
    for status in HTTPStatus
}


class Answer(NamedTuple):
    """A JSON answer. `headers` are further ones, beside the content type and length."""

    status: int
    body: Any
    headers: Mapping[str, str] = {}

    def rendered(self, *, is_head: bool = False, date: bytes = b"", connection: bytes = b"") -> bytes:
        """The whole answer as HTTP/1.1. `date` and `connection` are header lines, ready made."""
        body = msgspec.json.encode(self.body)
        further = b""
        if self.headers:
            further = "".join([f"{name.lower()}: {value}\r\n" for name, value in self.headers.items()]).encode(
                "latin-1"
            )
        return b"%bcontent-length: %d\r\n%b%b%b\r\n%b" % (
            _STATUS_LINES[self.status], len(body), date, further, connection, b"" if is_head else body
        )  # fmt: skip


class RefusedError(DunetraceError):
    """A request is answered with an error. `detail` names what is wrong and the way out, and never quotes the input."""

    def __init__(self, status: int, detail: str | list[dict[str, Any]], **headers: str) -> None:
        super().__init__(f"refused with {status}")
        self.status, self.detail = status, detail
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}

    def answer(self) -> Answer:
        """The same as an answer."""
        return Answer(self.status, {"detail": self.detail}, self.headers)


def invalid(loc: list[str | int], msg: str, kind: str) -> RefusedError:
    """A 422 over one place of the input. `kind` is a machine-readable name such as ``missing``."""
    return RefusedError(422, [{"loc": loc, "msg": msg, "type": kind}])


def overloaded(detail: str) -> RefusedError:
    """A 503 that passes by itself within a second or so."""
    return RefusedError(503, detail, retry_after=str(OVERLOADED_RETRY_S))


def store_away() -> RefusedError:
    """A 503 for as long as Postgres is away."""
    return RefusedError(503, "The database is not reachable; try again", retry_after=str(STORE_AWAY_RETRY_S))
