"""Arguments as the wire wants them, whatever an agent passed. Called by `context` and `client` on the agent's thread.

Each function gives a value of the one type it names and never raises; a number that is none becomes None and is left
out of the payload.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from functools import lru_cache
from itertools import islice
from typing import Any

from dunetrace.events import MAX_NAME_CHARS, MAX_NAMES, MAX_NUMBER, storable


def text(value: object) -> str:
    """`value` as text; an object that cannot say itself is named by its type."""
    if type(value) is str:
        return value
    if value is None:
        return ""
    try:
        return f"{value}"
    except Exception:
        return f"<{type(value).__name__}>"


def name(value: object) -> str:
    """A name the developer chose, cut at 256 characters."""
    if type(value) is str and len(value) <= MAX_NAME_CHARS:
        return _storable_name(value)
    return storable(text(value)[:MAX_NAME_CHARS])


@lru_cache(maxsize=256)  # an agent names the same few tools and models again and again
def _storable_name(value: str) -> str:
    return value if value.isascii() and value.isprintable() else storable(value)


def names(values: object) -> list[str]:
    """The names of tools: of strings themselves, of objects and functions what they are called; at most 512."""
    if values is None:
        return []
    if type(values) is not list and (isinstance(values, str) or not isinstance(values, Iterable)):
        return [_called(values)]
    try:
        return [_called(value) for value in islice(values, MAX_NAMES)]
    except Exception:
        return []


def _called(value: Any) -> str:
    if isinstance(value, str):
        return name(value)
    try:
        found = value.get("name") if isinstance(value, Mapping) else None
        return name(found or getattr(value, "name", None) or getattr(value, "__name__", None) or value)
    except Exception:
        return f"<{type(value).__name__}>"


def count(value: Any) -> int | None:
    """A whole number from 0 to 2^53."""
    if type(value) is int:
        return value if 0 <= value <= MAX_NUMBER else None
    number = score(value)
    return int(number) if number is not None and number >= 0 else None


def duration(value: Any) -> float | None:
    """A number of milliseconds from 0 to 2^53."""
    if type(value) is int:
        return value if 0 <= value <= MAX_NUMBER else None
    number = score(value)
    return number if number is not None and number >= 0 else None


def score(value: Any) -> float | None:
    """A finite number between -2^53 and 2^53."""
    if isinstance(value, bool) or value is None:
        return None
    try:
        number = value if type(value) is int else float(value)
        return number if math.isfinite(number) and -MAX_NUMBER <= number <= MAX_NUMBER else None
    except Exception:
        return None
