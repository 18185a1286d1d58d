"""How large the prompts were, for CONTEXT_BLOAT. Fed by the fold of `runs.RunState`, one LLM call at a time, as soon as
its prompt's tokens are known."""

from __future__ import annotations

from dunetrace.calls import Call


class PromptView:
    """LLM calls whose prompt tokens are known: the first, the last and the largest of them, how many and their sum.

    First and last go by the order of the calls, whichever was answered first.
    """

    __slots__ = ("count", "first", "largest", "last", "tokens")

    def __init__(self) -> None:
        self.first: Call | None = None
        self.last: Call | None = None
        self.largest: Call | None = None
        self.count = self.tokens = 0

    def known(self, call: Call) -> None:
        self.count += 1
        self.tokens += call.prompt_tokens
        if self.first is None or call.number < self.first.number:
            self.first = call
        if self.last is None or call.number > self.last.number:
            self.last = call
        if self.largest is None or call.prompt_tokens > self.largest.prompt_tokens:
            self.largest = call
