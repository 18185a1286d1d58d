"""When the weekly digest is owed, and several customers' weeks as one."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dunetrace.explain import RateContext
from dunetrace.weekly import (
    TOP,
    WEEK,
    AgentCount,
    Pattern,
    Schedule,
    Span,
    TypeCount,
    Week,
    is_credible,
    together,
)

MONDAY_9 = Schedule(0, 9)
NOW = datetime(2026, 5, 6, 15, 30, tzinfo=UTC)  # a Wednesday
LAST = datetime(2026, 5, 4, 9, tzinfo=UTC)
SECOND = timedelta(seconds=1)
moments = st.datetimes(datetime(2000, 1, 1), datetime(2099, 12, 31), timezones=st.just(UTC))  # noqa: DTZ001
schedules = st.builds(Schedule, st.integers(0, 6), st.integers(0, 23))


@pytest.mark.parametrize(
    ("now", "expected"),
    [
        (NOW, LAST),
        (LAST, LAST),
        (LAST - SECOND, LAST - WEEK),
        (datetime(2026, 5, 4, 8, 59, 59, 999_999, tzinfo=UTC), LAST - WEEK),
        (datetime(2026, 1, 1, 12, tzinfo=UTC), datetime(2025, 12, 29, 9, tzinfo=UTC)),
        (datetime(2024, 3, 3, 23, tzinfo=UTC), datetime(2024, 2, 26, 9, tzinfo=UTC)),  # over 29 February
        (datetime(2026, 3, 29, 9, tzinfo=UTC), datetime(2026, 3, 23, 9, tzinfo=UTC)),  # summer time begins in Europe
        (datetime(2026, 3, 30, 9, tzinfo=UTC), datetime(2026, 3, 30, 9, tzinfo=UTC)),
    ],
    ids=["later", "at once", "just before", "a moment before", "new year", "leap year", "summer time", "the day after"],
)
def test_the_latest_moment(now: datetime, expected: datetime) -> None:
    assert MONDAY_9.latest(now) == expected


@given(schedules, moments)
def test_a_moment_is_on_its_day_and_hour_within_the_week(schedule: Schedule, now: datetime) -> None:
    latest = schedule.latest(now)
    assert (latest.weekday(), latest.hour, latest.minute, latest.second) == (schedule.day, schedule.hour, 0, 0)
    assert latest <= now < schedule.following(now) == latest + WEEK
    assert schedule.latest(latest) == latest


@given(schedules, moments, st.lists(st.integers(0, 4 * 7 * 24 * 60), max_size=30))
def test_looking_at_any_times_each_week_is_owed_once_and_the_last_never_missed(
    schedule: Schedule, start: datetime, minutes: list[int]
) -> None:
    settled, sent = schedule.latest(start), []
    for minute in sorted(minutes):
        now = start + timedelta(minutes=minute)
        owed = schedule.owed(now, settled)
        if owed is not None:
            sent.append(owed)
            settled = owed
        assert settled == schedule.latest(now)
    assert len(set(sent)) == len(sent)
    assert all(moment > start for moment in sent)  # nothing for the time before there was an installation


def test_a_process_that_was_down_sends_late_and_only_the_last_week() -> None:
    assert MONDAY_9.owed(NOW, LAST - WEEK) == LAST
    assert MONDAY_9.owed(NOW, LAST - 5 * WEEK) == LAST
    assert MONDAY_9.owed(NOW, LAST) is None


def test_a_clock_that_steps() -> None:
    assert MONDAY_9.owed(LAST, LAST - WEEK) == LAST
    assert MONDAY_9.owed(LAST - SECOND, LAST) is None  # back, over the moment: it was sent
    assert MONDAY_9.owed(LAST + SECOND, LAST) is None
    ahead = MONDAY_9.latest(NOW + 10 * WEEK)  # far ahead, and back: what it left behind is not to be believed
    assert is_credible(LAST, NOW) and is_credible(LAST + WEEK, NOW)
    assert not is_credible(ahead, NOW)


def test_another_day_or_hour_from_now_on() -> None:
    assert Schedule(3, 9).owed(NOW, LAST) is None
    assert Schedule(3, 9).owed(NOW + timedelta(days=1), LAST) == datetime(2026, 5, 7, 9, tzinfo=UTC)


def test_the_span_is_the_week_before() -> None:
    assert Span.before(LAST) == (datetime(2026, 4, 27, 9, tzinfo=UTC), LAST)
    assert Span.before(LAST).until.tzinfo is UTC


def _week(agent: str, signals: int) -> Week:
    return Week(
        runs=10, tokens=100, agents=2, signals=signals, affected_runs=signals, issues_opened=1, issues_resolved=1,
        types=(TypeCount("TOOL_LOOP", signals, 1),),
        top_agents=(AgentCount(agent, signals, 10),),
        systemic=(Pattern(agent, "TOOL_LOOP", RateContext(10, signals, signals / 10, True)),),
        opened=((agent, "TOOL_LOOP"),), resolved=((agent, "RETRY_STORM"),),
    )  # fmt: skip


def test_one_customer_stays_as_it_is() -> None:
    assert together({"default": _week("bot", 3)}) == _week("bot", 3)


def test_several_customers_add_up_and_their_agents_are_told_apart() -> None:
    both = together({"b": _week("bot", 3), "a": _week("bot", 5)})
    assert (both.runs, both.tokens, both.agents, both.signals, both.affected_runs) == (20, 200, 4, 8, 8)
    assert (both.issues_opened, both.issues_resolved) == (2, 2)
    assert both.types == (TypeCount("TOOL_LOOP", 8, 2),)
    assert [count.agent for count in both.top_agents] == ["a/bot", "b/bot"]
    assert [pattern.agent for pattern in both.systemic] == ["a/bot", "b/bot"]
    assert both.opened == (("a/bot", "TOOL_LOOP"), ("b/bot", "TOOL_LOOP"))
    assert both.resolved == (("a/bot", "RETRY_STORM"), ("b/bot", "RETRY_STORM"))


def test_the_lists_stay_short() -> None:
    many = together({f"customer {n}": _week("bot", n) for n in range(1, 9)})
    assert [count.signals for count in many.top_agents] == [8, 7, 6, 5, 4]
    assert len(many.systemic) == len(many.opened) == len(many.resolved) == TOP
