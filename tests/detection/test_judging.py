from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from dunetrace.detectors.judging import Phase, judge
from dunetrace.detectors.registry import DETECTORS
from dunetrace.detectors.thresholds import DEFAULT, AgentLimits, check
from dunetrace.detectors.tool_loop import DETECTOR, ToolLoopThresholds
from dunetrace.errors import DetectorError
from dunetrace.runs import RunState
from dunetrace.signals import FailureSignal, FailureType, Finding
from tests.detection.building import Script, folded

LOOP = folded(Script(agent_id="looper").started().tool("s", 1).tool("s", 1).tool("s", 1).completed())


def test_a_signal_carries_its_run() -> None:
    (signal,) = judge(LOOP, DEFAULT.default, Phase.ENDED)
    assert (signal.run_id, signal.agent_id, signal.agent_version) == ("run-1", "looper", "6ddeb0c4")
    assert (signal.failure_type, signal.step_index, signal.shadow) == (FailureType.TOOL_LOOP, 3, False)


def test_a_detector_switched_off_says_nothing() -> None:
    assert judge(LOOP, check({"default": {"tool_loop": {"enabled": False}}}).default, Phase.ENDED) == []


def test_a_shadow_detector_speaks_in_the_shadow() -> None:
    (signal,) = judge(LOOP, check({"looper": {"tool_loop": {"shadow": True}}}).for_agent("looper"), Phase.ENDED)
    assert signal.shadow


def test_the_signals_of_a_run_that_lost_events_are_shadow() -> None:
    script = Script().started().tool("s", 1).tool("s", 1).tool("s", 1).completed(dropped_events=1)
    (signal,) = judge(folded(script), DEFAULT.default, Phase.ENDED)
    assert signal.shadow


def test_an_agents_thresholds_are_its_own() -> None:
    checked = check({"patient": {"tool_loop": {"threshold": 4}}})
    assert judge(LOOP, checked.for_agent("patient"), Phase.ENDED) == []
    assert judge(LOOP, checked.for_agent("looper"), Phase.ENDED)


def abandoned(**payload: Any) -> RunState:
    """A run that looks like a stall of reasoning, and like an abandoned goal."""
    script = Script().started(**payload).tool()
    for _ in range(8):
        script.llm()
    run = folded(script)
    run.silent = True
    return run


def types(signals: list[FailureSignal]) -> list[tuple[str, bool]]:
    return [(signal.failure_type.value, signal.shadow) for signal in signals]


def limits(**sections: dict[str, Any]) -> AgentLimits:
    return check({"default": sections}).default


def test_one_fault_is_one_signal() -> None:
    assert types(judge(abandoned(), limits(), Phase.STALLED)) == [("GOAL_ABANDONMENT", False)]


def test_what_is_not_looked_for_takes_nothing_over() -> None:
    off = limits(goal_abandonment={"enabled": False})
    assert types(judge(abandoned(), off, Phase.STALLED)) == [("REASONING_STALL", False)]


def test_a_shadow_signal_hides_no_live_one() -> None:
    shadow = limits(goal_abandonment={"shadow": True})
    assert types(judge(abandoned(), shadow, Phase.STALLED)) == [("GOAL_ABANDONMENT", True), ("REASONING_STALL", False)]


def test_a_shadow_signal_yields_to_live_and_to_shadow_ones() -> None:
    both = limits(goal_abandonment={"shadow": True}, reasoning_stall={"shadow": True})
    assert types(judge(abandoned(), both, Phase.STALLED)) == [("GOAL_ABANDONMENT", True)]
    assert types(judge(abandoned(), limits(reasoning_stall={"shadow": True}), Phase.STALLED)) == [
        ("GOAL_ABANDONMENT", False)
    ]


def test_a_signal_the_run_has_already_counts_though_it_is_found_no_longer() -> None:
    run = abandoned()
    run.silent = False
    assert types(judge(run, limits(), Phase.ENDED)) == [("REASONING_STALL", False)]
    assert types(judge(run, limits(), Phase.ENDED, known={"GOAL_ABANDONMENT"})) == []
    assert types(judge(run, limits(), Phase.ENDED, known={"REASONING_STALL"})) == [("REASONING_STALL", False)]
    shadow = limits(reasoning_stall={"shadow": True})
    assert types(judge(run, shadow, Phase.ENDED, known={"GOAL_ABANDONMENT"})) == []


@pytest.mark.parametrize("cause", ["GOAL_ABANDONMENT", "LLM_TRUNCATION_LOOP", "EMPTY_LLM_RESPONSE"])
def test_a_stall_of_reasoning_is_not_said_beside_its_cause(cause: str) -> None:
    scripts = {
        "GOAL_ABANDONMENT": Script().started().tool(),
        "LLM_TRUNCATION_LOOP": Script().started().llm("length").llm("length"),
        "EMPTY_LLM_RESPONSE": Script().started(sdk="1.0.0").llm(output_length=0),
    }
    script = scripts[cause]
    for _ in range(6):
        script.llm()
    run = folded(script)
    run.silent = True
    assert types(judge(run, limits(), Phase.STALLED)) == [(cause, False)]


def test_what_may_speak_early_yields_to_nothing() -> None:
    for detector in DETECTORS:
        assert not (detector.monotone and detector.yields_to)
        assert detector.failure_type not in detector.yields_to


def test_a_detector_that_raises_is_named_without_its_message() -> None:
    def broken(run: RunState, limits: ToolLoopThresholds) -> Finding | None:
        raise ValueError(f"secret of {run.run_id}")

    detectors: tuple[Any, ...] = (replace(DETECTOR, detect=broken),)
    with pytest.raises(DetectorError) as caught:
        judge(LOOP, DEFAULT.default, Phase.ENDED, detectors=detectors)
    error = caught.value
    assert (error.detector, error.exception_type) == ("TOOL_LOOP", "ValueError")
    assert error.code_line == f"test_judging.py:{broken.__code__.co_firstlineno + 1}"
    assert "secret" not in str(error)
    assert error.__suppress_context__ and error.__cause__ is None
