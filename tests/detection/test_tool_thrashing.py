from __future__ import annotations

import pytest

from dunetrace.detectors.tool_loop import DETECTOR as LOOP
from dunetrace.detectors.tool_loop import ToolLoopThresholds
from dunetrace.detectors.tool_thrashing import DETECTOR, ToolThrashingThresholds
from dunetrace.runs import RunState
from dunetrace.signals import Finding, Severity
from dunetrace.views.alternations import MAX_WINDOW
from tests.detection.building import Script, folded
from tests.detection.fixes import fix_of


def found(script: Script, **limits: int) -> Finding | None:
    return DETECTOR.detect(folded(script), ToolThrashingThresholds(**limits))


def loops(script: Script) -> bool:
    return LOOP.detect(folded(script), ToolLoopThresholds()) is not None


def swings(script: Script, names: str, outputs: str = "") -> Script:
    """One good call for each letter, with arguments 1; `outputs` says what each brings, where it is known."""
    for i, name in enumerate(names):
        script.tool(name, 1, outputs[i : i + 1] or None)
    return script


def work(names: str, *, known_outputs: bool = True) -> Script:
    """Each call with arguments and an output of its own."""
    script = Script().started()
    for i, name in enumerate(names):
        script.tool(name, i, f"page {i}" if known_outputs else None)
    return script


@pytest.mark.parametrize("responses_advance", [True, False])
def test_evidence_says_where_how_much_and_what_it_cost(responses_advance: bool) -> None:
    script = Script(responses_advance=responses_advance).started()
    for i in range(4):
        script.llm("tool_calls").tool("read", 1).llm("tool_calls").tool("write", i)
    finding = found(script.completed())
    assert finding is not None
    first, last, sixth = (3, 31, 23) if responses_advance else (2, 16, 12)
    assert finding.evidence == {
        "tool_name": "read", "other_tool_name": "write", "call_count": 8, "window": 6, "first_step": first,
        "last_step": last, "wasted_calls": 6, "wasted_ms": 1_200, "wasted_tokens": 720,
    }  # fmt: skip
    assert (finding.severity, finding.step_index, finding.confidence) == (Severity.HIGH, sixth, 0.81)


def test_the_sixth_call_fires_before_its_answer() -> None:
    script = swings(Script().started(), "ababa").called("b", 1)
    run, told = RunState("run-1"), []
    for event in script:
        run.fold(event)
        told.append(DETECTOR.detect(run, ToolThrashingThresholds()) is not None)
    assert told == [False] * (len(told) - 1) + [True]


@pytest.mark.parametrize("names", ["ababa", "abcabc", "aabbaabb", "aaaaaa", "ababcbab", "abaabab"])
def test_what_is_no_strict_alternation_of_six_is_nothing(names: str) -> None:
    assert found(swings(Script(), names)) is None


@pytest.mark.parametrize("names", ["ccababab", "acbcbcb", "aababab", "abababccc"])
def test_it_may_be_anywhere_in_the_run(names: str) -> None:
    finding = found(swings(Script(), names))
    assert finding is not None
    assert finding.evidence["call_count"] == 6


def test_it_is_known_at_the_end_of_a_long_run_and_the_longest_speaks() -> None:
    script = swings(swings(Script(), "abababab"), "cdcdcd")
    for i in range(300):
        script.tool(f"tool-{i % 50}", i, i)
    finding = found(script)
    assert finding is not None
    assert (finding.evidence["call_count"], finding.evidence["last_step"]) == (8, 8)


def test_any_window_within_bounds_is_served_by_the_same_fold() -> None:
    run = folded(swings(Script(), "ab" * 60))
    for window in (4, 5, 6, MAX_WINDOW):
        finding = DETECTOR.detect(run, ToolThrashingThresholds(window))
        assert finding is not None and finding.step_index == window
    assert DETECTOR.detect(folded(swings(Script(), "ab" * 3)), ToolThrashingThresholds(7)) is None


