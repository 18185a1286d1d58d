"""Rows as columns, which is how many rows go into one statement."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any


def columns(rows: Iterable[Sequence[Any]], width: int) -> list[list[Any]]:
    """Rows turned into columns, for ``unnest($1, $2, …)``; `width` empty columns when there are no rows."""
    table = list(rows)
    return [list(column) for column in zip(*table, strict=True)] if table else [[] for _ in range(width)]
