from __future__ import annotations

from typing import Any

import pytest

from dunetrace.detectors.rag_empty_retrieval import DETECTOR, RagEmptyRetrievalThresholds
from dunetrace.signals import Finding, Severity
from dunetrace.views.retrievals import MAX_RETRIEVED
from tests.detection.building import Script, folded


def found(script: Script, **limits: Any) -> Finding | None:
    return DETECTOR.detect(folded(script), RagEmptyRetrievalThresholds(**limits))


def retrieved(*brought: tuple[int | None, float | None]) -> Script:
    """A run that retrieved so many results with such a best score, one after the other, and answered."""
    script = Script().started()
    for count, top_score in brought:
        script.retrieval("policies", count, top_score=top_score)
    return script.llm().completed()


def test_evidence_says_where_how_much_and_what_it_cost() -> None:
    script = Script().started().retrieval("faq", 3).retrieval("policies", 0, top_score=None)
    finding = found(script.retrieval("policies", 0, top_score=None, latency_ms=400).llm().completed())
    assert finding is not None
    assert finding.evidence == {
        "kind": "empty", "index_name": "policies", "result_count": 0, "min_results": 1, "top_score": -1.0,
        "min_score": 0.3, "bad_retrievals": 2, "retrieval_calls": 3, "first_step": 2, "last_step": 3,
        "wasted_calls": 2, "wasted_ms": 500,
    }  # fmt: skip
    assert (finding.severity, finding.step_index, finding.confidence) == (Severity.MEDIUM, 3, 0.9)


def test_a_low_score_is_a_kind_of_its_own() -> None:
    finding = found(retrieved((4, 0.12)))
    assert finding is not None
    assert (finding.evidence["kind"], finding.evidence["top_score"], finding.confidence) == ("low_score", 0.12, 0.6)
    unknown_count = found(retrieved((None, 0.12)))
    assert unknown_count is not None
    assert (unknown_count.evidence["kind"], unknown_count.evidence["result_count"]) == ("low_score", -1)


def test_the_limits_themselves_are_good() -> None:
    assert found(retrieved((1, 0.3))) is None
    assert found(retrieved((1, 0.29))) is not None
    assert found(retrieved((2, 0.9)), min_results=3) is not None
    assert found(retrieved((3, 0.9)), min_results=3) is None


@pytest.mark.parametrize("top_score", [-0.2, 1.01, 17.0, None])
def test_a_score_that_is_none_or_of_another_scale_is_not_judged(top_score: float | None) -> None:
    assert found(retrieved((3, top_score))) is None


def test_without_a_limit_no_score_is_bad() -> None:
    assert found(retrieved((3, 0.0)), min_score=None) is None
    empty = found(retrieved((0, 0.0)), min_score=None)
    assert empty is not None and empty.evidence["min_score"] == 0.0


def test_a_count_that_is_not_known_is_not_bad() -> None:
    assert found(retrieved((None, None))) is None
    assert found(retrieved((0, None), (None, None))) is None


def test_a_later_good_retrieval_puts_it_right_and_a_later_bad_one_does_not() -> None:
    assert found(retrieved((0, None), (3, 0.8))) is None
    assert found(retrieved((3, 0.8), (0, None))) is not None


def side_by_side(*answers: tuple[int, int | None]) -> Script:
    """Retrievals 1 and 2 are under way together; `answers` are (which, results) in the order of arrival."""
    script = Script().started().emit("retrieval.called", index_name="a", call_id=1)
    script.emit("retrieval.called", index_name="b", call_id=2)
    for call_id, count in answers:
        script.emit("retrieval.responded", index_name="ab"[call_id - 1], call_id=call_id, result_count=count)
    return script.llm().completed()


def test_of_searches_made_side_by_side_one_good_one_is_enough() -> None:
    assert found(side_by_side((1, 3), (2, 0))) is None
    assert found(side_by_side((1, 0), (2, 3))) is None
    assert found(side_by_side((1, 0), (2, 0))) is not None
    assert found(side_by_side((1, None), (2, 0))) is not None, "what is not known puts nothing right"


def test_only_a_run_that_answered_speaks() -> None:
    empty = Script().started().retrieval("policies", 0).llm()
    assert found(empty) is None, "it may search again"
    assert found(Script().add(empty).errored()) is None
    assert found(Script().add(empty).completed("completed")) is not None
    assert found(Script().started().retrieval("policies", 0).llm("tool_calls").completed("completed")) is None
    silent = Script().started(sdk="1.0.0").retrieval("policies", 0).llm(output_length=0)
    assert found(silent.completed("completed")) is None


def test_a_retrieval_without_an_answer_is_not_bad() -> None:
    script = Script().started().emit("retrieval.called", index_name="policies").llm().completed()
    assert found(script) is None


@pytest.mark.parametrize("responses_advance", [False, True])
def test_the_step_is_the_calls_in_both_layouts(responses_advance: bool) -> None:
    script = Script(responses_advance=responses_advance).started().llm().retrieval("policies", 0).llm().completed()
    finding = found(script)
    assert finding is not None
    assert finding.step_index == (3 if responses_advance else 2)


def test_a_turn_of_the_user_in_between_changes_nothing() -> None:
    assert found(Script().started().retrieval("policies", 0).llm().user().llm().completed()) is not None


def test_a_run_with_many_searches_keeps_the_last() -> None:
    finding = found(retrieved((3, 0.8), *[(0, None)] * 300))
    assert finding is not None
    assert (finding.evidence["bad_retrievals"], finding.evidence["retrieval_calls"]) == (MAX_RETRIEVED, 301)
