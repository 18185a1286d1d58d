"""What came back from the model, for LLM_TRUNCATION_LOOP, EMPTY_LLM_RESPONSE and whoever asks how a run was answered.

Fed by the fold of `runs.RunState`, one answered LLM call at a time.
"""

from __future__ import annotations

from dunetrace.calls import Call


class Answers:
    """Answers of one sort. Steps are the wire's, of the calls they belong to; `last_llm_call` is the run's number of
    LLM calls when the last of them came."""

    __slots__ = ("completion_tokens", "count", "first_step", "last_llm_call", "last_step", "ms", "prompt_tokens")

    def __init__(self) -> None:
        self.count = self.first_step = self.last_step = self.last_llm_call = 0
        self.completion_tokens = self.prompt_tokens = 0
        self.ms = 0.0

    def add(self, call: Call, completion_tokens: int, llm_calls: int) -> None:
        if not self.count:
            self.first_step = call.step_index
        self.count += 1
        self.last_step = call.step_index
        self.last_llm_call = llm_calls
        self.completion_tokens += completion_tokens
        self.prompt_tokens += call.prompt_tokens
        self.ms += call.duration_ms or 0.0


class AnswerView:
    """`truncated`: cut off at the token limit; `empty`: known to hold nothing. `last` is the latest LLM call that was
    answered, and `last_finish_reason` how that answer ended ("" = unknown)."""

    __slots__ = ("empty", "last", "last_finish_reason", "truncated")

    def __init__(self) -> None:
        self.truncated, self.empty = Answers(), Answers()
        self.last: Call | None = None
        self.last_finish_reason = ""

    def answered(self, call: Call, finish_reason: str, completion_tokens: int, llm_calls: int) -> None:
        """Take in the answer to `call`, the run having made `llm_calls` LLM calls so far."""
        if self.last is None or call.number > self.last.number:
            self.last, self.last_finish_reason = call, finish_reason
        if finish_reason == "length":
            self.truncated.add(call, completion_tokens, llm_calls)
        if call.empty:
            self.empty.add(call, completion_tokens, llm_calls)
