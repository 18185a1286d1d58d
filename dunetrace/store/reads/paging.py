"""A window on a list, and what a list read gives back. Used by the list reads beside it and by the API's routes."""

from __future__ import annotations

from typing import Any, NamedTuple

Row = dict[str, Any]


class Window(NamedTuple):
    """Which part of a list is wanted: `limit` rows after the first `offset`."""

    offset: int
    limit: int


class Found(NamedTuple):
    """Rows of the window, keyed by the API's field names, and how many rows the whole list has."""

    rows: list[Row]
    total: int
