"""Which call a response answers, and how long it took. One for each run and kind of call; called by `context`."""

from __future__ import annotations

import time
from itertools import count
from typing import NamedTuple

_MOST_OPEN = 1_000  # calls never answered; beyond it the older half is forgotten


class OpenCall(NamedTuple):
    """A call waiting for its response; `began_s` is on the clock that only goes forward."""

    call_id: int
    name: str
    step_index: int
    began_s: float

    def elapsed_ms(self) -> float:
        """Milliseconds since the call, to a microsecond."""
        return round((time.perf_counter() - self.began_s) * 1000, 3)


class OpenCalls:
    """The open calls of one kind. Any thread may open and close; `ids` is shared by the kinds of a run."""

    __slots__ = ("_calls", "_ids")

    def __init__(self, ids: count[int]) -> None:
        self._ids = ids
        self._calls: dict[int, OpenCall] = {}

    def open(self, name: str, step_index: int) -> int:
        """Note a call; its id."""
        call_id = next(self._ids)
        self._calls[call_id] = OpenCall._make((call_id, name, step_index, time.perf_counter()))
        if len(self._calls) > _MOST_OPEN:
            self._forget()
        return call_id

    def _forget(self) -> None:
        for call_id in list(self._calls)[: _MOST_OPEN // 2]:
            self._calls.pop(call_id, None)

    def close(self, call_id: object, name: str) -> OpenCall | None:
        """The call with this id; without an id the latest open one of this name ("" = any), else None."""
        if type(call_id) is int:
            return self._calls.pop(call_id, None)
        for call in reversed(list(self._calls.values())):
            if not name or call.name == name:
                return self._calls.pop(call.call_id, None)
        return None
