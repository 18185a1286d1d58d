"""Two tools in strict alternation, for TOOL_THRASHING. Fed by `views.loops.LoopView`, one tool call at a time."""

from __future__ import annotations

from dunetrace.calls import Call

MIN_WINDOW = 4  # the shortest alternation a threshold may ask for: two tools, twice each
MAX_WINDOW = 100  # the longest


class Alternation:
    """Tool calls A B A B … of exactly two tools, of which none was known to have failed when the next was made.

    It is `stale` as soon as it does not visibly lead on: arguments or an output that it had before, or that are not
    known. A call still open says nothing of its output either way. Once stale it stays so.
    """

    __slots__ = (
        "_arguments", "_last", "_last_output", "_outputs", "_tokens_seen", "answers", "first_number", "first_step",
        "last_step", "length", "stale", "steps", "tools", "wasted_ms", "wasted_tokens",
    )  # fmt: skip

    def __init__(self) -> None:
        self.tools: tuple[str, ...] = ()
        self.length = self.answers = self.first_number = self.first_step = self.last_step = 0
        self.steps: list[int] = []  # the wire's, of the first MAX_WINDOW calls
        self.stale = False
        self.wasted_tokens = self._tokens_seen = 0
        self.wasted_ms = 0.0
        self._arguments: dict[tuple[str, str], None] = {}
        self._outputs: dict[tuple[str, str], None] = {}
        self._last: Call | None = None
        self._last_output: str | None = None

    def takes(self, name: str) -> bool:
        """Whether a call of `name` carries the alternation on."""
        return name not in self.tools if self.length < 2 else name == self.tools[self.length % 2]

    def called(self, call: Call, tokens: int) -> None:
        if self.length < 2:
            self.tools = (*self.tools, call.name)
            self._tokens_seen = tokens
        else:
            self.wasted_tokens = tokens - self._tokens_seen
        if not self.length:
            self.first_number, self.first_step = call.tool_number, call.step_index
        self.length += 1
        self.last_step = call.step_index
        if self.length <= MAX_WINDOW:
            self.steps.append(call.step_index)
        self._last, self._last_output = call, None
        self.stale = not (call.args_hash and _is_new((call.name, call.args_hash), self._arguments)) or self.stale

    def answered(self, call: Call, output_hash: str) -> None:
        """A good answer to one of the calls; an empty hash is an output that is not known."""
        self.answers += 1
        if call is self._last:
            self._last_output = output_hash
        if call.tool_number >= self.first_number + 2:
            self.wasted_ms += call.duration_ms or 0.0
        self.stale = not (output_hash and _is_new((call.name, output_hash), self._outputs)) or self.stale

    def after(self, name: str, tokens: int) -> Alternation:
        """What a call of `name`, which does not carry this one on, makes a new start from: its last call or nothing."""
        fresh = Alternation()
        if self._last is not None and self._last.name != name:
            fresh.called(self._last, tokens)
            if self._last_output is not None:
                fresh.answered(self._last, self._last_output)
        return fresh

    @property
    def entries(self) -> int:
        return len(self._arguments) + len(self._outputs) + 2


class AlternationView:
    """The alternation going on, and the longest stale one of the run."""

    __slots__ = ("_now", "longest")

    def __init__(self) -> None:
        self._now = Alternation()
        self.longest: Alternation | None = None

    def called(self, call: Call, tokens: int) -> None:
        if not self._now.takes(call.name):
            self._now = self._now.after(call.name, tokens)
        self._now.called(call, tokens)
        self._note()

    def answered(self, call: Call, output_hash: str) -> None:
        if call.tool_number < self._now.first_number or not self._now.length:
            return
        if call.failed:
            self.turn()
        else:
            self._now.answered(call, output_hash)
            self._note()

    def turn(self) -> None:
        """The user spoke, or a call failed: whatever comes next starts afresh."""
        self._now = Alternation()

    def ended(self) -> None:
        """The run is over: where no outcome was ever told, the calls alone must do."""
        self._now.stale = self._now.stale or not self._now.answers
        self._note()

    def _note(self) -> None:
        now = self._now
        if now.stale and now.length > (MIN_WINDOW - 1 if self.longest is None else self.longest.length):
            self.longest = now

    @property
    def entries(self) -> int:
        """How many things are kept, for the estimate of bytes."""
        longest = self.longest.entries if self.longest is not None and self.longest is not self._now else 0
        return self._now.entries + longest


def _is_new(key: tuple[str, str], seen: dict[tuple[str, str], None]) -> bool:
    """Whether `key` is new among the last MAX_WINDOW different ones; it is remembered."""
    if key in seen:
        return False
    seen[key] = None
    if len(seen) > MAX_WINDOW:
        del seen[next(iter(seen))]
    return True
