"""Builds runs for tests: a `Script` writes the events a client sends, in either step layout."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from typing import Any

from dunetrace.events import Event
from dunetrace.runs import RunState


def digest(text: object) -> str:
    return hashlib.sha256(str(text).encode()).hexdigest()


def in_order(events: Iterable[Event]) -> list[Event]:
    """Events as the caller of the fold sorts them; arrival is the order they come in."""
    return sorted(events, key=lambda event: (event.timestamp, event.step_index))


def folded(events: Iterable[Event], run_id: str = "run-1") -> RunState:
    run = RunState(run_id)
    for event in events:
        run.fold(event)
    return run


def _over(given: dict[str, Any], **otherwise: Any) -> dict[str, Any]:
    return otherwise | given


class Script:
    """One run, told call by call. `responses_advance` is the layout of the oldest published clients."""

    def __init__(self, run_id: str = "run-1", agent_id: str = "agent", *, responses_advance: bool = False) -> None:
        self.run_id, self.agent_id = run_id, agent_id
        self.responses_advance = responses_advance
        self.events: list[Event] = []
        self.now = 1_700_000_000.0
        self.step = 0

    def __iter__(self) -> Iterator[Event]:
        return iter(self.events)

    def emit(self, event_type: str, *, after_s: float = 0.1, parent: str | None = None, **payload: Any) -> Script:
        self.now = round(self.now + after_s, 6)
        self.events.append(
            Event(
                event_type, self.run_id, self.agent_id, "6ddeb0c4", self.step, self.now, payload, parent, self.now + 0.5
            )
        )
        return self

    def add(self, other: Script) -> Script:
        """What `other` tells happens next."""
        begun, step = self.now - Script().now, self.step
        for event in other:
            self.events.append(
                event._replace(
                    timestamp=event.timestamp + begun,
                    received_at=event.received_at + begun,
                    step_index=event.step_index + step,
                )
            )
        self.now, self.step = other.now + begun, step + other.step
        return self

    def started(self, **payload: Any) -> Script:
        return self.emit(
            "run.started", **_over(payload, input_hash=digest("hi"), model="gpt-4o", tools=["search", "book"])
        )

    def user(self, **payload: Any) -> Script:
        return self.emit("user.message", **_over(payload, input_hash=digest("more"), input_length=4))

    def llm_called(self, **payload: Any) -> Script:
        self.step += 1
        return self.emit("llm.called", **_over(payload, model="gpt-4o", prompt_tokens=100))

    def llm(
        self,
        finish_reason: str | None = "stop",
        *,
        prompt_tokens: int = 100,
        completion_tokens: int = 20,
        **payload: Any,
    ) -> Script:
        self.llm_called(prompt_tokens=prompt_tokens)
        self.step += self.responses_advance
        return self.emit(
            "llm.responded",
            after_s=0.8,
            completion_tokens=completion_tokens,
            finish_reason=finish_reason,
            **_over(payload, latency_ms=800, output_length=40),
        )

    def called(self, name: str = "search", args: object = None, **payload: Any) -> Script:
        self.step += 1
        if args is not None:
            payload["args_hash"] = digest(args)
        return self.emit("tool.called", tool_name=name, **payload)

    def responded(
        self, name: str = "search", *, output: object = None, ok: bool = True, error: str = "boom", **payload: Any
    ) -> Script:
        self.step += self.responses_advance
        if output is not None:
            payload["output_hash"] = digest(output)
        if not ok:
            payload["error_hash"] = digest(error)
        return self.emit("tool.responded", after_s=0.2, tool_name=name, success=ok, **{"latency_ms": 200} | payload)

    def tool(self, name: str = "search", args: object = None, output: object = None, *, ok: bool = True) -> Script:
        return self.called(name, args).responded(name, output=output, ok=ok)

    def retrieval(self, index: str = "docs", count: int | None = 3, **payload: Any) -> Script:
        self.step += 1
        self.emit("retrieval.called", index_name=index, query_hash=digest("q"))
        self.step += self.responses_advance
        payload = _over(payload, result_count=count, top_score=0.8, latency_ms=30)
        return self.emit("retrieval.responded", index_name=index, **payload)

    def completed(self, exit_reason: str = "final_answer", **payload: Any) -> Script:
        return self.emit("run.completed", total_steps=self.step, exit_reason=exit_reason, **payload)

    def errored(self, **payload: Any) -> Script:
        return self.emit("run.errored", error_type="ValueError", error_hash=digest("e"), **payload)
