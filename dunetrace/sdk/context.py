"""A run as the agent sees it: what it did is said here, one method for each kind of event.

`RunContext` turns calls into records and pushes them into every output's ring. It is opened and ended by
`scope.RunScope`. Nothing here raises, whatever it is given, but a `DunetraceSignal` where the guard was asked to.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Sequence
from contextvars import ContextVar
from itertools import count
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple

from dunetrace.events import normalise_finish_reason
from dunetrace.hashing import agent_version
from dunetrace.sdk import lifecycle, plain
from dunetrace.sdk.content import Content, Late
from dunetrace.sdk.pairing import OpenCall, OpenCalls
from dunetrace.sdk.quiet import quiet
from dunetrace.sdk.ring import Record, Ring, RunKey, Segment
from dunetrace.sdk.settings import UNSET, Unset
from dunetrace.sdk.signal import DunetraceSignal

if TYPE_CHECKING:
    from dunetrace.runs import RunState
    from dunetrace.sdk.guard import Guard

HISTORY_EVENTS: Final = 2_000  # what `state` can still be folded from when it is asked for late
numbers = count(1)  # one for each event of this process

current_run: ContextVar[RunContext | None] = ContextVar("dunetrace_run", default=None)


def get_current_run() -> RunContext | None:
    """The innermost run open in this task or thread, None outside of any.

    A thread that outlives the run it was started in is outside of any from then on.
    """
    run = current_run.get()
    return None if run is None or run.has_ended else run


class Recorder(NamedTuple):
    """What a run needs of its client; `version` is the SDK's, as `run.started` says it."""

    rings: Sequence[Ring]
    content: Content
    version: str
    disabled: bool
    guard: Guard | None = None


class RunPlan(NamedTuple):
    """What `Dunetrace.run` was told."""

    agent_id: str
    user_input: object
    system_prompt: object
    model: object
    tools: object
    parent_run_id: object
    run_id: object
    task: object


