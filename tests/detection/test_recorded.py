"""What fires on recorded runs of real agents: rarely on success, often where the agent itself saw a loop."""

from __future__ import annotations

from collections import Counter

import pytest

from dunetrace.detectors.judging import Phase, judge
from dunetrace.detectors.thresholds import DEFAULT
from dunetrace.signals import Severity
from tests.detection.building import folded
from tests.detection.recorded import Recorded, airline, magentic

Fired = Counter[tuple[str, str, str]]  # (outcome, failure type, severity) -> runs


def table(recorded: list[Recorded], outcome_of: dict[str, str]) -> Fired:
    fired: Fired = Counter()
    for row, events in recorded:
        outcome = outcome_of[row["id"]]
        fired[outcome, "runs", ""] += 1
        for signal in judge(folded(events, row["id"]), DEFAULT.default, Phase.ENDED):
            fired[outcome, signal.failure_type.value, signal.severity.value] += 1
    for (outcome, failure_type, severity), runs in sorted(fired.items()):
        print(f"{outcome:10} {failure_type:24} {severity:8} {runs:4}")
    return fired


@pytest.fixture(scope="module")
def airline_runs() -> list[Recorded]:
    return airline()


def test_airline_runs_are_rebuilt_step_for_step(airline_runs: list[Recorded]) -> None:
    for row, events in airline_runs:
        said = [message for message in row["messages"] if message["role"] == "assistant"]
        run = folded(events, row["id"])
        assert run.llm_calls == len(said)
        assert run.tool_calls == sum(len(message.get("tool_calls") or ()) for message in said)
        assert run.turns == sum(message["role"] == "user" for message in row["messages"]) - 1
        assert all(call.answered for call in run.steps)


def test_what_fires_on_airline_runs(airline_runs: list[Recorded]) -> None:
    outcomes = {row["id"]: "pass" if row["success"] else "fail" for row, _ in airline_runs}
    fired = table(airline_runs, outcomes)
    assert (fired["pass", "runs", ""], fired["fail", "runs", ""]) == (84, 116)
    assert {name for outcome, name, _ in fired if outcome == "pass"} == {"runs"}
    assert fired["fail", "TOOL_LOOP", Severity.MEDIUM] >= 1
    assert fired["fail", "CONTEXT_BLOAT", Severity.MEDIUM] >= 20
    assert fired["fail", "RETRY_STORM", Severity.HIGH] >= 5


def test_loops_are_found_where_the_orchestrator_saw_them() -> None:
    recorded = magentic()
    fired = table(recorded, {row["id"]: "loop" if row["loop_steps"] >= 2 else "other" for row, _ in recorded})
    assert (fired["loop", "runs", ""], fired["other", "runs", ""]) == (13, 12)
    assert fired["loop", "TOOL_LOOP", Severity.HIGH] >= 8
    assert fired["other", "TOOL_LOOP", Severity.HIGH] == 0
