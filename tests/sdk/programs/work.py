"""What every program's agent does, and what must be seen of it. A run's tools are named after the run."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

from dunetrace import Dunetrace

CALLS = 3
EVENTS = CALLS + 2  # of a run


def one_run(dt: Dunetrace, agent: str = "agent") -> str:
    """A run of `EVENTS` events; its id."""
    with dt.run(agent) as run:
        for _ in range(CALLS):
            run.tool_called(run.run_id)
    return run.run_id


def some_runs(dt: Dunetrace, count: int, agent: str = "agent") -> None:
    for _ in range(count):
        one_run(dt, agent)


def whole_runs(events: Iterable[dict[str, Any]]) -> set[str]:
    """The runs in `events`. AssertionError unless each is whole, in order, unmixed and there once."""
    runs: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for event in events:
        runs[event["run_id"]].append(event)
    for run_id, its in runs.items():
        kinds = [event["event_type"] for event in its]
        assert kinds == ["run.started", *["tool.called"] * CALLS, "run.completed"], (run_id, kinds)
        assert {event["payload"]["tool_name"] for event in its[1:-1]} == {run_id}
        assert [event["step_index"] for event in its] == [0, *range(1, CALLS + 1), CALLS]
        assert len({event["event_id"] for event in its}) == EVENTS
        assert len({event["agent_id"] for event in its}) == 1
    return set(runs)
