"""Faults put into a recorded run that has none, for failures the recorded runs do not show by themselves.

Each takes the events of a run that went well and gives those of the same run with one fault in it; the untouched run is
its negative twin.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from typing import Any

from dunetrace.events import Event
from dunetrace.injection import scan
from tests.detection.building import Script
from tests.shared import shared

Events = list[Event]
Fault = Callable[[Events], Events]


def _places(events: Events, event_type: str, **payload: Any) -> list[int]:
    """Where events of a type, with these entries in their payload, lie."""
    return [
        i
        for i, event in enumerate(events)
        if event.event_type == event_type and payload.items() <= event.payload.items()
    ]


def _until(events: Events, end: int) -> Script:
    """The run as it stands before event `end`, to be told on."""
    script = Script(events[0].run_id, events[0].agent_id)
    script.events = list(events[:end])
    script.now, script.step = script.events[-1].timestamp, script.events[-1].step_index
    return script


def _changed(events: Events, places: list[int], **payload: Any) -> Events:
    return [
        event._replace(payload={**event.payload, **payload}) if i in places else event for i, event in enumerate(events)
    ]


def _slow(event_type: str) -> Fault:
    return lambda events: _changed(events, _places(events, event_type)[2:3], latency_ms=64_200)


def _retrieved(count: int, top_score: float | None, latency_ms: int = 30) -> Fault:
    """The last answer rests on a retrieval."""

    def fault(events: Events) -> Events:
        script = _until(events, _places(events, "llm.called")[-1])
        script.retrieval("travel-policies", count, top_score=top_score, latency_ms=latency_ms)
        return script.llm().completed().events

    return fault


def _answers(places: slice, **payload: Any) -> Fault:
    """These of the answers to the customer are changed; the run is one of our own SDK's."""

    def fault(events: Events) -> Events:
        changed = _changed(events, _places(events, "llm.responded", finish_reason="stop")[places], **payload)
        return _changed(changed, [0], sdk="1.0.0")

    return fault


def _hanging(kind: str) -> Fault:
    def fault(events: Events) -> Events:
        if kind == "retrieval":
            script = _until(events, _places(events, "llm.called")[-1])
            script.step += 1
            return script.emit("retrieval.called", index_name="travel-policies").events
        return _until(events, _places(events, f"{kind}.called")[2] + 1).events

    return fault


def _failing(*failures: tuple[str, str], end: bool = True) -> Fault:
    """After the first tool call, calls of (tool, error) fail one after the other, and the customer is told."""

    def fault(events: Events) -> Events:
        script = _until(events, _places(events, "tool.responded")[0] + 1)
        for attempt, (name, error) in enumerate(failures):
            script.llm("tool_calls").called(name, attempt).responded(name, ok=False, error=error)
        return script.llm().completed().events if end else script.events

    return fault


def _swinging(events: Events) -> Events:
    script = _until(events, _places(events, "tool.responded")[0] + 1)
    for _ in range(4):
        for name in ("get_reservation_details", "get_user_details"):
            script.llm("tool_calls").called(name, name).responded(name, output=name)
    return script.llm().completed().events


def _without_tools(events: Events) -> Events:
    kept = [event for event in events if not event.event_type.startswith("tool.")]
    return _changed(kept, _places(kept, "llm.responded"), finish_reason="stop")


def _abandoned(events: Events) -> Events:
    script = _until(events, _places(events, "tool.responded")[-1] + 1)
    for _ in range(5):
        script.llm()
    return script.events


def _first_call_errored(events: Events) -> Events:
    return _until(_first_turn(events), 4).errored().events


def _first_call_failed(events: Events) -> Events:
    script = _until(_first_turn(events), 4)
    return script.responded(script.events[-1].payload["tool_name"], ok=False).completed("completed").events


def _first_turn(events: Events) -> Events:
    """The run as if the agent had called a tool at once."""
    call = _places(events, "tool.called")[0]
    return [events[0], *_until(events[:1], 1).llm("tool_calls").events[1:], events[call]._replace(step_index=2)]


def _under_attack(events: Events) -> Events:
    with gzip.open(shared("data/injection.jsonl.gz"), "rt", encoding="utf-8") as lines:
        attacks = (row["text"] for row in map(json.loads, lines) if row["label"] == 1)
        found = next(filter(None, map(scan, attacks)))
    return _changed(events, _places(events, "user.message")[:1], injection_signal=found.payload())


FAULTS: dict[str, Fault] = {
    "tool_thrashing": _swinging,
    "tool_avoidance": _without_tools,
    "goal_abandonment": _abandoned,
    "prompt_injection_signal": _under_attack,
    "rag_empty_retrieval.empty": _retrieved(0, None),
    "rag_empty_retrieval.low_score": _retrieved(5, 0.17),
    "llm_truncation_loop": _answers(slice(1, 3), finish_reason="length", completion_tokens=1_024),
    "slow_step.tool": _slow("tool.responded"),
    "slow_step.llm": _slow("llm.responded"),
    "slow_step.retrieval": _retrieved(5, 0.8, latency_ms=91_000),
    "slow_step.hanging_tool": _hanging("tool"),
    "slow_step.hanging_llm": _hanging("llm"),
    "slow_step.hanging_retrieval": _hanging("retrieval"),
    "empty_llm_response.single": _answers(slice(-1, None), output_length=0, completion_tokens=0),
    "empty_llm_response.repeated": _answers(slice(0, 2), output_length=0, completion_tokens=0),
    "cascading_tool_failure.same_error": _failing(
        *[(name, "expired") for name in ("get_user_details", "search_direct_flight", "get_user_details")]
    ),
    "cascading_tool_failure.errors": _failing(
        ("get_reservation_details", "not found"), ("search_direct_flight", "bad date"), ("book_reservation", "no user")
    ),
    "first_step_failure.errored": _first_call_errored,
    "first_step_failure.failed_call": _first_call_failed,
}
