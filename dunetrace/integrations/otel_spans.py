"""The spans of one run: `agent_run` and in it `llm_call`, `tool_call`, `retrieval`. Made by `otel` from its events.

What they are called and say is listed in docs/sdk/outputs.md; the names of attributes are in `otel_attributes`.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from hashlib import sha256
from typing import Any, Final, NamedTuple

from opentelemetry.context import Context
from opentelemetry.sdk.trace.id_generator import IdGenerator
from opentelemetry.trace import (
    Link,
    NonRecordingSpan,
    Span,
    SpanContext,
    Status,
    StatusCode,
    TraceFlags,
    Tracer,
    set_span_in_context,
)

from dunetrace.detectors.judging import Phase, judge
from dunetrace.detectors.thresholds import AgentLimits
from dunetrace.errors import DetectorError
from dunetrace.events import Event
from dunetrace.integrations.otel_attributes import CALLED, RESPONDED, RUN_NAMES, Kind, attributes_of, signal_attributes
from dunetrace.runs import RunState
from dunetrace.sdk import lifecycle
from dunetrace.sdk.ring import Segment
from dunetrace.signals import FailureSignal, Severity

MAX_OPEN_CALLS: Final = 1_000  # of a run; beyond it the oldest is ended
_SPAN_BYTES = 5_000  # what an open span takes, about
_UUID = re.compile(r"[0-9a-f]{32}|[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)
_LOW_HALF = 2**64 - 1


def root_context(run_id: str) -> SpanContext:
    """The ids of a run's `agent_run` span, the same in every process, so that anybody can link to it.

    The trace id is the number of the run's UUID; of a run_id that is none, the first 128 bits of the SHA-256 of its
    UTF-8, the last one set. The span id is the lower half of the trace id.
    """
    trace_id = int(run_id.replace("-", ""), 16) if _UUID.fullmatch(run_id) else 0
    if not trace_id & _LOW_HALF:
        trace_id = int.from_bytes(sha256(run_id.encode("utf-8", "replace")).digest()[:16]) | 1
    return SpanContext(trace_id, trace_id & _LOW_HALF, is_remote=True, trace_flags=TraceFlags(TraceFlags.SAMPLED))


class RunIds(IdGenerator):
    """Gives a span the ids in `root` while there are some, else random ones, which are not those the agent draws."""

    def __init__(self) -> None:
        self.root: SpanContext | None = None
        self._rng = random.Random()

    def generate_trace_id(self) -> int:
        return self._rng.getrandbits(128) or 1 if self.root is None else self.root.trace_id

    def generate_span_id(self) -> int:
        return self._rng.getrandbits(64) or 1 if self.root is None else self.root.span_id


class _OpenCall(NamedTuple):
    span: Span
    began_ns: int


class RunSpans:
    """One run's spans that are still open, and its fold, by which it is judged when it ends.

    The root is opened by `open_root`. Without one, as in a forked child or for a run whose root was closed early,
    calls are children of the root that another process, or an earlier moment, has made.
    """

    def __init__(self, segment: Segment, run_id: str, tracer: Tracer, ids: RunIds) -> None:
        self._segment = segment
        self.state = RunState(run_id)
        self.root: Span | None = None
        self._tracer = tracer
        self._ids = ids
        self._context = set_span_in_context(NonRecordingSpan(root_context(run_id)), Context())
        self._calls: dict[object, _OpenCall] = {}
        self._began_ns = 0

    @property
    def is_dropped(self) -> bool:
        """Whether the provider's sampler wants nothing of this run."""
        return self.root is not None and not self.root.is_recording()

    @property
    def nbytes(self) -> int:
        """An estimate of the memory held."""
        return self.state.nbytes + _SPAN_BYTES * (1 + len(self._calls))

    def open_root(self, event: Event) -> None:
        """Begin `agent_run` at `event`."""
        parent = event.parent_run_id
        attributes = {
            "dunetrace.agent_id": event.agent_id,
            "dunetrace.run_id": event.run_id,
            "dunetrace.agent_version": event.agent_version,
            "gen_ai.operation.name": "invoke_agent",
            "gen_ai.agent.name": event.agent_id,
            "gen_ai.agent.version": event.agent_version,
        } | ({"dunetrace.parent_run_id": parent} if parent else {})
        self._began_ns = _ns(event.timestamp)
        links = [Link(root_context(parent))] if parent else None
        self._ids.root = root_context(event.run_id)
        try:
            self.root = self._tracer.start_span(
                "agent_run", context=Context(), attributes=attributes, links=links, start_time=self._began_ns
            )
        finally:
            self._ids.root = None
        self._context = set_span_in_context(self.root, Context())

    def take(self, event: Event) -> None:
        """Take in one event of the run; one of another type than there are spans for is only folded."""
        if self.is_dropped:
            return
        self.state.fold(event)
        handler = _HANDLERS.get(event.event_type)
        if handler is not None:
            handler(self, event)

    def end(self, at: float, phase: Phase, limits: AgentLimits) -> None:
        """End every span at `at` (Unix seconds); judge the run, where its root is here, and say so on it."""
        for call in self._calls.values():
            call.span.set_attribute("dunetrace.unanswered", True)
            call.span.end(max(_ns(at), call.began_ns))
        self._calls.clear()
        if self.root is None or self.is_dropped:
            return
        self.state.as_of = at
        self.state.dropped_events = max(self.state.dropped_events, self._segment.lost)
        signals = sorted(self._judged(phase, limits), key=lambda signal: -signal.severity.rank)
        self._say(signals, phase)
        self.root.end(max(_ns(at), self._began_ns))

    # ---- events

    def _started(self, event: Event) -> None:
        if self.root is not None:
            payload = event.payload
            tools = {"tools": ",".join(payload["tools"])} if "tools" in payload else {}
            self.root.set_attributes(attributes_of(payload | tools, RUN_NAMES))

    def _called(self, event: Event) -> None:
        kind = CALLED[event.event_type]
        call = self._begin(kind, event, _ns(event.timestamp))
        self._calls[event.payload.get("call_id")] = call
        if len(self._calls) > MAX_OPEN_CALLS:
            oldest = self._calls.pop(next(iter(self._calls)))
            oldest.span.set_attribute("dunetrace.unanswered", True)
            oldest.span.end(max(_ns(event.timestamp), oldest.began_ns))

    def _responded(self, event: Event) -> None:
        kind, payload, at_ns = RESPONDED[event.event_type], event.payload, _ns(event.timestamp)
        call = self._calls.pop(payload.get("call_id"), None)
        if call is None:  # it was never said to begin
            call = self._begin(kind, event, at_ns - int((payload.get("latency_ms") or 0) * 1e6))
        attributes = attributes_of(payload, kind.names)
        if "finish_reason" in payload:
            attributes["gen_ai.response.finish_reasons"] = (payload["finish_reason"],)
        call.span.set_attributes(attributes)
        if payload.get("success") is False:
            call.span.set_status(Status(StatusCode.ERROR, kind.failure))
        elif payload.get("result_count") == 0:
            call.span.set_status(Status(StatusCode.ERROR, "retrieval returned 0 results"))
        call.span.end(max(at_ns, call.began_ns))

    def _begin(self, kind: Kind, event: Event, at_ns: int) -> _OpenCall:
        attributes = {
            "gen_ai.operation.name": kind.operation,
            "dunetrace.step_index": event.step_index,
            **attributes_of(event.payload, kind.names),
        }
        return _OpenCall(
            self._tracer.start_span(kind.span, self._context, attributes=attributes, start_time=at_ns), at_ns
        )

    def _signalled(self, event: Event) -> None:
        """An event on the call that is under way, else on the run."""
        latest = next(reversed(self._calls.values()), None)
        span = self.root if latest is None else latest.span
        if span is not None:
            meta = event.payload.get("meta") or {}
            payload = {key: value for key, value in event.payload.items() if key != "meta"}
            attributes = attributes_of(payload | {f"meta.{key}": value for key, value in meta.items()}, {})
            span.add_event(event.payload.get("signal_name") or "external_signal", attributes, _ns(event.timestamp))

    def _ended(self, event: Event) -> None:
        if self.root is not None:
            self.root.set_attributes(attributes_of(event.payload, RUN_NAMES))

    # ---- the end

    def _judged(self, phase: Phase, limits: AgentLimits) -> list[FailureSignal]:
        try:
            return judge(self.state, limits, phase)
        except DetectorError as error:
            lifecycle.debug(f"otel: {error}", once=f"otel {error}")
            return []

    def _say(self, signals: list[FailureSignal], phase: Phase) -> None:
        """What the run came to. Of more attributes than a span may have the oldest go: the mildest signals' here."""
        root, state = self.root, self.state
        assert root is not None
        attributes: dict[str, Any] = {}
        for index, signal in reversed(list(enumerate(signals))):
            attributes |= signal_attributes(f"dunetrace.signal.{index}", signal)
        attributes |= {
            "dunetrace.agent_id": state.agent_id,  # said again, so that they are not the oldest
            "dunetrace.run_id": state.run_id,
            "dunetrace.agent_version": state.agent_version,
            "dunetrace.signal_count": len(signals),
            "dunetrace.total_steps": state.step_count,
            "dunetrace.tool_call_count": state.tool_calls,
            "dunetrace.exit_reason": state.exit_reason or ("errored" if state.terminal else ""),
        }
        if state.dropped_events:
            attributes["dunetrace.dropped_events"] = state.dropped_events
        if phase is Phase.RUNNING:
            attributes["dunetrace.unfinished"] = True
        root.set_attributes(attributes)
        severe = [s for s in signals if s.severity.rank >= Severity.HIGH.rank and not s.shadow]
        if severe:
            root.set_status(Status(StatusCode.ERROR, f"{severe[0].failure_type} [{severe[0].severity}]"))
        elif state.terminal == "run.errored":
            root.set_status(Status(StatusCode.ERROR, state.error_type or "run errored"))


_HANDLERS: dict[str, Callable[[RunSpans, Event], None]] = {
    "run.started": RunSpans._started,
    **dict.fromkeys(CALLED, RunSpans._called),
    **dict.fromkeys(RESPONDED, RunSpans._responded),
    "external.signal": RunSpans._signalled,
    "run.completed": RunSpans._ended,
    "run.errored": RunSpans._ended,
}


def _ns(timestamp: float) -> int:
    return int(timestamp * 1e9)
