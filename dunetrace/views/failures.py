"""Tool calls that fail in a row, for RETRY_STORM and CASCADING_TOOL_FAILURE. Fed by the fold of `runs.RunState`."""

from __future__ import annotations

from dunetrace.calls import Call

MAX_IN_A_ROW = 20  # the largest number of failures a threshold may ask for
MAX_TOOLS = 10  # names kept of one streak


class Failures:
    """Failed answers with no good one in between. What was spent counts from the first of them on.

    `same_error`: every answer told its error, and it was the same, ids and times aside. `same_arguments` likewise.
    `longest_row` is the most of them that one tool gave in a row.
    """

    __slots__ = ("_arguments", "_error", "_tokens_seen", "count", "first_step", "last_step", "longest_row",
                 "same_arguments", "same_error", "steps", "tools", "wasted_ms", "wasted_tokens")  # fmt: skip

    def __init__(self, call: Call, error: str, tokens: int) -> None:
        self.count = 0
        self.tools: tuple[str, ...] = ()
        self.steps: list[int] = []  # the wire's, of the first MAX_IN_A_ROW calls
        self.first_step = self.last_step = call.step_index
        self.longest_row = 0
        self.same_error, self.same_arguments = bool(error), bool(call.args_hash)
        self.wasted_ms = 0.0
        self.wasted_tokens = 0
        self._error, self._arguments, self._tokens_seen = error, call.args_hash, tokens

    def add(self, call: Call, error: str, tokens: int) -> None:
        if self.count:
            self.wasted_ms += call.duration_ms or 0.0
        self.count += 1
        self.wasted_tokens = tokens - self._tokens_seen
        self.same_error = self.same_error and error == self._error
        self.same_arguments = self.same_arguments and call.args_hash == self._arguments
        self.first_step = min(self.first_step, call.step_index)
        self.last_step = max(self.last_step, call.step_index)
        if len(self.steps) < MAX_IN_A_ROW:
            self.steps.append(call.step_index)
        if call.name not in self.tools and len(self.tools) < MAX_TOOLS:
            self.tools = (*self.tools, call.name)


class FailureView:
    """The streak going on, the longest row of one tool, and for each length of its longest row the longest streak."""

    __slots__ = ("_closed", "_row", "longest_row", "now")

    def __init__(self) -> None:
        self.now: Failures | None = None
        self.longest_row: Failures | None = None
        self._row: Failures | None = None
        self._closed: dict[int, Failures] = {}

    def failed(self, call: Call, error: str, tokens: int) -> None:
        """`error` is the digest of what it said, empty where that is not known; `tokens` the run's total so far."""
        if self.now is None:
            self.now = Failures(call, error, tokens)
        if self._row is None or self._row.tools != (call.name,):
            self._row = Failures(call, error, tokens)
        for failures in (self.now, self._row):
            failures.add(call, error, tokens)
        self.now.longest_row = max(self.now.longest_row, self._row.count)
        if self.longest_row is None or self._row.count > self.longest_row.count:
            self.longest_row = self._row

    def over(self) -> None:
        """A good answer, or the end of the run: the next failure starts a new streak."""
        done, self.now, self._row = self.now, None, None
        if done is None or len(done.tools) < 2:
            return
        place = min(done.longest_row, MAX_IN_A_ROW)
        held = self._closed.get(place)
        if held is None or held.count < done.count:
            self._closed[place] = done

    def longest_mixed(self, row_below: int, *, with_open: bool) -> Failures | None:
        """The longest streak across two tools or more in which none failed `row_below` times in a row."""
        if not (self._closed or with_open):
            return None
        streaks = [*self._closed.values(), self.now] if with_open else [*self._closed.values()]
        found = [s for s in streaks if s is not None and len(s.tools) > 1 and s.longest_row < row_below]
        return max(found, key=lambda streak: streak.count, default=None)

    @property
    def entries(self) -> int:
        """How many things are kept, for the estimate of bytes."""
        return len(self._closed) + 3
