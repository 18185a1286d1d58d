"""What holds for every detector in the registry, whatever it looks for."""

from __future__ import annotations

import math
import pickle
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dunetrace.detectors.declaration import Detector
from dunetrace.detectors.judging import Phase, judge
from dunetrace.detectors.registry import BY_NAME, DETECTORS
from dunetrace.detectors.thresholds import DEFAULT, AgentLimits, check
from dunetrace.events import Event
from dunetrace.explain import explain
from dunetrace.runs import RunState
from dunetrace.signals import FailureSignal, Severity
from tests.detection.building import Script, folded
from tests.detection.cases import CASES
from tests.detection.generated import runs, unhurried

EAGER = check(
    {
        "default": {
            "tool_loop": {"threshold": 2, "window": 100},
            "tool_thrashing": {"window": 4},
            "tool_avoidance": {"min_llm_calls": 1},
            "goal_abandonment": {"stall_steps": 2},
            "retry_storm": {"threshold": 2},
            "cascading_tool_failure": {"threshold": 2},
            "first_step_failure": {"max_step": 10},
            "reasoning_stall": {"ratio_threshold": 1.5, "min_llm_calls": 2},
            "step_count_inflation": {"inflation_factor": 1.1, "min_runs": 3},
            "rag_empty_retrieval": {"min_results": 3, "min_score": 1.0},
            "context_bloat": {"growth_factor": 1.1, "min_calls": 2, "min_last_tokens": 0},
            "slow_step": {"tool_ms": 1, "llm_ms": 1},
        }
    }
).default
every = pytest.mark.parametrize("detector", DETECTORS, ids=lambda detector: detector.name)
eager_or_not = st.sampled_from([DEFAULT.default, EAGER])


def judged(run: RunState, limits: AgentLimits, phase: Phase = Phase.ENDED) -> dict[str, FailureSignal]:
    return {signal.failure_type.value.lower(): signal for signal in judge(run, limits, phase)}


@every
def test_it_fires_where_it_should_and_not_on_the_near_miss(detector: Detector[Any]) -> None:
    fires, near_miss = CASES[detector.name].runs()
    assert list(judged(fires, DEFAULT.default)) == [detector.name]
    assert list(judged(near_miss, DEFAULT.default)) == []


@every
def test_only_a_monotone_detector_speaks_while_the_run_goes_on(detector: Detector[Any]) -> None:
    fires, _ = CASES[detector.name].runs()
    assert (detector.name in judged(fires, DEFAULT.default, Phase.RUNNING)) is detector.monotone
    assert detector.name in judged(fires, DEFAULT.default, Phase.STALLED)


def test_every_detector_has_its_cases_and_its_own_failure_type() -> None:
    assert set(CASES) == set(BY_NAME)
    assert len(BY_NAME) == len(DETECTORS)


def _is_structural(value: Any) -> bool:
    if isinstance(value, list):
        return all(_is_structural(item) for item in value)
    return isinstance(value, (str, bool, int)) or (isinstance(value, float) and math.isfinite(value))


@unhurried
@given(runs(), st.lists(st.integers(0, 5), max_size=12), eager_or_not, st.sampled_from(Phase))
def test_judging_never_raises_never_mutates_and_says_the_same_twice(
    events: list[Event], baseline: list[int], limits: AgentLimits, phase: Phase
) -> None:
    run = folded(events)
    run.baseline_steps, run.silent = tuple(baseline), phase is Phase.STALLED
    before = pickle.dumps(run)
    signals = judge(run, limits, phase)
    assert judge(run, limits, phase) == signals
    assert pickle.dumps(run) == before
    for signal in signals:
        detector = BY_NAME[signal.failure_type.value.lower()]
        assert signal.severity.rank <= detector.severity.rank
        assert 0.5 <= signal.confidence <= 0.99
        assert signal.confidence == round(signal.confidence, 2)
        assert set(signal.evidence) == set(detector.evidence.__dataclass_fields__)
        assert all(_is_structural(value) for value in signal.evidence.values())
        assert signal.step_index in {event.step_index for event in events}
        assert signal.shadow is (run.dropped_events > 0)


@unhurried
@given(runs(), eager_or_not)
def test_what_was_found_while_the_run_went_on_is_never_taken_back(events: list[Event], limits: AgentLimits) -> None:
    run = RunState("run-1")
    found: dict[str, FailureSignal] = {}
    for event in events:
        run.fold(event)
        now = judged(run, limits, Phase.RUNNING)
        assert set(found) <= set(now)
        for name, signal in found.items():
            assert now[name].severity.rank >= signal.severity.rank
            if now[name].severity is signal.severity:
                assert now[name].confidence >= signal.confidence
        found = now
    assert set(found) <= set(judged(run, limits, Phase.ENDED))


@unhurried
@given(runs(), eager_or_not)
def test_every_template_renders_every_evidence(events: list[Event], limits: AgentLimits) -> None:
    run = folded(events)
    run.baseline_steps, run.silent = (1, 1, 1), not run.terminal
    for signal in judge(run, limits, Phase.ENDED):
        explanation = explain(signal)
        assert 1 <= len(explanation.suggested_fixes) <= 3
        texts = [explanation.title, explanation.what, explanation.why_it_matters, explanation.evidence_summary]
        texts += [text for fix in explanation.suggested_fixes for text in (fix.description, fix.code)]
        for text in texts:
            assert text.strip()
            assert "n/a" not in text and "unknown" not in text.lower()
        assert "{" not in "".join(texts[:4])
        for fix in explanation.suggested_fixes:
            assert fix.language in {"python", "text"}
            if fix.language == "python":
                compile(fix.code, "fix", "exec")


@every
def test_a_thousand_events_are_judged_in_under_a_millisecond(detector: Detector[Any]) -> None:
    script = Script().started(injection_signal={"matched_pattern_count": 1, "matched_patterns": ["act_as"]})
    for i in range(250):
        script.llm("tool_calls").tool(f"tool-{i % 7}", i % 3, i % 5)
    run = folded(script)
    run.baseline_steps = tuple(range(1, 51))
    limits: Any = EAGER[detector.name].thresholds
    best_s = math.inf
    for _ in range(20):
        begun = time.perf_counter()
        detector.detect(run, limits)
        best_s = min(best_s, time.perf_counter() - begun)
    assert len(script.events) > 1_000
    assert best_s < 0.001


def test_severities_rank_upwards() -> None:
    assert [severity.rank for severity in Severity] == [0, 1, 2, 3]
