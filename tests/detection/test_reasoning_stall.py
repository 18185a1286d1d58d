from __future__ import annotations

from dunetrace.detectors.reasoning_stall import DETECTOR, ReasoningStallThresholds
from dunetrace.signals import Finding
from tests.detection.building import Script, folded


def found(script: Script, **limits: float) -> Finding | None:
    return DETECTOR.detect(folded(script), ReasoningStallThresholds(**limits))  # type: ignore[arg-type]


def thinking(script: Script, times: int, finish_reason: str | None = "stop") -> Script:
    for _ in range(times):
        script.llm(finish_reason)
    return script


def test_evidence_says_where_how_much_and_what_it_cost() -> None:
    script = thinking(Script().started().tool(), 8).completed()
    finding = found(script)
    assert finding is not None
    assert finding.evidence == {
        "llm_calls": 8, "acts": 1, "ratio": 8.0, "ratio_threshold": 4.0, "min_llm_calls": 5, "first_step": 2,
        "last_step": 9, "wasted_calls": 7, "wasted_ms": 5_600, "wasted_tokens": 840,
    }  # fmt: skip
    assert (finding.step_index, finding.confidence) == (9, 0.79)


def test_both_limits_must_be_reached() -> None:
    assert found(thinking(Script().started().tool(), 4)) is None
    assert found(thinking(Script().started().tool(), 5)) is not None
    assert found(thinking(Script().started().tool().tool(), 7)) is None
    assert found(thinking(Script().started().tool().tool(), 8)) is not None


def test_no_act_at_all_counts_where_tools_are_on_offer() -> None:
    assert found(thinking(Script().started(), 5)) is not None
    assert found(thinking(Script().started(tools=[]), 50)) is None, "there is nothing to act with"


def test_a_retrieval_is_an_act() -> None:
    assert found(thinking(Script().started().retrieval().retrieval(), 5)) is None


def test_tools_that_were_asked_for_but_are_not_reported_are_acts() -> None:
    assert found(thinking(Script().started(), 30, "tool_calls")) is None


def test_a_conversation_is_no_stall() -> None:
    script = Script().started()
    for _ in range(40):
        script.llm().user()
    assert found(script.completed()) is None


def test_the_worst_stretch_of_the_whole_run_speaks() -> None:
    script = thinking(Script().started(), 6).user()
    for _ in range(300):
        script.llm("tool_calls").tool().llm().user()
    finding = found(script.completed())
    assert finding is not None
    assert (finding.evidence["llm_calls"], finding.evidence["first_step"], finding.evidence["last_step"]) == (6, 1, 6)


def test_long_stretches_are_told_apart_from_short_ones() -> None:
    script = thinking(Script().started(), 150).user()
    thinking(script, 6).user()
    finding = found(script, min_llm_calls=100)
    assert finding is not None
    assert finding.evidence["llm_calls"] == 150
    assert found(thinking(Script().started(), 99).user(), min_llm_calls=100) is None


def test_of_two_stretches_of_one_length_the_one_that_acted_less_counts() -> None:
    script = thinking(Script().started().tool().tool().tool(), 6).user()
    finding = found(thinking(script, 6).user())
    assert finding is not None
    assert (finding.evidence["acts"], finding.evidence["first_step"]) == (0, 10)


def test_an_agent_that_acted_had_something_to_act_with() -> None:
    assert found(thinking(Script().tool(), 5)) is not None
