from __future__ import annotations

import asyncio

import pytest

from dunetrace.detectors.goal_abandonment import DETECTOR, GoalAbandonmentThresholds
from dunetrace.detectors.judging import Phase, judge
from dunetrace.detectors.thresholds import DEFAULT
from dunetrace.signals import FailureType, Finding, Severity
from tests.detection.building import Script, folded
from tests.detection.fixes import fix_of


def found(script: Script, *, silent: bool = True, **limits: int) -> Finding | None:
    run = folded(script)
    run.silent = silent
    return DETECTOR.detect(run, GoalAbandonmentThresholds(**limits))


def thinking(script: Script, times: int) -> Script:
    for _ in range(times):
        script.llm()
    return script


@pytest.mark.parametrize("responses_advance", [True, False])
def test_evidence_says_where_how_much_and_what_it_cost(responses_advance: bool) -> None:
    script = Script(responses_advance=responses_advance).started().llm("tool_calls").tool().llm("tool_calls").tool()
    finding = found(thinking(script, 6))
    assert finding is not None
    act, first, last = (7, 9, 19) if responses_advance else (4, 5, 10)
    assert finding.evidence == {
        "llm_calls": 6, "stall_steps": 4, "acts": 2, "last_act_step": act, "first_step": first, "last_step": last,
        "wasted_calls": 6, "wasted_ms": 4_800, "wasted_tokens": 720,
    }  # fmt: skip
    assert (finding.severity, finding.step_index, finding.confidence) == (Severity.MEDIUM, last, 0.73)


def test_four_calls_after_the_last_act_are_the_limit() -> None:
    assert found(thinking(Script().started().tool(), 3)) is None
    assert found(thinking(Script().started().tool(), 4)) is not None
    assert found(thinking(thinking(Script().started().tool(), 3).tool(), 3)) is None
    assert found(thinking(Script().started().tool(), 3), stall_steps=3) is not None


def test_the_last_call_need_not_have_been_answered() -> None:
    assert found(thinking(Script().started().tool(), 3).llm_called()) is not None


def test_any_end_is_an_exit() -> None:
    assert found(thinking(Script().started().tool(), 6).errored()) is None
    assert found(thinking(Script().started().tool(), 6).completed()) is None


def test_a_run_that_is_still_heard_of_has_abandoned_nothing() -> None:
    assert found(thinking(Script().started().tool(), 6), silent=False) is None


def test_it_must_have_acted_since_the_user_spoke() -> None:
    assert found(thinking(Script().started(), 6)) is None
    assert found(thinking(Script().started().tool().user(), 6)) is None
    assert found(thinking(Script().started().user().tool(), 6)) is not None


def test_a_retrieval_is_an_act_and_a_failed_call_too() -> None:
    assert found(thinking(Script().started().retrieval(), 4)) is not None
    assert found(thinking(Script().started().tool("book", 1, ok=False), 4)) is not None


def test_a_model_that_still_asks_for_tools_has_not_stopped() -> None:
    script = Script().started().tool()
    for _ in range(6):
        script.llm("tool_calls")
    assert found(script) is None
    assert found(thinking(script, 4)) is not None


def test_the_same_run_is_no_reasoning_stall_as_well() -> None:
    run = folded(thinking(Script().started().tool(), 8))
    run.silent = True
    (signal,) = judge(run, DEFAULT.default, Phase.STALLED)
    assert signal.failure_type is FailureType.GOAL_ABANDONMENT


def test_the_loop_ends_after_enough_calls_without_an_act() -> None:
    must_end = fix_of("goal_abandonment", "MustEnd")()
    for called_a_tool in (False, False, False, True, False, False, False):
        must_end.model_answered(called_a_tool)
        assert not must_end.now
    must_end.model_answered(called_a_tool=False)
    assert must_end.now


def test_an_agent_that_hangs_ends_in_an_error() -> None:
    to_an_end = fix_of("goal_abandonment", "to_an_end")

    async def answers() -> str:
        return "done"

    async def hangs() -> None:
        await asyncio.Event().wait()

    assert asyncio.run(to_an_end(answers)) == "done"
    with pytest.raises(TimeoutError):
        asyncio.run(to_an_end(hangs, timeout_s=0.01))
