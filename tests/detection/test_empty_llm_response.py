from __future__ import annotations

from typing import Any

import pytest

from dunetrace.detectors.empty_llm_response import DETECTOR
from dunetrace.runs import RunState
from dunetrace.signals import Finding, Severity
from tests.detection.building import Script, folded


def found(script: Script) -> Finding | None:
    return DETECTOR.detect(folded(script), DETECTOR.thresholds())


def answered(sdk: str | None = None, **payload: Any) -> Script:
    """A run of one LLM call; `payload` is all that its response says, `sdk` what our own client names itself."""
    script = Script().started(**({"sdk": sdk} if sdk else {})).llm_called()
    return script.emit("llm.responded", **payload)


def test_evidence_says_where_how_much_and_what_it_cost() -> None:
    script = Script().started(sdk="1.0.0").llm("tool_calls").tool("search", 1)
    script.llm(output_length=0, completion_tokens=3).llm().llm(output_length=0, completion_tokens=0).completed()
    finding = found(script)
    assert finding is not None
    assert finding.evidence == {
        "kind": "repeated", "empty_answers": 2, "llm_calls": 4, "later_llm_calls": 0, "first_step": 3, "last_step": 5,
        "wasted_calls": 2, "wasted_ms": 1_600, "wasted_tokens": 203,
    }  # fmt: skip
    assert (finding.severity, finding.step_index, finding.confidence) == (Severity.HIGH, 3, 0.95)


def test_a_single_one_says_whether_the_run_went_on() -> None:
    finding = found(Script().started(sdk="1.0.0").llm(output_length=0).llm().llm().completed())
    assert finding is not None
    assert (finding.evidence["kind"], finding.evidence["later_llm_calls"], finding.confidence) == ("single", 2, 0.9)


@pytest.mark.parametrize(
    ("payload", "is_empty"),
    [
        ({"output_length": 0, "completion_tokens": 0, "latency_ms": 400}, True),
        ({"output_length": 0, "latency_ms": 0.4}, True),
        ({"output_length": 0, "completion_tokens": 5, "latency_ms": 400}, None),
        ({"output_length": 0, "completion_tokens": 0, "latency_ms": 0}, None),
        ({"output_length": 0}, None),
        ({"completion_tokens": 0, "latency_ms": 400}, None),
        ({"output_length": None, "latency_ms": 400}, None),
        ({"output_length": 1, "latency_ms": 400}, False),
    ],
)
def test_published_clients_send_a_length_of_0_for_one_they_do_not_know(
    payload: dict[str, Any], is_empty: bool | None
) -> None:
    run = folded(answered(finish_reason="stop", **payload))
    assert run.steps[-1].empty is is_empty
    assert (DETECTOR.detect(run, DETECTOR.thresholds()) is not None) is (is_empty is True)


@pytest.mark.parametrize("payload", [{}, {"completion_tokens": 9}, {"completion_tokens": 0, "latency_ms": 0}])
def test_our_own_0_is_believed(payload: dict[str, Any]) -> None:
    finding = found(answered("1.0.0", finish_reason="stop", output_length=0, **payload))
    assert finding is not None
    assert finding.confidence == 0.9


def test_what_a_published_client_says_is_a_little_less_sure() -> None:
    finding = found(answered(finish_reason="stop", output_length=0, latency_ms=400))
    assert finding is not None
    assert finding.confidence == 0.8


@pytest.mark.parametrize(
    ("finish_reason", "is_empty"),
    [("tool_calls", False), ("length", False), ("content_filter", False), ("other", False), (None, None)],
)
def test_only_an_answer_that_ended_in_stop_counts(finish_reason: str | None, is_empty: bool | None) -> None:
    script = answered("1.0.0", finish_reason=finish_reason, output_length=0)
    assert folded(script).steps[-1].empty is is_empty
    assert found(script) is None


def test_a_call_without_an_answer_and_an_answer_without_a_call_are_nothing() -> None:
    script = Script().started(sdk="1.0.0").llm_called()
    assert folded(script).steps[-1].empty is None
    assert found(script) is None
    assert found(Script().started(sdk="1.0.0").emit("llm.responded", finish_reason="stop", output_length=0)) is None


@pytest.mark.parametrize("responses_advance", [False, True])
def test_the_step_is_the_calls_in_both_layouts(responses_advance: bool) -> None:
    script = Script(responses_advance=responses_advance).started(sdk="1.0.0").tool().llm(output_length=0)
    finding = found(script)
    assert finding is not None
    assert finding.step_index == (3 if responses_advance else 2)
    assert finding.evidence["first_step"] == finding.step_index


def test_a_turn_of_the_user_changes_nothing() -> None:
    finding = found(Script().started(sdk="1.0.0").llm(output_length=0).user().llm().user().llm(output_length=0))
    assert finding is not None
    assert finding.evidence["empty_answers"] == 2


# ---- what "answered" means, which other detectors build on


def ended(exit_reason: str, *answers: tuple[str | None, int | None]) -> RunState:
    script = Script().started(sdk="1.0.0")
    for finish_reason, output_length in answers:
        script.llm_called().emit("llm.responded", finish_reason=finish_reason, output_length=output_length)
    return folded(script.completed(exit_reason))


def test_a_run_that_says_so_was_answered() -> None:
    assert ended("final_answer").answered
    assert ended("final_answer", ("tool_calls", 0)).answered


def test_a_completed_run_was_answered_when_its_last_answer_says_so() -> None:
    assert ended("completed", ("tool_calls", 0), ("stop", 9)).answered
    assert ended("completed", ("stop", None)).answered, "not known to be empty"
    assert not ended("completed", ("stop", 9), ("stop", 0)).answered
    assert not ended("completed", ("stop", 9), ("tool_calls", 0)).answered
    assert not ended("completed", ("stop", 9), (None, 9)).answered
    assert not ended("completed").answered


def test_an_answer_that_never_came_leaves_the_one_before_it_the_last() -> None:
    assert folded(Script().started().llm().llm_called().completed("completed")).answered


def test_of_calls_made_side_by_side_the_later_call_is_the_last() -> None:
    script = Script().llm_called(call_id=1).llm_called(call_id=2)
    script.emit("llm.responded", call_id=2, finish_reason="tool_calls")
    script.emit("llm.responded", call_id=1, finish_reason="stop", output_length=5)
    assert not folded(script.completed("completed")).answered


@pytest.mark.parametrize("script", [Script().llm(), Script().llm().errored()], ids=["going on", "errored"])
def test_a_run_that_did_not_complete_was_not_answered(script: Script) -> None:
    assert not folded(script).answered
