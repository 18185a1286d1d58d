"""What is told at once, what later, and what not at all: the decision itself, without a database."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from dunetrace.deliveries import Kind
from dunetrace.signals import Severity
from dunetrace.threads import SPACING, Hush, Sight, Step, Thread, ended, is_owed_note, meet, updated

WINDOW_S = 3600.0
LOW, MEDIUM, HIGH, CRITICAL = Severity


def _met(*steps: tuple[float, Sight], gather_s: float = WINDOW_S) -> list[Step]:
    """What each sight leads to, each at its second."""
    thread, met = Thread(), []
    for at, sight in steps:
        met.append(meet(thread, sight, gather_s, at))
        thread = met[-1].thread
    return met


def _told(step: Step) -> tuple[Kind, int] | str | None:
    if step.telling is not None:
        return step.telling.kind, step.telling.seq
    return "gathered" if step.gathers else None


def test_the_first_is_told_at_once_and_the_next_are_gathered() -> None:
    met = _met((100.0, Sight("a", HIGH)), (101.0, Sight("b", HIGH)), (102.0, Sight("c", MEDIUM)))
    assert [_told(step) for step in met] == [(Kind.FIRST, 0), "gathered", "gathered"]
    assert met[-1].thread == Thread("a", HIGH, 0, 100.0, 0, due_at=160.0)


def test_updates_come_after_growing_waits_and_then_each_window() -> None:
    (step,) = _met((0.0, Sight("first", HIGH)))
    thread, at, waits = step.thread, 0.0, []
    for n in range(6):
        thread = meet(thread, Sight(f"run {n}", HIGH), WINDOW_S, at + 1).thread
        assert thread.due_at is not None
        waits.append(thread.due_at - at)
        at = thread.due_at
        thread = updated(thread, f"run {n}", HIGH, 0, at)
    assert waits == [60.0, 300.0, 900.0, 3600.0, 3600.0, 3600.0]
    assert waits[:4] == [share * WINDOW_S for share in SPACING]
    assert thread.updates == 6


def test_after_a_quiet_window_it_is_a_first_again() -> None:
    met = _met((0.0, Sight("a", HIGH)), (WINDOW_S - 1, Sight("b", HIGH)))
    assert met[-1].gathers and met[-1].thread.due_at == WINDOW_S - 1  # long enough since the first: at once
    met = _met((0.0, Sight("a", HIGH)), (WINDOW_S, Sight("b", LOW)))
    assert _told(met[-1]) == (Kind.FIRST, 0) and met[-1].thread.severity is LOW
    waiting = Thread("a", HIGH, 0, 0.0, 0, due_at=60.0)
    assert meet(waiting, Sight("b", HIGH), WINDOW_S, 10 * WINDOW_S).gathers  # an update is still owed


def test_what_is_worse_is_told_at_once_and_once() -> None:
    met = _met(
        (0.0, Sight("a", MEDIUM)),
        (1.0, Sight("b", HIGH)),
        (2.0, Sight("c", HIGH)),
        (3.0, Sight("a", CRITICAL, told=MEDIUM)),
        (4.0, Sight("b", CRITICAL, told=HIGH)),
        (5.0, Sight("c", CRITICAL, gathered=True)),
    )
    assert [_told(step) for step in met] == [
        (Kind.FIRST, 0),
        (Kind.ESCALATED, HIGH.rank),
        "gathered",
        (Kind.ESCALATED, CRITICAL.rank),
        None,
        None,
    ]


def test_without_gathering_each_is_told_and_each_that_rises() -> None:
    met = _met(
        (0.0, Sight("a", HIGH)),
        (1.0, Sight("b", LOW)),
        (2.0, Sight("b", MEDIUM, told=LOW, hush=Hush.SNOOZED)),
        (3.0, Sight("b", MEDIUM, told=MEDIUM)),
        (4.0, Sight("c", LOW, hush=Hush.ACKNOWLEDGED)),
        gather_s=0.0,
    )
    assert [_told(step) for step in met] == [
        (Kind.FIRST, 0),
        (Kind.FIRST, 0),
        (Kind.ESCALATED, MEDIUM.rank),
        None,
        (Kind.FIRST, 0),
    ]


def test_who_knows_hears_of_nothing_but_worse() -> None:
    met = _met(
        (0.0, Sight("a", MEDIUM)),
        (1.0, Sight("b", MEDIUM, hush=Hush.ACKNOWLEDGED)),
        (9 * WINDOW_S, Sight("c", MEDIUM, hush=Hush.ACKNOWLEDGED)),
        (9 * WINDOW_S, Sight("d", HIGH, hush=Hush.ACKNOWLEDGED)),
    )
    assert [_told(step) for step in met[1:]] == ["gathered", "gathered", (Kind.ESCALATED, HIGH.rank)]


def test_what_is_snoozed_is_gathered_whatever_comes() -> None:
    met = _met(
        (0.0, Sight("a", HIGH, hush=Hush.SNOOZED)),
        (1.0, Sight("b", CRITICAL, hush=Hush.SNOOZED)),
        (2.0, Sight("a", CRITICAL, told=HIGH, hush=Hush.SNOOZED)),
    )
    assert [_told(step) for step in met] == ["gathered"] * 3
    assert met[0].thread == Thread("a", None, 0, 0.0, 0, due_at=0.0)
    assert is_owed_note(met[0].thread, 0)  # it was about to be told


def test_the_next_life_of_an_issue_is_news_that_it_is_back() -> None:
    (first,) = _met((0.0, Sight("a", HIGH)))
    assert first.telling is not None and not first.telling.reopened
    assert is_owed_note(first.thread, 0) and not is_owed_note(ended(first.thread), 0)
    for before in (first.thread, ended(first.thread)):  # reopened before its note was made, or after
        back = meet(before, Sight("b", LOW, life=1), WINDOW_S, 1.0)
        assert back.telling is not None and (back.telling.kind, back.telling.reopened) == (Kind.FIRST, True)
        assert meet(back.thread, Sight("c", LOW, life=1), WINDOW_S, 2.0).gathers
        assert not is_owed_note(back.thread, 0) and is_owed_note(back.thread, 1)
    late = meet(ended(first.thread), Sight("d", HIGH), WINDOW_S, 1.0)
    assert late.telling is not None and not late.telling.reopened  # seen in the life that was ended


sights = st.builds(
    Sight,
    run_id=st.uuids().map(str),
    severity=st.sampled_from(Severity),
    life=st.integers(0, 2),
    told=st.none() | st.sampled_from(Severity),
    gathered=st.booleans(),
    hush=st.none() | st.sampled_from(Hush),
)


@given(
    steps=st.lists(st.tuples(st.floats(0, 2 * WINDOW_S), sights), max_size=30), gather_s=st.sampled_from([0.0, 60.0])
)
def test_whatever_comes(steps: list[tuple[float, Sight]], gather_s: float) -> None:
    thread, at = Thread(), 1.7e9
    for wait_s, sight in steps:
        at += wait_s
        step = meet(thread, sight, gather_s, at)
        new = sight.told is None and not sight.gathered
        assert not (new and step.telling is None and not step.gathers)  # nothing new is passed over
        assert not (step.gathers and step.thread.due_at is None)  # what is gathered is due some day
        assert thread.due_at is None or step.thread.due_at is not None  # and stays so
        if step.telling is not None:
            assert step.thread.told_at == at and step.thread.run_id == sight.run_id
            assert sight.hush is not Hush.SNOOZED or gather_s == 0
            assert gather_s == 0 or step.telling.kind is Kind.ESCALATED or sight.hush is None
        if gather_s == 0:
            assert not step.gathers
        thread = step.thread
