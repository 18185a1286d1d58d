"""Stretches of reasoning between two turns of the user. Fed by the fold of `runs.RunState`, one call at a time."""

from __future__ import annotations

MAX_STRETCH_CALLS = 100  # the largest number of LLM calls a threshold may ask for


class Tail:
    """LLM calls after an act, the wire's step of the first of them, and the run's totals before it."""

    __slots__ = ("first_step", "llm_calls", "ms_before", "tokens_before")

    def __init__(self) -> None:
        self.llm_calls = self.first_step = self.tokens_before = 0
        self.ms_before = 0.0

    def llm_called(self, step_index: int, tokens: int, llm_ms: float) -> None:
        """`tokens` and `llm_ms` are the run's totals before this call."""
        if not self.llm_calls:
            self.first_step, self.tokens_before, self.ms_before = step_index, tokens, llm_ms
        self.llm_calls += 1


class Stretch:
    """LLM calls and acts (tool and retrieval calls) between two turns of the user.

    An LLM call is `idle` when the next one follows it with no act in between. `asked` counts LLM calls that ended by
    asking for a tool: an act the agent may not report. `tail` is what follows the last act of either sort.
    """

    __slots__ = ("_asked", "_last_was_llm", "_ms", "_tokens", "act_step", "first_step", "idle_calls", "idle_ms",
                 "idle_tokens", "last_step", "llm_calls", "reported", "tail")  # fmt: skip

    def __init__(self) -> None:
        self.llm_calls = self.idle_calls = self.idle_tokens = 0
        self.idle_ms = 0.0
        self.first_step = self.last_step = 0
        self.reported = self.act_step = self._asked = self._tokens = 0
        self.tail = Tail()
        self._ms = 0.0
        self._last_was_llm = False

    def llm_called(self, step_index: int, tokens: int, llm_ms: float) -> None:
        """`tokens` and `llm_ms` are the run's totals before this call."""
        if self._last_was_llm:
            self.idle_calls += 1
            self.idle_tokens += tokens - self._tokens
            self.idle_ms += llm_ms - self._ms
        if not self.llm_calls:
            self.first_step = step_index
        self.tail.llm_called(step_index, tokens, llm_ms)
        self.llm_calls += 1
        self.last_step = step_index
        self._tokens, self._ms, self._last_was_llm = tokens, llm_ms, True

    def acted(self, step_index: int) -> None:
        self.reported += 1
        self.act_step = step_index
        self.tail = Tail()
        self._last_was_llm = False

    def asked_for_tool(self) -> None:
        self._asked += 1
        self.tail = Tail()

    @property
    def acts(self) -> int:
        return max(self.reported, self._asked)

    @property
    def ratio(self) -> float:
        """LLM calls per act; with no act at all, per one."""
        return self.llm_calls / max(1, self.acts)


class StretchView:
    """The stretch going on, and for each number of LLM calls the closed stretch that acted least.

    `asked` counts the LLM calls of the whole run that ended by asking for a tool.
    """

    __slots__ = ("_closed", "asked", "now")

    def __init__(self) -> None:
        self.now = Stretch()
        self.asked = 0
        self._closed: dict[int, Stretch] = {}

    def asked_for_tool(self) -> None:
        self.asked += 1
        self.now.asked_for_tool()

    def turn(self) -> None:
        done, self.now = self.now, Stretch()
        place = min(done.llm_calls, MAX_STRETCH_CALLS)
        held = self._closed.get(place)
        if done.llm_calls and (held is None or (held.ratio, held.llm_calls) < (done.ratio, done.llm_calls)):
            self._closed[place] = done

    def worst(self, min_llm_calls: int) -> Stretch | None:
        """Of the stretches with at least `min_llm_calls` LLM calls the one with the highest ratio."""
        found = [s for s in (*self._closed.values(), self.now) if s.llm_calls >= min_llm_calls]
        return max(found, key=lambda stretch: (stretch.ratio, stretch.llm_calls), default=None)

    @property
    def entries(self) -> int:
        return len(self._closed) + 1
