"""The calls of a run and which response belongs to which: the part of the fold that pairs events.

Used by `runs.RunState` alone. Every structure here is bounded, so that a run that never answers costs no more than one
that does.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING

from dunetrace.events import Event

if TYPE_CHECKING:
    from dunetrace.views.loops import Repeat
    from dunetrace.views.spending import Spent

MAX_OPEN_CALLS = 256  # of one kind; the oldest is forgotten first, and counts as unanswered


class CallKind(StrEnum):
    LLM = "llm"
    TOOL = "tool"
    RETRIEVAL = "retrieval"


CALL_KINDS = tuple(CallKind)  # going through an enum itself costs as much as folding an event


class Call:
    """One initiating event and what became of it.

    `position` counts the run's events, `number` its initiating events and `tool_number` its tool calls, each from 1.
    `duration_ms` and `failed` are None until it is answered. Of LLM calls: `empty` says whether the answer ended in
    `stop` with nothing in it, None where that is not known; `prompt_tokens`, and `cached_tokens` of them, are 0 where
    not known; to `spent` its tokens are added. Times are Unix seconds.
    """

    __slots__ = (
        "alternating_since", "args_hash", "cached_tokens", "call_id", "duration_ms", "empty", "failed", "kind", "name",
        "number", "position", "prompt_tokens", "received_at", "repeat", "shape_hash", "spent", "step_index",
        "timestamp", "tool_number",
    )  # fmt: skip

    def __init__(self, kind: CallKind, name: str, event: Event) -> None:
        self.kind = kind
        self.name = name
        self.call_id: int | str | None = event.payload.get("call_id")
        self.step_index = event.step_index
        self.timestamp = event.timestamp
        self.received_at = event.received_at
        self.position = self.number = self.tool_number = self.alternating_since = 0
        self.args_hash = self.shape_hash = ""
        self.prompt_tokens = self.cached_tokens = 0
        self.spent: Spent | None = None
        self.empty: bool | None = None
        self.repeat: Repeat | None = None
        self.failed: bool | None = None
        self.duration_ms: float | None = None

    @property
    def answered(self) -> bool:
        return self.duration_ms is not None


class OpenCalls:
    """The calls of one kind that nothing has answered yet."""

    __slots__ = ("_by_id", "_by_number", "_last_answered")

    def __init__(self) -> None:
        self._by_number: dict[int, Call] = {}
        self._by_id: dict[int | str, Call] = {}
        self._last_answered = 0

    def __len__(self) -> int:
        return len(self._by_number)

    def open(self, call: Call) -> None:
        if len(self._by_number) >= MAX_OPEN_CALLS:
            self._close(next(iter(self._by_number.values())))
        self._by_number[call.number] = call
        if call.call_id is not None:
            self._by_id[call.call_id] = call

    def answer(self, call_id: int | str | None, name: str, step_index: int) -> Call | None:
        """Close and return the call a response belongs to; None when there is none."""
        call = self._by_id.get(call_id) if call_id is not None else None
        if call is None:
            call = self._find(call_id, name, step_index)
        if call is not None:
            self._close(call)
            self._last_answered = max(self._last_answered, call.number)
        return call

    def is_unanswered(self, call: Call) -> bool:
        """Whether a later call was answered and this one was not: its outcome is unknown for good."""
        return not call.answered and (call.number < self._last_answered or call.number not in self._by_number)

    def _find(self, call_id: int | str | None, name: str, step_index: int) -> Call | None:
        latest: Call | None = None
        for call in reversed(self._by_number.values()):
            if name and call.name != name:
                continue
            if call_id is not None and call.call_id is not None:
                continue  # both are numbered, and the numbers differ: another call's answer
            if name or call.step_index == step_index:
                return call
            latest = latest or call
        return latest

    def _close(self, call: Call) -> None:
        del self._by_number[call.number]
        if call.call_id is not None and self._by_id.get(call.call_id) is call:
            del self._by_id[call.call_id]
