"""Calls made again within one turn of the user, however far apart, for TOOL_LOOP. Fed by `views.loops`."""

from __future__ import annotations

from collections import OrderedDict
from typing import NamedTuple

from dunetrace.calls import Call

MAX_CALLS = 200  # different ones of a turn that are remembered


class Again(NamedTuple):
    """What a turn had at its worst. `most` is how often one call was repeated, `different` how many calls were."""

    different: int
    most: int
    repeats: int
    tool_name: str
    args_hash: str
    first_step: int
    last_step: int
    wasted_ms: float


NOTHING = Again(0, 0, 0, "", "", 0, 0, 0.0)


class AgainView:
    """`widest` is the turn in which most different calls were repeated, `deepest` that in which one was most often."""

    __slots__ = ("_first_step", "_made", "_repeated", "_wasted_ms", "deepest", "widest")

    def __init__(self) -> None:
        self._made: OrderedDict[tuple[str, str], int] = OrderedDict()  # the tool number it was last made at
        self._repeated: dict[tuple[str, str], int] = {}
        self._first_step = 0
        self._wasted_ms = 0.0
        self.widest = self.deepest = NOTHING

    def answered(self, call: Call) -> None:
        """A call with known arguments came back with success."""
        key = (call.name, call.args_hash)
        last = self._made.pop(key, None)
        self._made[key] = call.tool_number
        if len(self._made) > MAX_CALLS:
            self._repeated.pop(self._made.popitem(last=False)[0], None)
        # two tools in strict alternation are thrashing, and a call answered after a later one of its kind adds nothing
        if last is None or last >= call.alternating_since or last >= call.tool_number:
            return
        if not self._repeated:
            self._first_step = call.step_index
        self._repeated[key] = self._repeated.get(key, 0) + 1
        self._wasted_ms += call.duration_ms or 0.0
        now = Again(
            len(self._repeated), self._repeated[key], sum(self._repeated.values()), call.name, call.args_hash,
            self._first_step, call.step_index, self._wasted_ms,
        )  # fmt: skip
        if now[:3] > self.widest[:3]:
            self.widest = now
        if (now.most, now.repeats) > (self.deepest.most, self.deepest.repeats):
            self.deepest = now

    def turn(self) -> None:
        """The user spoke: whatever comes next starts afresh."""
        self._made.clear()
        self._repeated.clear()
        self._wasted_ms = 0.0

    @property
    def entries(self) -> int:
        """How many things are kept, for the estimate of bytes."""
        return len(self._made) + len(self._repeated)
