from __future__ import annotations

import pytest

from dunetrace.calls import MAX_OPEN_CALLS
from dunetrace.runs import RunState
from tests.detection.building import Script, folded


def durations(run: RunState) -> list[float | None]:
    return [None if call.duration_ms is None else round(call.duration_ms) for call in run.steps]


def test_a_call_id_wins_over_everything_else() -> None:
    script = Script().called("search", call_id=0).called("search", call_id=1)
    script.emit("tool.responded", tool_name="book", success=False, call_id=0, latency_ms=5_000)
    first, second = folded(script).steps
    assert first.failed is True
    assert not second.answered


def test_a_call_id_of_one_kind_does_not_answer_another_kind() -> None:
    script = Script().llm_called(call_id=0).called("search", call_id=0)
    script.emit("llm.responded", call_id=0)
    llm, tool = folded(script).steps
    assert llm.answered and not tool.answered


def test_an_answer_with_another_call_id_answers_nothing() -> None:
    run = folded(Script().called("search", call_id=6).responded("search", call_id=5))
    assert not run.steps[0].answered


def test_an_answer_with_a_call_id_still_finds_the_call_that_has_none() -> None:
    assert folded(Script().called("search").responded("search", call_id=5)).steps[0].answered


def test_without_a_call_id_the_latest_open_call_of_that_tool_is_meant() -> None:
    run = folded(Script().called("search").called("book").called("search").responded("search"))
    assert [call.answered for call in run.steps] == [False, False, True]


def test_an_answer_of_a_tool_that_was_not_called_answers_nothing() -> None:
    assert not folded(Script().called("search").responded("book")).steps[0].answered


def test_without_a_tool_name_the_step_decides_and_else_the_latest() -> None:
    script = Script().called("search").called("book")
    script.step = 1
    script.emit("tool.responded", success=True)
    assert [call.answered for call in folded(script).steps] == [True, False]
    script.step = 9
    script.emit("tool.responded", success=True)
    assert [call.answered for call in folded(script).steps] == [True, True]


def test_a_reused_call_id_means_its_latest_call() -> None:
    run = folded(Script().called("search", call_id="x").called("search", call_id="x").responded("search", call_id="x"))
    assert [call.answered for call in run.steps] == [False, True]


def test_the_larger_of_the_reported_and_the_measured_duration_counts() -> None:
    script = Script()
    script.called().responded(latency_ms=5_000).called().responded(latency_ms=1)
    assert durations(folded(script)) == [5_000, 200]


def test_a_call_passed_over_by_a_later_answer_is_unanswered_until_its_own_answer_comes() -> None:
    script = Script().called("search").called("book").responded("book")
    run = folded(script)
    run.as_of = script.now + 3_600
    first = run.steps[0]
    assert run.is_unanswered(first)
    assert run.duration_ms(first) is None
    assert run.hanging is None
    run.fold(script.responded("search").events[-1])
    assert not run.is_unanswered(first)
    assert run.duration_ms(first) is not None


def test_an_open_call_is_measured_from_its_receipt_by_the_servers_clock() -> None:
    run = folded(Script().started().called("search"))
    call = run.steps[0]
    run.as_of = call.received_at + 20
    assert run.hanging is call
    assert run.duration_ms(call) == pytest.approx(20_000)


def test_a_call_hangs_only_while_nothing_later_came() -> None:
    assert folded(Script().called().emit("external.signal", signal_name="x")).hanging is None
    assert folded(Script().called().completed()).hanging is None
    assert folded(Script().called().responded()).hanging is None
    assert RunState("empty").hanging is None


def test_calls_that_are_never_answered_are_bounded_and_the_forgotten_count_as_unanswered() -> None:
    script = Script()
    for _ in range(MAX_OPEN_CALLS + 10):
        script.called("search")
    run = folded(script)
    assert run.is_unanswered(run.steps[0])
    assert not run.is_unanswered(run.steps[-1])


def test_an_early_call_answered_late_does_not_reopen_what_lies_between() -> None:
    script = Script().called("a", call_id=1).called("b", call_id=2).called("c", call_id=3)
    run = folded(script.responded("c", call_id=3).responded("a", call_id=1))
    assert [run.is_unanswered(call) for call in run.steps] == [False, True, False]


def test_closing_a_call_leaves_a_later_one_with_the_same_id_to_be_found() -> None:
    script = Script().called("search", call_id="x").called("book", call_id="x").responded("search")
    run = folded(script.emit("tool.responded", call_id="x"))
    assert [call.answered for call in run.steps] == [True, True]
