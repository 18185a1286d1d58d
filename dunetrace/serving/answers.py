"""What both HTTP servers say when they refuse: one error shape, and the exception that carries it up to the answer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import msgspec

from dunetrace.errors import DunetraceError

INVALID_KEY = "Invalid or inactive API key"
OVERLOADED_RETRY_S = 1
STORE_AWAY_RETRY_S = 5


class Answer(NamedTuple):
    """A JSON answer. `headers` are further ones, beside the content type and length."""

    status: int
    body: Any
    headers: Mapping[str, str] = {}

    def encoded(self) -> tuple[bytes, list[tuple[bytes, bytes]]]:
        """The body's bytes and all the headers as ASGI wants them."""
        body = msgspec.json.encode(self.body)
        return body, [
            (b"content-type", b"application/json"),
            (b"content-length", b"%d" % len(body)),
            *((name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in self.headers.items()),
        ]


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
