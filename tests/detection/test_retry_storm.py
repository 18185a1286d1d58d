from __future__ import annotations

import pytest

from dunetrace.detectors.cascading_tool_failure import DETECTOR as CASCADE
from dunetrace.detectors.cascading_tool_failure import CascadingToolFailureThresholds
from dunetrace.detectors.retry_storm import DETECTOR, RetryStormThresholds
from dunetrace.runs import RunState
from dunetrace.signals import Finding, Severity
from dunetrace.views.failures import MAX_IN_A_ROW
from tests.detection.building import Script, digest, folded
from tests.detection.fixes import fix_of


def found(script: Script, **limits: int) -> Finding | None:
    return DETECTOR.detect(folded(script), RetryStormThresholds(**limits))


def cascades(script: Script) -> bool:
    return CASCADE.detect(folded(script.completed()), CascadingToolFailureThresholds()) is not None


def answers(script: Script, names: str) -> Script:
    """One call for each letter: a capital is a good answer."""
    for i, name in enumerate(names):
        script.tool(name.lower(), i, f"page {i}", ok=name.isupper())
    return script


@pytest.mark.parametrize("responses_advance", [True, False])
def test_evidence_says_where_how_much_and_what_it_cost(responses_advance: bool) -> None:
    script = Script(responses_advance=responses_advance).started()
    for _ in range(4):
        script.llm("tool_calls").tool("pay", 7, ok=False)
    finding = found(script.completed())
    assert finding is not None
    first, last, third = (3, 15, 11) if responses_advance else (2, 8, 6)
    assert finding.evidence == {
        "kind": "same_error", "tool_name": "pay", "failure_count": 4, "threshold": 3, "same_error": True,
        "same_arguments": True, "first_step": first, "last_step": last, "wasted_calls": 3, "wasted_ms": 600,
        "wasted_tokens": 360,
    }  # fmt: skip
    assert (finding.severity, finding.step_index, finding.confidence) == (Severity.HIGH, third, 0.89)


def test_the_third_failed_answer_fires() -> None:
    script = answers(Script().started(), "aaa")
    run, told = RunState("run-1"), []
    for event in script:
        run.fold(event)
        told.append(DETECTOR.detect(run, RetryStormThresholds()) is not None)
    assert told == [False] * (len(told) - 1) + [True]


@pytest.mark.parametrize("names", ["aa", "aaAa", "aaBa", "aabaa", "abab", "aAaAaA"])
def test_fewer_than_three_in_a_row_are_nothing(names: str) -> None:
    assert found(answers(Script(), names)) is None


@pytest.mark.parametrize("names", ["aaab", "bbaaa", "aaaAbBcC", "Baaa", "abaaab"])
def test_three_in_a_row_anywhere_are_a_storm_and_no_cascade(names: str) -> None:
    script = answers(Script(), names)
    finding = found(script)
    assert finding is not None
    assert (finding.evidence["tool_name"], finding.evidence["failure_count"]) == ("a", 3)
    assert not cascades(script)


def test_the_longest_row_of_the_whole_run_speaks() -> None:
    script = answers(Script(), "aaaaaBccc")
    for i in range(3_000):
        script.tool("search", i, i)
    finding = found(script)
    assert finding is not None
    assert (finding.evidence["tool_name"], finding.evidence["failure_count"]) == ("a", 5)


def test_any_threshold_within_bounds_is_served_by_the_same_fold() -> None:
    run = folded(answers(Script(), "a" * 12))
    for threshold in range(2, MAX_IN_A_ROW + 1):
        assert (DETECTOR.detect(run, RetryStormThresholds(threshold)) is not None) is (threshold <= 12)


def test_open_calls_neither_count_nor_break_the_row() -> None:
    script = answers(Script(), "aa").called("a", 2).called("b", 3)
    assert found(script) is None
    assert found(script.tool("a", 4, ok=False)) is not None


def test_an_answer_that_belongs_to_no_call_does_not_count() -> None:
    assert found(answers(Script(), "aa").responded("a", ok=False)) is None


def test_a_word_from_the_user_does_not_mend_the_tool() -> None:
    assert found(answers(answers(Script(), "aa").user(), "a")) is not None


def test_calls_in_parallel_are_counted_by_their_answers() -> None:
    script = Script().called("a", 1, call_id=1).called("a", 2, call_id=2).called("a", 3, call_id=3)
    script.responded("a", ok=False, call_id=3).responded("a", ok=False, call_id=1).responded("a", ok=False, call_id=2)
    finding = found(script)
    assert finding is not None
    assert (finding.evidence["first_step"], finding.evidence["last_step"]) == (1, 3)


def test_the_error_is_the_same_once_ids_and_times_are_masked() -> None:
    script = Script()
    for i in range(3):
        script.called("a", i).responded("a", ok=False, error=f"request {i}", error_shape_hash=digest("request N"))
    finding = found(script)
    assert finding is not None
    assert (finding.evidence["kind"], finding.evidence["same_arguments"]) == ("same_error", False)


def test_an_error_that_is_not_known_is_not_the_same() -> None:
    script = Script()
    for _ in range(3):
        script.called("a", 1).emit("tool.responded", tool_name="a", success=False)
    finding = found(script)
    assert finding is not None
    assert (finding.evidence["kind"], finding.evidence["same_error"]) == ("errors", False)


def test_the_breaker_refuses_a_tool_that_keeps_failing() -> None:
    breaker = fix_of("retry_storm", "Breaker")()
    made = []

    def pay(amount: int) -> int:
        made.append(amount)
        if amount > 1:
            raise ValueError("too much")
        return amount

    assert [breaker.call("pay", pay, amount=n) for n in (2, 2, 1)] == [{"error": "too much"}] * 2 + [1]
    for _ in range(3):
        assert breaker.call("pay", pay, amount=2) == {"error": "too much"}
    assert "out of order" in breaker.call("pay", pay, amount=1)["error"]
    assert made == [2, 2, 1, 2, 2, 2]


def test_the_patient_tool_tries_again_and_raises_what_came_last() -> None:
    patiently = fix_of("retry_storm", "patiently", "errors")
    tries: list[int] = []

    def flaky(good_at: int) -> int:
        tries.append(good_at)
        if len(tries) < good_at:
            raise TimeoutError
        return len(tries)

    assert patiently(flaky, pause_s=0)(good_at=3) == 3
    tries.clear()
    with pytest.raises(TimeoutError):
        patiently(flaky, pause_s=0)(good_at=4)
