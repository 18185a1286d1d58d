from __future__ import annotations

from typing import Any

import pytest

from dunetrace.detectors.cascading_tool_failure import DETECTOR, CascadingToolFailureThresholds
from dunetrace.detectors.retry_storm import DETECTOR as STORM
from dunetrace.detectors.retry_storm import RetryStormThresholds
from dunetrace.runs import RunState
from dunetrace.signals import Finding, Severity
from dunetrace.views.failures import MAX_TOOLS
from tests.detection.building import Script, folded
from tests.detection.fixes import fix_of
from tests.detection.test_retry_storm import answers


def found(script: Script, *, silent: bool = False, **limits: int) -> Finding | None:
    run = folded(script)
    run.silent = silent
    return DETECTOR.detect(run, CascadingToolFailureThresholds(**limits))


@pytest.mark.parametrize("responses_advance", [True, False])
def test_evidence_says_where_how_much_and_what_it_cost(responses_advance: bool) -> None:
    script = Script(responses_advance=responses_advance).started()
    for name in ("user", "orders", "user", "prices"):
        script.llm("tool_calls").tool(name, 7, ok=False)
    finding = found(script.completed())
    assert finding is not None
    first, last, third = (3, 15, 11) if responses_advance else (2, 8, 6)
    assert finding.evidence == {
        "kind": "same_error", "tools": ["user", "orders", "prices"], "failure_count": 4, "threshold": 3,
        "same_error": True, "first_step": first, "last_step": last, "wasted_calls": 3, "wasted_ms": 600,
        "wasted_tokens": 360,
    }  # fmt: skip
    assert (finding.severity, finding.step_index, finding.confidence) == (Severity.HIGH, third, 0.85)


@pytest.mark.parametrize("names", ["aba", "abc", "aab", "aabb", "Cabac", "abaCCC"])
def test_three_failures_across_two_tools_are_a_cascade_and_no_storm(names: str) -> None:
    script = answers(Script(), names).completed()
    assert found(script) is not None
    assert STORM.detect(folded(script), RetryStormThresholds()) is None


@pytest.mark.parametrize("names", ["ab", "aa", "abAc", "abBa", "aaa", "aaab", "bbaaa", "aaaba"])
def test_good_answers_in_between_or_one_tool_alone_are_none(names: str) -> None:
    assert found(answers(Script(), names).completed()) is None


def test_it_speaks_once_the_streak_is_over() -> None:
    script = answers(Script().started(), "aba")
    assert found(script) is None, "the next failures may make it a storm"
    assert found(script, silent=True) is not None
    assert found(answers(script, "A")) is not None
    assert found(answers(Script(), "aba").errored()) is not None


def test_a_streak_that_became_a_storm_is_not_said_twice() -> None:
    assert found(answers(Script(), "abaaaB")) is None
    assert found(answers(Script(), "abaaa"), silent=True) is None


def test_what_fails_after_the_end_is_another_streak() -> None:
    assert found(answers(answers(Script(), "ab").completed(), "a")) is None
    ended = answers(Script(), "aba").completed()
    assert found(answers(ended, "aaa")) is not None, "what was found stays"


def test_the_longest_streak_speaks() -> None:
    script = answers(Script(), "abAbcbcbCabaA")
    for i in range(3_000):
        script.tool("search", i, i)
    finding = found(script)
    assert finding is not None
    assert (finding.evidence["failure_count"], finding.evidence["tools"]) == (5, ["b", "c"])


def test_a_longer_storm_hides_no_cascade() -> None:
    script = answers(Script(), "abaaaaaBaba").completed()
    finding = found(script)
    assert finding is not None
    assert (finding.evidence["failure_count"], finding.evidence["first_step"]) == (3, 9)
    assert STORM.detect(folded(script), RetryStormThresholds()) is not None, "two faults are two signals"


def test_a_word_from_the_user_does_not_end_a_streak() -> None:
    assert found(answers(answers(Script(), "ab").user(), "cA")) is not None


def test_open_calls_neither_count_nor_end_a_streak() -> None:
    assert found(answers(answers(Script(), "ab").called("x", 9), "aB")) is not None
    assert found(answers(Script(), "ab").called("x", 9).called("y", 9).completed()) is None


def test_the_names_kept_are_few() -> None:
    script = Script()
    for i in range(200):
        script.tool(f"tool-{i}", i, ok=False)
    finding = found(script.completed())
    assert finding is not None
    assert finding.evidence["tools"] == [f"tool-{i}" for i in range(MAX_TOOLS)]
    assert finding.evidence["failure_count"] == 200


def test_one_error_that_differs_makes_them_different() -> None:
    script = Script().tool("a", 1, ok=False).tool("b", 1, ok=False)
    script.called("a", 1).responded("a", ok=False, error="other")
    finding = found(script.completed())
    assert finding is not None
    assert (finding.evidence["kind"], finding.evidence["same_error"]) == ("errors", False)


def test_a_finding_holds_while_the_run_goes_on() -> None:
    run, counts = RunState("run-1"), []
    for event in answers(Script().started(), "abaAcdcdcC"):
        run.fold(event)
        finding = DETECTOR.detect(run, CascadingToolFailureThresholds())
        counts.append(finding.evidence["failure_count"] if finding else 0)
    assert sorted(counts) == counts and set(counts) == {0, 3, 5}


def test_the_budget_ends_a_run_of_failures() -> None:
    budget = fix_of("cascading_tool_failure", "FailureBudget")()
    for success in (False, False, True, False, False):
        budget.answered(success=success)
    with pytest.raises(RuntimeError, match="3 tool calls"):
        budget.answered(success=False)


def test_the_check_names_what_does_not_answer() -> None:
    ready: Any = fix_of("cascading_tool_failure", "ready")
    assert ready({"good": lambda: None, "bad": lambda: 1 / 0}) == ["bad"]