class RunContext:
    """One run. Made by `Dunetrace.run`; its methods may be called from any thread.

    `step` counts the calls begun so far; `exit_reason` is "" while the run goes on, then "final_answer", "completed" or
    "errored".
    """

    def __init__(self, plan: RunPlan, recorder: Recorder, parent_run_id: str | None) -> None:
        tools = plain.names(plan.tools)
        model = plain.name(plan.model)
        version = agent_version(plain.text(plan.system_prompt), model, tools)
        run_id = plain.name(plan.run_id) or _uuid4()
        self._key = RunKey(run_id, plan.agent_id, version, parent_run_id)
        self.run_id, self.agent_id, self.agent_version, self.parent_run_id = self._key
        self._recorder = recorder
        self._content = recorder.content
        self._segments = [Segment(ring) for ring in recorder.rings]
        self._guard = None if recorder.guard is None else recorder.guard.watch(run_id)
        self._process_token = lifecycle.process.token
        self._steps = count(1)
        self._call_ids = count(1)
        self._llm, self._tool, self._retrieval = (OpenCalls(self._call_ids) for _ in range(3))
        self._tool_calls = 0
        self._ended = False
        self._history: deque[Record] = deque(maxlen=HISTORY_EVENTS)
        self._state: RunState | None = None
        self.step = 0
        self.exit_reason = ""
        self._begin(plan, model, tools)

    @property
    def has_ended(self) -> bool:
        """Whether the run was left."""
        return self._ended

    @property
    def state(self) -> RunState:
        """What the server would know of the run by now: the shared fold, over its last 2,000 events at least."""
        from dunetrace.runs import RunState  # noqa: PLC0415 - only for those who ask

        if self._state is None:
            self._state = RunState(self.run_id)
        try:
            while True:
                record = self._history.popleft()
                self._state.fold(record.event(record.content()))
        except IndexError:
            self._state.as_of = time.time()
        return self._state

    # ---- what the agent says

    @quiet(fallback=0)
    def llm_called(self, model: str, prompt_tokens: int | None = 0) -> int:
        """The model is called with a prompt of `prompt_tokens`. The call's id, for `llm_responded`.

        >>> call = run.llm_called("gpt-4o", prompt_tokens=180)
        """
        return self._call(
            "llm.called", self._llm, {"model": plain.name(model), "prompt_tokens": plain.count(prompt_tokens)}
        )

    @quiet(fallback=None)
    def llm_responded(
        self,
        completion_tokens: int | None = 0,
        latency_ms: float | Unset | None = UNSET,
        finish_reason: str | None = "stop",
        output_hash: str = "",
        output_length: int | None = None,
        *,
        output: object = None,
        prompt_tokens: int | None = None,
        cached_prompt_tokens: int | None = None,
        error: object = None,
        call_id: int | None = None,
    ) -> None:
        """The model answered. `output` is hashed and measured; the latency is measured when it is left out.

        `cached_prompt_tokens` are those of the prompt that the provider read from its cache, for what the run costs.
        `error`, hashed, is why there is no whole answer; `finish_reason` is None then.

        >>> call = run.llm_called("gpt-4o")
        >>> run.llm_responded(completion_tokens=22, finish_reason="stop", output="In section 3.", call_id=call)
        """
        call = self._llm.close(call_id, "")
        payload = {
            "completion_tokens": plain.count(completion_tokens),
            "prompt_tokens": plain.count(prompt_tokens),
            "cached_prompt_tokens": plain.count(cached_prompt_tokens),
            "latency_ms": _latency_ms(latency_ms, call),
            "finish_reason": None if finish_reason is None else normalise_finish_reason(plain.text(finish_reason)),
            "output_length": plain.count(output_length),
        }
        if output is None:
            payload["output_hash"] = self._content.digest(plain.text(output_hash))
        self._answer("llm.responded", call, payload, self._outcome(output, error))

    @quiet(fallback=0)
    def tool_called(self, tool_name: str, args: object = None) -> int:
        """A tool is called. `args` is hashed as canonical JSON. The call's id, for `tool_responded`.

        >>> call = run.tool_called("search", {"query": "refunds"})
        """
        self._tool_calls += 1
        name = plain.name(tool_name)
        late = self._content.args({} if args is None else args)
        return self._call("tool.called", self._tool, {"tool_name": name}, (late,), name)

    @quiet(fallback=None)
    def tool_responded(
        self,
        tool_name: str,
        success: bool = True,
        output_length: int | Unset | None = UNSET,
        latency_ms: float | Unset | None = UNSET,
        error: object = None,
        *,
        output: object = None,
        call_id: int | None = None,
    ) -> None:
        """A tool gave a result or failed. `output` and `error` are hashed and measured.

        >>> call = run.tool_called("search", {"query": "refunds"})
        >>> run.tool_responded("search", success=False, error="timed out", call_id=call)
        """
        name = plain.name(tool_name)
        call = self._tool.close(call_id, name)
        payload = {
            "tool_name": name,
            "success": bool(success),
            "output_length": None if output_length is UNSET else plain.count(output_length),
            "latency_ms": _latency_ms(latency_ms, call),
        }
        self._answer("tool.responded", call, payload, self._outcome(output, error))

    @quiet(fallback=0)
    def retrieval_called(self, index_name: str, query_hash: str = "", *, query: object = None) -> int:
        """An index is searched. `query` is hashed. The call's id.

        >>> call = run.retrieval_called("policies", query="refunds")
        """
        name = plain.name(index_name)
        payload: dict[str, Any] = {"index_name": name}
        if query is None:
            payload["query_hash"] = self._content.digest(plain.text(query_hash))
        late = () if query is None else (self._content.query(query),)
        return self._call("retrieval.called", self._retrieval, payload, late, name)

    @quiet(fallback=None)
    def retrieval_responded(
        self,
        index_name: str,
        result_count: int,
        top_score: float | None = None,
        latency_ms: float | Unset | None = UNSET,
        *,
        content: object = None,
        call_id: int | None = None,
    ) -> None:
        """The index gave `result_count` results, the best with `top_score`. `content` is hashed and measured.

        >>> call = run.retrieval_called("policies", query="refunds")
        >>> run.retrieval_responded("policies", 4, top_score=0.71, call_id=call)
        """
        name = plain.name(index_name)
        call = self._retrieval.close(call_id, name)
        payload = {
            "index_name": name,
            "result_count": plain.count(result_count),
            "top_score": plain.score(top_score),
            "latency_ms": _latency_ms(latency_ms, call),
        }
        late = () if content is None else (self._content.retrieved(content),)
        self._answer("retrieval.responded", call, payload, late)

    @quiet(fallback=None)
    def external_signal(self, signal_name: str, source: str = "", **meta: object) -> None:
        """Something outside of the agent happened. Numbers and flags of `meta` travel, text is hashed and measured.

        >>> run.external_signal("rate_limit", source="model", http_status=429)
        """
        payload = {"signal_name": plain.name(signal_name), "source": plain.name(source)}
        self._emit("external.signal", self.step, payload, (self._content.meta(meta),))

    @quiet(fallback=None)
    def user_message(self, text: str) -> None:
        """A further turn of the user inside this run. Scanned for injection and hashed.

        >>> run.user_message("I meant my second order.")
        """
        self._emit("user.message", self.step, {}, (self._content.user_message(text),))

    @quiet(fallback=None)
    def final_answer(self) -> None:
        """The agent has given its answer: the run will end as `final_answer`.

        >>> run.final_answer()
        """
        if not self._ended:
            self.exit_reason = "final_answer"

    # ---- begin and end

    def _begin(self, plan: RunPlan, model: str, tools: list[str]) -> None:
        payload = {"model": model, "tools": tools, "sdk": self._recorder.version}
        late: list[Late] = []
        if plan.user_input is None or plan.user_input == "":
            payload["input_hash"] = ""
        else:
            late.append(self._content.run_input(plan.user_input))
        if plan.task is not None:
            late.append(self._content.task(plan.task))
        try:
            self._emit("run.started", 0, payload, tuple(late), edge="start")
        except DunetraceSignal as signal:  # out of `with dt.run(...)` itself, so nobody else will end it
            self.end(signal)
            raise

    @quiet(fallback=None)
    def end(self, error: BaseException | None) -> None:
        """Say how the run ended, once, and only in the process it was opened in. Called by `RunScope`."""
        if self._ended or self._process_token != lifecycle.process.token:
            return
        self._ended = True
        if error is None:
            self.exit_reason = self.exit_reason or "completed"
            payload = {"total_steps": self.step, "exit_reason": self.exit_reason, "tool_call_count": self._tool_calls}
            self._emit("run.completed", self.step, payload, edge="end")
        else:
            self.exit_reason = "errored"
            payload = {"error_type": plain.name(type(error).__name__), "step_index": self.step}
            self._emit("run.errored", self.step, payload, (self._content.error(error),), edge="end")

    # ---- how events are made

    def _outcome(self, output: object, error: object) -> tuple[Late, ...]:
        if output is None:
            return () if error is None else (self._content.error(error),)
        late = self._content.output(output)
        return (late,) if error is None else (late, self._content.error(error))

    def _call(
        self, event_type: str, kind: OpenCalls, payload: dict[str, Any], late: tuple[Late, ...] = (), name: str = ""
    ) -> int:
        step = self.step = next(self._steps)
        payload["call_id"] = call_id = kind.open(name, step)
        self._emit(event_type, step, payload, late)
        return call_id

    def _answer(self, event_type: str, call: OpenCall | None, payload: dict[str, Any], late: tuple[Late, ...]) -> None:
        if None in payload.values():
            payload = {key: value for key, value in payload.items() if value is not None}
        if call is not None:
            payload["call_id"] = call.call_id
        self._emit(event_type, self.step if call is None else call.step_index, payload, late)

    def _emit(
        self,
        event_type: str,
        step_index: int,
        payload: dict[str, Any],
        late: tuple[Late, ...] = (),
        edge: Literal["", "start", "end"] = "",
    ) -> None:
        if self._recorder.disabled:
            return
        # _make skips a call: this line is what every event costs the agent
        record = Record._make((event_type, self._key, step_index, time.time(), next(numbers), payload, late, edge))
        self._history.append(record)
        for segment in self._segments:
            segment.push(record)
        if self._guard is not None:
            self._guard.saw(record)


def _uuid4() -> str:
    """A random UUID, as `uuid` writes it; importing that module costs a tenth of the SDK's import time."""
    digits = f"{(int.from_bytes(os.urandom(16)) & ~(0xF << 76) & ~(3 << 62)) | 4 << 76 | 2 << 62:032x}"
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


def _latency_ms(given: object, call: OpenCall | None) -> float | None:
    if isinstance(given, Unset):
        return None if call is None else call.elapsed_ms()
    return plain.duration(given)
