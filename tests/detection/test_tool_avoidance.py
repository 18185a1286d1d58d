from __future__ import annotations

import pytest

from dunetrace.detectors.tool_avoidance import DETECTOR, MAX_TOOLS, ToolAvoidanceThresholds
from dunetrace.signals import Finding, Severity
from tests.detection.building import Script, folded
from tests.detection.fixes import fix_of


def found(script: Script, **limits: int) -> Finding | None:
    return DETECTOR.detect(folded(script), ToolAvoidanceThresholds(**limits))


def thinking(times: int, *, responses_advance: bool = False) -> Script:
    script = Script(responses_advance=responses_advance).started()
    for _ in range(times):
        script.llm()
    return script


@pytest.mark.parametrize("responses_advance", [True, False])
def test_evidence_says_where_how_much_and_what_it_cost(responses_advance: bool) -> None:
    finding = found(thinking(3, responses_advance=responses_advance).completed())
    assert finding is not None
    last = 5 if responses_advance else 3
    assert finding.evidence == {
        "tool_count": 2, "tools": ["search", "book"], "llm_calls": 3, "min_llm_calls": 2, "first_step": 1,
        "last_step": last, "wasted_calls": 2, "wasted_ms": 1_600, "wasted_tokens": 240,
    }  # fmt: skip
    assert (finding.severity, finding.step_index, finding.confidence) == (Severity.MEDIUM, last, 0.7)


def test_a_single_call_that_answers_at_once_is_none() -> None:
    assert found(thinking(1).completed()) is None
    assert found(thinking(1).completed(), min_llm_calls=1) is not None


def test_a_chat_of_one_answer_a_turn_is_none() -> None:
    script = Script().started()
    for _ in range(20):
        script.llm().user()
    assert found(script.llm().completed()) is None


def test_the_longest_turn_speaks() -> None:
    script = thinking(4).user()
    for _ in range(200):
        script.llm().user()
    finding = found(script.llm().completed())
    assert finding is not None
    assert (finding.evidence["llm_calls"], finding.evidence["last_step"]) == (4, 4)


def test_it_must_have_answered() -> None:
    assert found(thinking(3)) is None
    assert found(thinking(3).errored()) is None
    assert found(thinking(3).completed("final_answer")) is not None
    assert found(thinking(3).completed("completed")) is not None
    assert found(Script().started().llm().llm("length").completed("completed")) is None
    assert found(Script().started(sdk="1.0.0").llm().llm(output_length=0).completed("completed")) is None


def test_there_must_be_tools_on_offer() -> None:
    assert found(Script().started(tools=[]).llm().llm().completed()) is None


@pytest.mark.parametrize("answered", [True, False])
def test_any_act_clears_it(answered: bool) -> None:
    assert found(thinking(3).called().completed()) is None
    assert found(thinking(3).tool("book", 1, ok=answered).completed()) is None
    assert found(thinking(3).retrieval().completed()) is None


def test_a_model_that_asked_for_a_tool_avoids_none_though_no_call_is_reported() -> None:
    assert found(Script().started().llm("tool_calls").user().llm().llm().completed()) is None


def test_the_names_shown_are_few() -> None:
    finding = found(Script().started(tools=[f"tool-{i}" for i in range(300)]).llm().llm().completed())
    assert finding is not None
    assert finding.evidence["tool_count"] == 300
    assert finding.evidence["tools"] == [f"tool-{i}" for i in range(MAX_TOOLS)]


def test_the_vague_descriptions_are_named() -> None:
    vague = fix_of("tool_avoidance", "vague")
    assert vague([{"name": "a"}, {"name": "b", "description": "one two three four five six seven eight"}]) == ["a"]


def test_the_first_call_of_a_turn_must_use_a_tool() -> None:
    tool_choice = fix_of("tool_avoidance", "tool_choice")
    assert [tool_choice(0, ["search"]), tool_choice(2, ["search"]), tool_choice(0, [])] == ["required", "auto", "auto"]
