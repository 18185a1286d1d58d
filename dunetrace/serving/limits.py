"""The bounds a server keeps in memory: how often a key may ask, and how many bytes of bodies are in hand at once."""

from __future__ import annotations

import math
from collections import OrderedDict
from types import TracebackType
from typing import Self

from dunetrace.serving.answers import RefusedError, overloaded

WINDOW_S = 60.0
_ROUNDING = 1e-6  # of a request
MAX_KEYS_WATCHED = 10_000  # the one least recently seen is forgotten first


class RateLimit:
    """At most `per_minute` requests a key in any minute, 0 for no limit.

    A sliding window of two fixed ones: what was counted in the minute before weighs in by the part of it that is still
    inside the last 60 seconds. Times are seconds of a monotonic clock.
    """

    def __init__(self, per_minute: int) -> None:
        self._per_minute = per_minute
        self._windows: OrderedDict[str, tuple[int, int, int]] = OrderedDict()  # window, its count, last one's

    def take(self, key: str, now_s: float) -> None:
        """Count one request of `key`. Raises RefusedError 429 with Retry-After when it is one too many."""
        if not self._per_minute:
            return
        window, into_s = int(now_s // WINDOW_S), now_s % WINDOW_S
        seen, count, before = self._windows.get(key, (window, 0, 0))
        if seen != window:
            count, before = 0, count if seen == window - 1 else 0
        if count + 1 + before * (1 - into_s / WINDOW_S) > self._per_minute + _ROUNDING:
            wait_s = _until_free(self._per_minute, count, before) - into_s
            raise RefusedError(
                429, "Too many requests with this key; slow down", retry_after=str(max(1, math.ceil(wait_s)))
            )
        self._windows[key] = (window, count + 1, before)
        self._windows.move_to_end(key)
        if len(self._windows) > MAX_KEYS_WATCHED:
            self._windows.popitem(last=False)


def _until_free(per_minute: int, count: int, before: int) -> float:
    """Seconds after the window's start when the next request fits."""
    if count < per_minute:
        return WINDOW_S * (1 - (per_minute - 1 - count) / before)
    return WINDOW_S * (2 - (per_minute - 1) / count)


class BodyBudget:
    """The bytes of all request bodies in hand, received and inflated, under one bound."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self.used_bytes = 0

    def lease(self) -> Lease:
        """A request's share, given back whole at the end of its block."""
        return Lease(self)

    def grow(self, size_bytes: int) -> None:
        """Raises RefusedError 503 when the bound would be passed."""
        if self.used_bytes + size_bytes > self._limit_bytes:
            raise overloaded("Too much data in hand; try again")
        self.used_bytes += size_bytes


class Lease:
    """What one request holds of a `BodyBudget`."""

    def __init__(self, budget: BodyBudget) -> None:
        self._budget = budget
        self._size_bytes = 0

    def grow(self, size_bytes: int) -> None:
        """Raises RefusedError 503 when the bound would be passed."""
        self._budget.grow(size_bytes)
        self._size_bytes += size_bytes

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self._budget.used_bytes -= self._size_bytes
        self._size_bytes = 0
