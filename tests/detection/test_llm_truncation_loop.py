from __future__ import annotations

import pytest

from dunetrace.detectors.llm_truncation_loop import DETECTOR, LlmTruncationLoopThresholds
from dunetrace.signals import Finding, Severity
from tests.detection.building import Script, folded


def found(script: Script, threshold: int = 2) -> Finding | None:
    return DETECTOR.detect(folded(script), LlmTruncationLoopThresholds(threshold))


def test_evidence_says_where_how_much_and_what_it_cost() -> None:
    script = Script().started().llm("length", completion_tokens=1_024).tool("search", 1).llm("stop")
    finding = found(script.llm("length", completion_tokens=512).llm().completed())
    assert finding is not None
    assert finding.evidence == {
        "truncated_answers": 2, "llm_calls": 4, "threshold": 2, "first_step": 1, "last_step": 4, "wasted_calls": 2,
        "wasted_ms": 1_600, "wasted_tokens": 1_536,
    }  # fmt: skip
    assert (finding.severity, finding.step_index, finding.confidence) == (Severity.HIGH, 4, 0.8)


def test_the_threshold_is_what_it_takes() -> None:
    script = Script().started().llm("length").llm("length")
    assert found(script) is not None
    assert found(script, 3) is None
    three = found(script.llm("length"), 3)
    assert three is not None and three.evidence["truncated_answers"] == 3


@pytest.mark.parametrize("finish_reason", ["stop", "tool_calls", "content_filter", "other", None])
def test_every_other_way_to_end_is_none(finish_reason: str | None) -> None:
    assert found(Script().started().llm("length").llm(finish_reason).llm(finish_reason)) is None


def test_turns_of_the_user_change_nothing() -> None:
    assert found(Script().started().llm("length").user().llm().user().llm("length")) is not None


@pytest.mark.parametrize("responses_advance", [False, True])
def test_steps_are_the_calls_in_both_layouts(responses_advance: bool) -> None:
    finding = found(Script(responses_advance=responses_advance).started().llm("length").llm("length"))
    assert finding is not None
    assert (finding.evidence["first_step"], finding.evidence["last_step"]) == ((1, 3) if responses_advance else (1, 2))


def test_a_call_without_an_answer_and_an_answer_without_a_call_do_not_count() -> None:
    script = Script().started().llm("length").llm_called()
    assert found(script) is None
    assert found(Script().llm("length").emit("llm.responded", finish_reason="length")) is None


def test_tokens_nobody_reported_are_none() -> None:
    finding = found(Script().started().llm("length", completion_tokens=0).llm("length", completion_tokens=0))
    assert finding is not None
    assert finding.evidence["wasted_tokens"] == 0
