"""RunState: what is known of a run, folded from its events one at a time.

Called by the poller (new events of a run, or all of them again) and by the SDK's guard. The caller gives events in the
order (timestamp, step_index, arrival). Folding costs O(1) an event and a bounded amount of memory, for finished and
running runs alike. Facts are kept here; windows, streaks and costs in `views`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from dunetrace.calls import CALL_KINDS, Call, CallKind, OpenCalls
from dunetrace.events import Event
from dunetrace.views.answers import AnswerView
from dunetrace.views.durations import DurationView
from dunetrace.views.failures import FailureView
from dunetrace.views.loops import LoopView
from dunetrace.views.prompts import PromptView
from dunetrace.views.retrievals import RetrievalView
from dunetrace.views.spending import SpendingView, Spent
from dunetrace.views.stretches import StretchView

MAX_STEPS = 2_000  # the last initiating events kept one by one
MAX_COUNT = 1_000_000_000  # the most one event may add to a total: sums stay within 64 bits
MAX_PATTERNS = 10
_LLM, _TOOL, _RETRIEVAL = CALL_KINDS


class Injection(NamedTuple):
    """What the scans of the run's inputs matched. `step_index` and `step_count` are the run's at the first of them.

    `matched_pattern_count`, `input_length` (characters) and `scan_truncated` belong to the input that matched most.
    """

    matched_pattern_count: int
    matched_patterns: tuple[str, ...]
    flagged_inputs: int
    input_length: int
    scan_truncated: bool
    step_index: int
    step_count: int


class RunState:
    """One run. Given by the caller: `as_of` (the server's time), `silent` (nothing was heard for the stall timeout),
    `baseline_steps` (step counts of earlier runs).

    `started_at` and `ended_at` are the client's clock, `started_received_at` and `last_received_at` the server's, all
    Unix seconds. `step_count` counts initiating events and `first_tool_step` is the first tool call's place among them
    (from 1), so that both step layouts give the same numbers.
    """

    __slots__ = (
        "_named", "_open", "agent_id", "agent_version", "answers", "as_of", "baseline_steps", "dropped_events",
        "durations", "ended_at", "error_type", "event_count", "exit_reason", "failures", "first_tool_step", "injection",
        "input_hash", "last_order", "last_received_at", "llm_calls", "llm_ms", "loops", "model", "parent_run_id",
        "prompts", "retrieval_calls", "retrievals", "run_id", "sdk", "silent", "spending", "started_at",
        "started_received_at", "step_count", "steps", "stretches", "task_hash", "terminal", "tool_calls", "tools",
        "total_tokens", "turns",
    )  # fmt: skip

    def __init__(self, run_id: str) -> None:
        self.run_id = run_id
        self.as_of = 0.0
        self.silent = False
        self.baseline_steps: tuple[int, ...] = ()
        self.agent_id = self.agent_version = self.model = self.sdk = self.input_hash = self.task_hash = ""
        self.parent_run_id: str | None = None
        self.tools: tuple[str, ...] = ()
        self.started_at = self.started_received_at = self.last_received_at = 0.0
        self.ended_at: float | None = None
        self.last_order: tuple[float, int] = (0.0, 0)
        self.event_count = self.step_count = self.llm_calls = self.tool_calls = self.retrieval_calls = 0
        self.turns = self.total_tokens = self.dropped_events = 0
        self.llm_ms = 0.0
        self.first_tool_step: int | None = None
        self.terminal = self.exit_reason = self.error_type = ""
        self.injection: Injection | None = None
        self.steps: deque[Call] = deque(maxlen=MAX_STEPS)
        self.loops = LoopView()
        self.stretches = StretchView()
        self.failures = FailureView()
        self.answers = AnswerView()
        self.prompts = PromptView()
        self.retrievals = RetrievalView()
        self.durations = DurationView()
        self.spending = SpendingView()
        self._open = {kind: OpenCalls() for kind in CALL_KINDS}
        self._named = False

    def fold(self, event: Event) -> None:
        """Take in one event. Never raises on an event that passed the privacy door; unknown types are only counted."""
        if not self.event_count:
            self._identify(event)
        self.event_count += 1
        self.last_order = (event.timestamp, event.step_index)
        self.last_received_at = max(self.last_received_at, event.received_at)
        if self.parent_run_id is None and event.parent_run_id:
            self.parent_run_id = event.parent_run_id
        handler = _HANDLERS.get(event.event_type)
        if handler is not None:
            handler(self, event)

    @property
    def hanging(self) -> Call | None:
        """The open call after which nothing more was heard of the run."""
        call = self.steps[-1] if self.steps else None
        return call if call is not None and not call.answered and call.position == self.event_count else None

    def is_unanswered(self, call: Call) -> bool:
        """Whether a later call of its kind was answered and this one was not: not slow, not failed, not hanging."""
        return self._open[call.kind].is_unanswered(call)

    def duration_ms(self, call: Call) -> float | None:
        """How long a call took, or has taken by the server's clock while it is open; None when it stays unanswered."""
        if call.answered:
            return call.duration_ms
        return None if self.is_unanswered(call) else max(0.0, (self.as_of - call.received_at) * 1000)

    @property
    def answered(self) -> bool:
        """Whether the run gave an answer: it said so, or it completed and its last answered LLM call ended in `stop`
        with something in it, as far as is known."""
        if self.terminal != "run.completed":
            return False
        last = self.answers.last
        said = last is not None and self.answers.last_finish_reason == "stop" and not last.empty
        return self.exit_reason == "final_answer" or (self.exit_reason == "completed" and said)

    @property
    def nbytes(self) -> int:
        """An estimate of the memory held."""
        open_calls = sum(map(len, self._open.values()))
        kept = self.loops.entries + self.stretches.entries + self.failures.entries + self.retrievals.entries
        return 8_000 + 560 * len(self.steps) + 500 * open_calls + 350 * kept

    # ---- one handler for each event type

    def _identify(self, event: Event) -> None:
        self.agent_id, self.agent_version = event.agent_id, event.agent_version
        self.started_at, self.started_received_at = event.timestamp, event.received_at

    def _run_started(self, event: Event) -> None:
        if self._named:
            return
        self._named = True
        self._identify(event)
        payload = event.payload
        self.model = payload.get("model") or self.model
        self.sdk = payload.get("sdk") or ""
        self.tools = tuple(payload.get("tools") or ())
        self.input_hash = payload.get("input_hash") or ""
        self.task_hash = payload.get("task_hash") or ""
        self._scan(event)

    def _user_message(self, event: Event) -> None:
        self.turns += 1
        self.loops.turn()
        self.stretches.turn()
        self._scan(event)

    def _scan(self, event: Event) -> None:
        found = event.payload.get("injection_signal")
        if not found:
            return
        labels = tuple(found.get("matched_patterns") or ())
        count = max(_count(found.get("matched_pattern_count")), len(labels))
        if not count:
            return
        held = self.injection or Injection(0, (), 0, 0, False, event.step_index, self.step_count)
        if count > held.matched_pattern_count:
            length, truncated = _count(found.get("input_length")), bool(found.get("scan_truncated"))
            held = held._replace(matched_pattern_count=count, input_length=length, scan_truncated=truncated)
        self.injection = held._replace(
            matched_patterns=tuple(dict.fromkeys((*held.matched_patterns, *labels)))[:MAX_PATTERNS],
            flagged_inputs=held.flagged_inputs + 1,
        )

    def _call(self, kind: CallKind, name: str, event: Event) -> Call:
        call = Call(kind, name, event)
        self.step_count += 1
        call.position, call.number = self.event_count, self.step_count
        self.steps.append(call)
        self._open[kind].open(call)
        return call

    def _answer(self, kind: CallKind, name: str, event: Event) -> Call | None:
        payload = event.payload
        call = self._open[kind].answer(payload.get("call_id"), name, event.step_index)
        if call is not None:
            elapsed_ms = (event.timestamp - call.timestamp) * 1000
            reported_ms = _count(payload.get("latency_ms"))
            call.duration_ms = elapsed_ms if elapsed_ms > reported_ms else float(reported_ms)
            call.failed = payload.get("success") is False
            self.durations.answered(call)
        return call

    def _llm_called(self, event: Event) -> None:
        payload = event.payload
        self.llm_calls += 1
        self.model = self.model or payload.get("model") or ""
        self.stretches.now.llm_called(event.step_index, self.total_tokens, self.llm_ms)
        call = self._call(_LLM, "", event)
        call.spent = self.spending.on(payload.get("model") or self.model)
        self._prompted(call, call.spent, payload)

    def _llm_responded(self, event: Event) -> None:
        payload = event.payload
        call = self._answer(_LLM, "", event)
        completion_tokens = _count(payload.get("completion_tokens"))
        finish_reason = payload.get("finish_reason") or ""
        spent = call.spent if call is not None and call.spent is not None else self.spending.on(self.model)
        self.total_tokens += completion_tokens
        spent.completion += completion_tokens
        self._prompted(call, spent, payload)
        if call is not None:
            call.empty = self._came_back_empty(payload)
            self.llm_ms += call.duration_ms or 0.0
            self.answers.answered(call, finish_reason, completion_tokens, self.llm_calls)
        if finish_reason == "tool_calls":
            self.stretches.asked_for_tool()

    def _prompted(self, call: Call | None, spent: Spent, payload: Mapping[str, Any]) -> None:
        """Count the prompt's tokens once, whether the call or its response says them; cached ones are part of them."""
        prompt_tokens = _count(payload.get("prompt_tokens"))
        cached_tokens = _count(payload.get("cached_prompt_tokens"))
        if call is None:
            self.total_tokens += prompt_tokens
            spent.prompt += prompt_tokens
            spent.cached += min(cached_tokens, prompt_tokens)
            return
        if prompt_tokens and not call.prompt_tokens:
            self.total_tokens += prompt_tokens
            spent.prompt += prompt_tokens
            call.prompt_tokens = prompt_tokens
            self.prompts.known(call)
        if cached_tokens and not call.cached_tokens:
            call.cached_tokens = min(cached_tokens, call.prompt_tokens)
            spent.cached += call.cached_tokens

    def _came_back_empty(self, payload: Mapping[str, Any]) -> bool | None:
        """Whether an answer ended in `stop` with nothing in it; None where that is not known.

        Published clients send 0 for a length they were not told. Ours leaves that out, so its 0 is believed.
        """
        finish_reason, length = payload.get("finish_reason"), payload.get("output_length")
        if length or finish_reason not in (None, "stop"):
            return False
        told = self.sdk or (payload.get("latency_ms") and not payload.get("completion_tokens"))
        return True if finish_reason and length is not None and told else None

    def _tool_called(self, event: Event) -> None:
        payload = event.payload
        self.tool_calls += 1
        call = self._call(_TOOL, payload.get("tool_name") or "", event)
        if self.first_tool_step is None:
            self.first_tool_step = call.number
        call.args_hash = payload.get("args_hash") or ""
        call.shape_hash = payload.get("args_shape_hash") or ""
        self.loops.called(call, self.total_tokens)
        self.stretches.now.acted(event.step_index)

    def _tool_responded(self, event: Event) -> None:
        payload = event.payload
        call = self._answer(_TOOL, payload.get("tool_name") or "", event)
        if call is not None:
            self.loops.answered(
                call,
                self.total_tokens,
                payload.get("output_hash") or "",
                _count(payload.get("output_length")),
                payload.get("error_hash") or "",
            )
            if call.failed:
                error = payload.get("error_shape_hash") or payload.get("error_hash") or ""
                self.failures.failed(call, error, self.total_tokens)
            else:
                self.failures.over()

    def _retrieval_called(self, event: Event) -> None:
        self.retrieval_calls += 1
        self._call(_RETRIEVAL, event.payload.get("index_name") or "", event)
        self.stretches.now.acted(event.step_index)

    def _retrieval_responded(self, event: Event) -> None:
        payload = event.payload
        call = self._answer(_RETRIEVAL, payload.get("index_name") or "", event)
        if call is not None:
            self.retrievals.answered(call, self.event_count, payload.get("result_count"), payload.get("top_score"))

    def _run_ended(self, event: Event) -> None:
        self.dropped_events = max(self.dropped_events, _count(event.payload.get("dropped_events")))
        if not self.terminal:
            self.terminal, self.ended_at = event.event_type, event.timestamp
            self.exit_reason = event.payload.get("exit_reason") or ""
            self.error_type = event.payload.get("error_type") or ""
            self.loops.alternations.ended()
            self.failures.over()


def _count(value: Any) -> int:
    """A payload's number as a count within 0..MAX_COUNT; what is missing counts 0."""
    if value is None:
        return 0
    if type(value) is int and 0 <= value <= MAX_COUNT:
        return value
    if isinstance(value, (int, float)) and value > 0:
        return int(min(value, MAX_COUNT))
    return 0


_HANDLERS: dict[str, Callable[[RunState, Event], None]] = {
    "run.started": RunState._run_started,
    "user.message": RunState._user_message,
    "llm.called": RunState._llm_called,
    "llm.responded": RunState._llm_responded,
    "tool.called": RunState._tool_called,
    "tool.responded": RunState._tool_responded,
    "retrieval.called": RunState._retrieval_called,
    "retrieval.responded": RunState._retrieval_responded,
    "run.completed": RunState._run_ended,
    "run.errored": RunState._run_ended,
}
