"""How long calls took, for SLOW_STEP. Fed by the fold of `runs.RunState`, one answered call at a time."""

from __future__ import annotations

from bisect import insort

from dunetrace.calls import CALL_KINDS, Call

MAX_SLOWEST = 20  # durations kept of each kind


class Durations:
    """Of the calls of one kind: the slowest, and the longest durations in ms, shortest first."""

    __slots__ = ("longest_ms", "slowest")

    def __init__(self) -> None:
        self.slowest: Call | None = None
        self.longest_ms: list[float] = []

    def add(self, call: Call, duration_ms: float) -> None:
        if len(self.longest_ms) == MAX_SLOWEST:
            if duration_ms <= self.longest_ms[0]:
                return
            del self.longest_ms[0]
        if not self.longest_ms or duration_ms > self.longest_ms[-1]:
            self.slowest = call
        insort(self.longest_ms, duration_ms)


class DurationView:
    """Durations by kind of call."""

    __slots__ = ("by_kind",)

    def __init__(self) -> None:
        self.by_kind = {kind: Durations() for kind in CALL_KINDS}

    def answered(self, call: Call) -> None:
        if call.duration_ms is not None:
            self.by_kind[call.kind].add(call, call.duration_ms)
