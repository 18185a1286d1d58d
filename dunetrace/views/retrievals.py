"""What retrievals brought, for RAG_EMPTY_RETRIEVAL. Fed by the fold of `runs.RunState`, one answer at a time."""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

from dunetrace.calls import Call

MAX_RETRIEVED = 50  # the last answers kept one by one


class Retrieved(NamedTuple):
    """One answered retrieval; `result_count` and `top_score` are None where they were not reported.

    `called_at` and `answered_at` count the run's events.
    """

    index_name: str
    step_index: int
    called_at: int
    answered_at: int
    duration_ms: float
    result_count: int | None
    top_score: float | None


class RetrievalView:
    """The last answered retrievals, in the order of their answers."""

    __slots__ = ("last",)

    def __init__(self) -> None:
        self.last: deque[Retrieved] = deque(maxlen=MAX_RETRIEVED)

    def answered(self, call: Call, position: int, result_count: int | None, top_score: float | None) -> None:
        """Take in the answer to `call`, which is the run's event number `position`."""
        ms = call.duration_ms or 0.0
        self.last.append(Retrieved(call.name, call.step_index, call.position, position, ms, result_count, top_score))

    @property
    def entries(self) -> int:
        """How many things are kept, for the estimate of bytes."""
        return len(self.last)
