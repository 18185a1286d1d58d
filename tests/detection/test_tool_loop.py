from __future__ import annotations

from dunetrace.detectors.thresholds import check
from dunetrace.detectors.tool_loop import DETECTOR, ToolLoopThresholds
from dunetrace.runs import RunState
from dunetrace.signals import Finding, Severity
from dunetrace.views.loops import MAX_WINDOW
from tests.detection.building import Script, digest, folded


def found(script: Script, **limits: int) -> Finding | None:
    return DETECTOR.detect(folded(script), ToolLoopThresholds(**limits))


def high(script: Script, **limits: int) -> Finding:
    finding = found(script, **limits)
    assert finding is not None and finding.severity is Severity.HIGH and finding.evidence["kind"] == "equal"
    return finding


def weak(script: Script) -> Finding:
    finding = found(script)
    assert finding is not None and finding.severity is Severity.MEDIUM and finding.evidence["kind"] == "weak"
    assert 0.5 <= finding.confidence <= 0.6
    return finding


def repeat(script: Script, times: int, args: object = 1, output: object = None) -> Script:
    for _ in range(times):
        script.tool("search", args, output)
    return script


def test_the_third_equal_call_fires_before_its_answer() -> None:
    script = Script().started()
    run = RunState("run-1")
    told: list[int] = []
    repeat(script, 2).called("search", 1)
    for position, event in enumerate(script):
        run.fold(event)
        if DETECTOR.detect(run, ToolLoopThresholds()):
            told.append(position)
    assert told == [len(script.events) - 1]
    assert script.events[-1].event_type == "tool.called"


def test_three_calls_without_any_answer_fire() -> None:
    assert high(Script().called("search", 1).called("search", 1).called("search", 1)).evidence["call_count"] == 3


def test_evidence_says_where_how_much_and_what_it_cost() -> None:
    script = Script().started()
    for _ in range(4):
        script.llm("tool_calls").tool("search", 1)
    finding = high(script)
    assert finding.evidence == {
        "kind": "equal", "tool_name": "search", "args_hash": digest(1), "same_arguments": True, "call_count": 4,
        "threshold": 3, "window": 5, "first_step": 2, "last_step": 8, "wasted_calls": 3, "wasted_ms": 600,
        "wasted_tokens": 360,
    }  # fmt: skip
    assert finding.step_index == 6
    assert finding.confidence == 0.89


def test_a_window_holds_other_calls_too() -> None:
    between = Script().tool("search", 1).tool("book", 1).tool("pay", 1).tool("search", 1).tool("search", 1)
    assert high(between).evidence["call_count"] == 3
    too_far = Script().tool("search", 1).tool("book", 1).tool("pay", 1).tool("search", 1).tool("a", 1).tool("search", 1)
    assert found(too_far) is None
    assert high(too_far, window=6)


def test_a_loop_at_the_start_is_still_known_at_the_end_of_a_long_run() -> None:
    script = repeat(Script().started(), 3)
    for i in range(3_000):
        script.tool(f"tool-{i % 50}", i, i)
    assert high(script.completed()).evidence["last_step"] == 3


def scattered(script: Script, **limits: int) -> Finding:
    finding = found(script, **limits)
    assert finding is not None and finding.severity is Severity.MEDIUM and finding.evidence["kind"] == "scattered"
    assert 0.5 <= finding.confidence <= 0.6
    return finding


def _far_apart(*calls: int, **answer: bool) -> Script:
    """Calls with these arguments, each followed by a good many others."""
    script = Script().started()
    for place, args in enumerate(calls):
        script.tool("search", args, **answer)
        for other in range(7):
            script.tool(f"tool-{other}", f"{place} {other}")
    return script


def test_calls_made_again_in_a_turn_are_a_weak_sign_however_far_apart() -> None:
    finding = scattered(_far_apart(1, 2, 1, 2))
    assert (finding.evidence["wasted_calls"], finding.evidence["call_count"]) == (2, 4)
    assert (finding.evidence["first_step"], finding.evidence["last_step"]) == (17, 25)
    assert found(_far_apart(1, 2, 1)) is None
    assert found(_far_apart(1, 2, 1, 2), again=3) is None


def test_one_call_made_again_needs_to_be_so_more_often() -> None:
    assert scattered(_far_apart(1, 1, 1, 1, 1)).evidence["wasted_calls"] == 4
    assert found(_far_apart(1, 1, 1, 1)) is None  # asking now and then how something stands is no loop


def test_what_failed_or_was_asked_for_anew_was_not_made_again() -> None:
    assert found(_far_apart(1, 2, 1, 2, ok=False)) is None
    script = _far_apart(1, 2).user()
    script.events += _far_apart(1, 2).events[1:]
    assert found(script) is None


def test_any_threshold_within_bounds_is_served_by_the_same_fold() -> None:
    script = repeat(Script(), 12)
    run = folded(script)
    for size in range(2, 21):
        finding = DETECTOR.detect(run, ToolLoopThresholds(threshold=size, window=max(size, 5)))
        assert (finding is not None and finding.severity is Severity.HIGH) is (size <= 12)
    assert check({"default": {"tool_loop": {"threshold": 20, "window": 100}}})


def test_the_widest_window_reaches_exactly_that_far() -> None:
    def apart(others: int) -> Script:
        script = Script().tool("search", 1)
        for i in range(others):
            script.tool(f"tool-{i}", i)
        return script.tool("search", 1)

    assert high(apart(MAX_WINDOW - 2), threshold=2, window=MAX_WINDOW)
    assert found(apart(MAX_WINDOW - 1), threshold=2, window=MAX_WINDOW) is None


