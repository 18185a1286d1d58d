"""Runs of every shape, as contract-shaped events: what the load generator sends.

Each event of a run has a timestamp of its own (microseconds apart), so that (run_id, timestamp) names it in the ledger
and in the database, whether or not it carries an ``event_id``.
"""

from __future__ import annotations

import hashlib
import random
import uuid
from collections.abc import Callable
from typing import Any

Event = dict[str, Any]
TICK_S = 0.001


class Script:
    """Writes one run's events. `step` follows the layout in which a response repeats its call's step."""

    def __init__(self, rng: random.Random, agent_id: str, start: float, parent: str | None = None) -> None:
        self.rng, self.agent_id, self.parent = rng, agent_id, parent
        self.run_id = str(uuid.UUID(int=rng.getrandbits(128), version=4))
        self.events: list[Event] = []
        self.step = 0
        self._now = start
        self._ids = rng.random() < 0.5  # half of the runs name their events, half rely on the Idempotency-Key

    def add(self, event_type: str, **payload: Any) -> None:
        self._now += TICK_S
        event: Event = {
            "event_type": event_type,
            "run_id": self.run_id,
            "agent_id": self.agent_id,
            "agent_version": "0a1b2c3d",
            "step_index": self.step,
            "timestamp": round(self._now, 6),
            "payload": payload,
            "parent_run_id": self.parent,
        }
        if self._ids:
            event["event_id"] = f"{self.run_id[:8]}-{len(self.events)}"
        self.events.append(event)

    def begin(self, **extra: Any) -> None:
        self.add("run.started", input_hash=self.digest(), model="gpt-4o", tools=["search", "read"], **extra)

    def llm(self, finish_reason: str = "tool_calls") -> None:
        self.step += 1
        self.add("llm.called", model="gpt-4o", prompt_tokens=self.rng.randint(100, 900))
        self.add(
            "llm.responded", completion_tokens=self.rng.randint(5, 90), latency_ms=12, finish_reason=finish_reason,
            output_hash=self.digest(), output_length=self.rng.randint(1, 400),
        )  # fmt: skip

    def tool(self, name: str, args_hash: str | None = None, *, success: bool = True) -> None:
        self.step += 1
        self.add("tool.called", tool_name=name, args_hash=args_hash or self.digest())
        outcome = {"output_hash": self.digest()} if success else {"error_hash": self.digest()}
        self.add("tool.responded", tool_name=name, success=success, output_length=7, latency_ms=3, **outcome)

    def complete(self) -> None:
        self.add("run.completed", total_steps=self.step, exit_reason="final_answer", tool_call_count=self.step // 2)

    def digest(self) -> str:
        return hashlib.sha256(self.rng.randbytes(16)).hexdigest()


def healthy(script: Script) -> None:
    script.begin()
    for name in ("search", "read"):
        script.llm()
        script.tool(name)
    script.llm("stop")
    script.complete()


def looping(script: Script) -> None:
    """The same call five times."""
    script.begin()
    same = script.digest()
    for _ in range(5):
        script.llm()
        script.tool("search", same)
    script.complete()


def injected(script: Script) -> None:
    found = {"matched_pattern_count": 1, "matched_patterns": ["ignore_instructions"], "input_length": 60}
    script.begin(injection_signal={**found, "scan_truncated": False, "scanned_chars": 60})
    script.llm("stop")
    script.complete()


def errored(script: Script) -> None:
    script.begin()
    script.llm()
    script.tool("read", success=False)
    script.add("run.errored", error_type="TimeoutError", error_hash=script.digest(), step_index=script.step)


def unending(script: Script) -> None:
    """Never says that it is over."""
    script.begin()
    for _ in range(script.rng.randint(1, 4)):
        script.llm()
        script.tool("search")


def many_steps(script: Script) -> None:
    script.begin()
    for turn in range(20):
        script.llm()
        script.tool(("search", "read", "write")[turn % 3])
    script.llm("stop")
    script.complete()


SHAPES: tuple[tuple[Callable[[Script], None], int], ...] = (
    (healthy, 12), (looping, 3), (injected, 1), (errored, 2), (unending, 2), (many_steps, 1),
)  # fmt: skip


def run_events(rng: random.Random, agent_id: str, start: float) -> list[Event]:
    """The events of one run of a random shape; now and then of a run and the one it was opened in."""
    shapes, weights = zip(*SHAPES, strict=True)
    outer = Script(rng, agent_id, start)
    if rng.random() < 0.1:
        inner = Script(rng, f"{agent_id}-child", start + 0.05, parent=outer.run_id)
        healthy(inner)
        looping(outer)
        return sorted(outer.events + inner.events, key=lambda event: float(event["timestamp"]))
    rng.choices(shapes, weights)[0](outer)
    return outer.events
