"""The weekly digest as facts: when one is owed, and what it tells of a week.

Pure: the caller brings the time. Everything is UTC, which has no summer time, so a week is always 168 hours. Used by
the digest's reads and writes, its actor and its formatter.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from dunetrace.explain import RateContext

WEEK = timedelta(days=7)
TOP = 5  # of each list: more is for the page


class Schedule(NamedTuple):
    """When the digest is due: `day` 0 = Monday … 6, `hour` 0..23, UTC."""

    day: int
    hour: int

    def latest(self, now: datetime) -> datetime:
        """The last moment a digest fell due, `now` included. `now` must be in UTC."""
        hour = now.replace(minute=0, second=0, microsecond=0)
        since = timedelta(days=(hour.weekday() - self.day) % 7, hours=hour.hour - self.hour)
        return hour - since if since >= timedelta(0) else hour - since - WEEK

    def following(self, now: datetime) -> datetime:
        """The next moment it falls due, after `now`."""
        return self.latest(now) + WEEK

    def owed(self, now: datetime, settled: datetime) -> datetime | None:
        """The moment a digest is owed for; None when none is. `settled` is the last that was taken care of.

        Weeks missed altogether are not made up for: only the last counts. A clock that ran ahead a little and came back
        owes nothing twice.
        """
        latest = self.latest(now)
        return latest if latest > settled else None


def is_credible(settled: datetime, now: datetime) -> bool:
    """Whether a digest can have been taken care of for that moment; else the clock was far ahead when it was."""
    return settled - now <= WEEK


class Span(NamedTuple):
    """The week a digest tells of, its end not included."""

    since: datetime
    until: datetime

    @classmethod
    def before(cls, due_at: datetime) -> Span:
        return cls(due_at - WEEK, due_at)


class TypeCount(NamedTuple):
    """A failure type, its live signals, and how many agents showed it."""

    failure_type: str
    signals: int
    agents: int


class AgentCount(NamedTuple):
    """An agent, its live signals and its runs."""

    agent: str
    signals: int
    runs: int


class Pattern(NamedTuple):
    """A failure that is systemic with an agent."""

    agent: str
    failure_type: str
    rate: RateContext


class Week(NamedTuple):
    """What happened in a week, of one customer or of all. The lists hold the most important first."""

    runs: int = 0
    tokens: int = 0
    agents: int = 0  # with at least one run
    signals: int = 0
    affected_runs: int = 0
    issues_opened: int = 0
    issues_resolved: int = 0
    types: tuple[TypeCount, ...] = ()  # all of them
    top_agents: tuple[AgentCount, ...] = ()
    systemic: tuple[Pattern, ...] = ()
    opened: tuple[tuple[str, str], ...] = ()  # (agent, failure type)
    resolved: tuple[tuple[str, str], ...] = ()


def together(weeks: Mapping[str, Week]) -> Week:
    """All customers' weeks as one. Where there are several, an agent's name begins with its customer's."""
    if len(weeks) == 1:
        return next(iter(weeks.values()))
    types: dict[str, TypeCount] = {}
    for week in weeks.values():
        for count in week.types:
            before = types.get(count.failure_type, TypeCount(count.failure_type, 0, 0))
            types[count.failure_type] = before._replace(
                signals=before.signals + count.signals, agents=before.agents + count.agents
            )
    named = dict(sorted(weeks.items()))
    agents = [a._replace(agent=f"{customer}/{a.agent}") for customer, week in named.items() for a in week.top_agents]
    patterns = [p._replace(agent=f"{customer}/{p.agent}") for customer, week in named.items() for p in week.systemic]
    return Week(
        runs=sum(week.runs for week in weeks.values()),
        tokens=sum(week.tokens for week in weeks.values()),
        agents=sum(week.agents for week in weeks.values()),
        signals=sum(week.signals for week in weeks.values()),
        affected_runs=sum(week.affected_runs for week in weeks.values()),
        issues_opened=sum(week.issues_opened for week in weeks.values()),
        issues_resolved=sum(week.issues_resolved for week in weeks.values()),
        types=tuple(sorted(types.values(), key=lambda count: (-count.signals, count.failure_type))),
        top_agents=tuple(sorted(agents, key=lambda count: (-count.signals, count.agent))[:TOP]),
        systemic=tuple(sorted(patterns, key=lambda p: (-p.rate.affected_runs, p.agent, p.failure_type))[:TOP]),
        opened=_issues((customer, week.opened) for customer, week in named.items()),
        resolved=_issues((customer, week.resolved) for customer, week in named.items()),
    )


def _issues(named: Iterable[tuple[str, tuple[tuple[str, str], ...]]]) -> tuple[tuple[str, str], ...]:
    return tuple((f"{customer}/{agent}", kind) for customer, issues in named for agent, kind in issues)[:TOP]