def test_a_users_message_starts_afresh() -> None:
    assert found(repeat(repeat(Script(), 2).user(), 2)) is None
    assert high(repeat(repeat(Script(), 2).user(), 3)).evidence["call_count"] == 3


def test_an_answer_that_comes_after_the_users_message_is_no_part_of_the_new_turn() -> None:
    script = Script().tool("search", 1, "same").called("search", 1).user().responded("search", output="same")
    assert found(script.tool("search", 1, "same")) is None


def test_failed_calls_are_a_retry_storm_and_not_a_loop() -> None:
    script = Script()
    for _ in range(6):
        script.tool("search", 1, ok=False)
    assert found(script) is None
    assert found(Script().tool("search", 1).tool("search", 1, ok=False).tool("search", 1)) is None


def test_a_finding_stays_when_its_last_call_fails() -> None:
    script = repeat(Script(), 2).tool("search", 1, ok=False)
    assert high(script).evidence["call_count"] == 3
    assert high(repeat(script, 1)).evidence["call_count"] == 3
    assert high(repeat(script, 1)).evidence["call_count"] == 4


def test_a_strict_alternation_of_two_tools_is_thrashing() -> None:
    script = Script()
    for _ in range(5):
        script.tool("search", 1).tool("book", 1)
    assert found(script) is None
    assert high(Script().tool("book", 1).tool("book", 1).tool("search", 1).tool("book", 1))
    assert high(Script().tool("book", 1).tool("search", 1).tool("book", 1).tool("pay", 1).tool("book", 1))


def shaped(script: Script, request: int, shape: str = "s", **answer: object) -> Script:
    script.called("search", f"request {request}", args_shape_hash=digest(shape))
    return script.responded("search", **answer)  # type: ignore[arg-type]


def test_arguments_that_differ_only_in_an_id_compare_equal_when_the_outcome_is_the_same() -> None:
    script = Script()
    for i in range(3):
        shaped(script, i, output="nothing")
    finding = high(script)
    assert finding.evidence["same_arguments"] is False
    assert finding.confidence == 0.7
    script = Script()
    for i in range(3):
        shaped(script, i, output_length=17)
    assert high(script)


def test_reading_one_record_after_another_is_work() -> None:
    script = Script()
    for i in range(10):
        shaped(script, i, output=f"record {i % 3}")
    assert found(script) is None
    script = Script()
    for i in range(10):
        shaped(script, i)
    assert found(script) is None, "nothing is known of the outcomes"
    parallel = Script()
    for i in range(5):
        parallel.called("search", f"request {i}", args_shape_hash=digest("s"))
    assert found(parallel) is None


def test_an_equal_pair_without_progress_is_a_weak_sign() -> None:
    finding = weak(Script().tool("search", 1, "same").tool("search", 1, "same"))
    assert (finding.evidence["call_count"], finding.evidence["wasted_calls"]) == (2, 1)
    assert finding.evidence["wasted_ms"] == 200


def test_one_tool_with_other_arguments_and_the_same_output_is_a_weak_sign() -> None:
    finding = weak(Script().tool("search", 1, "[]").tool("search", 2, "[]").tool("search", 3, "[]"))
    assert finding.evidence["same_arguments"] is False
    assert weak(Script().tool("search", None, "[]").tool("search", None, "[]").tool("search", None, "[]"))


def test_visible_progress_clears_a_weak_sign() -> None:
    first, known = ("search", 1, "same"), ("pay", 1, "paid")

    def between(script: Script) -> Script:
        """The same call before and after; `pay` keeps the three from being an alternation of two tools."""
        return Script().tool("book", 0, "x").tool(*known).tool(*first).tool(*known).add(script).tool(*first)

    assert weak(between(Script().tool("book", 0, "x"))), "nothing new"
    assert found(Script().tool(*first).tool("search", 1, "other")) is None, "another output"
    assert found(between(Script().tool("ship", 1, "x"))) is None, "a new tool"
    assert found(between(Script().called("ship", 1))) is None, "a new tool, not answered yet"
    assert found(between(Script().tool("book", 1, "done"))) is None, "a new output"
    assert found(between(Script().tool("book", 1))) is None, "an output that is not known"
    assert found(between(Script().tool("book", 2, ok=False))) is None, "a new error"
    assert found(between(Script().user())) is None, "a word from the user"
    again = Script().tool(*known).tool("book", 0, "x").tool(*first).user()
    again.tool(*first).tool("book", 0, "x").tool(*known).tool(*first)
    assert found(again) is None, "outputs first seen since the user spoke"


def test_a_known_error_again_is_no_progress() -> None:
    script = Script().tool("search", 2, ok=False).tool("search", 1, "same").tool("search", 2, ok=False)
    assert weak(script.tool("search", 1, "same"))


def test_two_of_one_tool_with_other_arguments_are_nothing() -> None:
    assert found(Script().tool("search", 1, "[]").tool("search", 2, "[]")) is None


def test_a_weak_sign_becomes_a_loop() -> None:
    script = repeat(Script(), 2, output="same")
    assert weak(script)
    assert high(repeat(script, 1, output="same"))


def test_the_largest_of_several_loops_speaks() -> None:
    script = repeat(Script(), 3, "small").user()
    assert high(repeat(script, 9, "large")).evidence["args_hash"] == digest("large")


def test_tokens_between_two_repeats_are_shared_among_the_calls_in_between() -> None:
    script = Script().tool("search", 1).llm().tool("book", 1).llm().tool("search", 1).tool("search", 1)
    assert high(script).evidence["wasted_tokens"] == 120