def test_a_word_from_the_user_starts_afresh() -> None:
    assert found(swings(swings(Script(), "aba").user(), "bab")) is None
    assert found(swings(swings(Script(), "aba").user(), "bababa")) is not None


def test_a_failed_call_is_not_counted_and_breaks_the_alternation() -> None:
    script = swings(Script(), "aba").tool("b", 1, ok=False)
    assert found(swings(script, "aba")) is None
    assert found(swings(script, "bab")) is not None


def test_a_finding_stays_when_its_last_call_fails() -> None:
    script = swings(Script(), "ababa").tool("b", 1, ok=False)
    finding = found(swings(script, "ab"))
    assert finding is not None
    assert finding.evidence["call_count"] == 6


def test_going_through_ever_new_material_is_work() -> None:
    assert found(work("ab" * 20).completed()) is None


def test_arguments_or_an_output_seen_before_are_no_progress() -> None:
    assert found(work("abababa").tool("b", 1, "page 9")) is not None, "arguments"
    assert found(work("abababa").tool("b", 9, "page 1")) is not None, "an output"
    assert found(work("ababababab").tool("a", 99, "page 98").tool("b", 99, "page 99")) is None, "another tool's"


def test_what_is_not_known_is_no_progress() -> None:
    assert found(work("ababab", known_outputs=False)) is not None
    script = Script()
    for i in range(6):
        script.tool("ab"[i % 2], None, f"page {i}")
    assert found(script) is not None, "arguments"


def test_a_batch_of_calls_in_turn_is_judged_by_its_answers() -> None:
    batch = Script().started()
    for i in range(6):
        batch.called("ab"[i % 2], i, call_id=i)
    assert found(batch) is None, "nothing is known yet"
    for i in range(6):
        batch.responded("ab"[i % 2], output=f"page {i}", call_id=i)
    assert found(batch.completed()) is None
    unknown = Script().started()
    for i in range(6):
        unknown.called("ab"[i % 2], i, call_id=i)
    assert found(unknown.responded("b", call_id=1)) is not None


def test_calls_that_were_never_answered_count_once_the_run_is_over() -> None:
    script = Script().started()
    for i in range(6):
        script.called("ab"[i % 2], i)
    assert found(script) is None
    assert found(script.completed()) is not None


def test_a_last_call_still_open_at_the_end_spoils_no_progress() -> None:
    assert found(work("ababa").called("b", 5).errored()) is None


def test_an_alternation_is_taken_up_from_the_call_before() -> None:
    script = Script().tool("c", 1, "x").tool("a", 1, "same").tool("b", 2, "y").tool("a", 3, "same")
    finding = found(script, window=4)
    assert finding is None
    finding = found(script.tool("b", 4, "z"), window=4)
    assert finding is not None, "the first output of a counts"
    assert finding.evidence["first_step"] == 2


def test_one_fault_is_one_signal_beside_a_loop() -> None:
    swing = swings(Script(), "abababab")
    assert found(swing) is not None and not loops(swing)
    loop = swings(Script(), "aaaa")
    assert found(loop) is None and loops(loop)


def test_good_calls_between_failing_ones_of_another_tool_are_a_loop() -> None:
    script = Script()
    for _ in range(4):
        script.tool("a", 1).tool("b", 1, ok=False)
    assert found(script) is None and loops(script)


def test_a_swing_whose_calls_fail_later_is_not_said_twice() -> None:
    script = swings(Script(), "ababab")
    for _ in range(4):
        script.tool("a", 1).tool("b", 1, ok=False)
    assert found(script) is not None and not loops(script)


def test_the_guard_stops_the_sixth_call_in_turn() -> None:
    guard = fix_of("tool_thrashing", "SwingGuard")()
    for name in "aababacabcbcb":
        guard.check(name)
    with pytest.raises(RuntimeError, match="taking turns"):
        guard.check("c")


def test_the_merged_tool_gives_the_second_what_the_first_returned() -> None:
    merged = fix_of("tool_thrashing", "merged")
    assert merged(lambda q: q + 1, lambda found: found * 2)(q=3) == 8
