"""What a route is, and what its handler is given. Used by the table in routes.py and by the handlers."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple

from msgspec import Struct

from dunetrace.fixes.desk import Desk
from dunetrace.prices import NO_PRICES, Prices
from dunetrace.serving.api.parameters import Choice, Parameter
from dunetrace.serving.api.shapes import Page
from dunetrace.store.gateway import Gateway
from dunetrace.store.reads.paging import Found, Window
from dunetrace.store.reads.scope import Scope

MAX_BIGINT: Final = 2**63 - 1
_NUMBER = re.compile(r"[0-9]{1,19}")


class Call(NamedTuple):
    """One authorised request: whose rows it may see, the ids in its path, its query parameters as declared."""

    scope: Scope
    ids: Mapping[str, str]
    query: Mapping[str, Any]
    asked_at: float  # Unix seconds
    desk: Desk  # where fixes come from
    body: Any = None  # of the route's `body` type
    prices: Prices = NO_PRICES

    @property
    def window(self) -> Window:
        return Window(self.query["offset"], self.query["limit"])

    def page(self, found: Found) -> Page:
        """What part of the list the window shows."""
        offset, limit = self.window
        return Page(found.total, offset, limit, offset + len(found.rows) < found.total)

    @property
    def moment(self) -> datetime:
        """`asked_at` as a datetime."""
        return datetime.fromtimestamp(self.asked_at, UTC)

    def number(self, name: str) -> int | None:
        """An id in the path that is a row's number; None when it cannot be one."""
        text = self.ids[name]
        number = int(text) if _NUMBER.fullmatch(text) else MAX_BIGINT + 1
        return number if number <= MAX_BIGINT else None


Handler = Callable[[Gateway, Call], Awaitable[Struct]]


@dataclass(frozen=True, slots=True)
class Route:
    """One route. `{name}` in `path` is one percent-encoded segment."""

    path: str
    handler: Handler
    answer: type[Struct]
    what: str
    parameters: tuple[Parameter, ...] = ()
    missing: str = ""  # when it answers 404, for the documents
    method: str = "GET"
    body: type[Struct] | None = None  # of a request that changes something
    asks_others: bool = False  # it waits for services outside, and answers 502 when one of them fails
    choices: tuple[Choice, ...] = ()  # ids in the path that must be one of some, by their names
