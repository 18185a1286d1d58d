"""What a run and a signal add to the totals. Pure, and computed in this one place.

The judging transaction writes the difference between what a row added before and what it adds now; a recount sums the
same contributions over all rows, so the two can only agree.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, NamedTuple


class AgentHour(NamedTuple):
    """Key of ``agent_hours``; `hour` is when the run started."""

    customer_id: str
    agent_id: str
    agent_version: str
    hour: datetime


class SignalHour(NamedTuple):
    """Key of ``signal_hours``; `hour` is when the signal was detected."""

    customer_id: str
    agent_id: str
    agent_version: str
    failure_type: str
    severity: str
    hour: datetime


def hour_of(at: float | datetime) -> datetime:
    """The UTC hour of a moment, given in Unix seconds or as a datetime."""
    moment = at if isinstance(at, datetime) else datetime.fromtimestamp(at, UTC)
    return moment.astimezone(UTC).replace(minute=0, second=0, microsecond=0)


def runs_of(run: Mapping[str, Any] | None) -> Counter[AgentHour]:
    """The runs a row of ``runs`` counts for: one, in the hour it started; none when there is no row."""
    return Counter() if run is None else Counter({_agent_hour(run): 1})


def tokens_of(run: Mapping[str, Any] | None) -> Counter[AgentHour]:
    """The tokens a row of ``runs`` adds, in the hour it started."""
    return Counter() if run is None else Counter({_agent_hour(run): int(run["total_tokens"])})


def _agent_hour(run: Mapping[str, Any]) -> AgentHour:
    return AgentHour(run["customer_id"], run["agent_id"], run["agent_version"], hour_of(run["start_hour"]))


def difference(now: Mapping[Any, int], before: Mapping[Any, int]) -> dict[Any, int]:
    """What to add to the totals so that they hold `now` instead of `before`; zeros left out."""
    keys = set(now) | set(before)
    changes = {key: now.get(key, 0) - before.get(key, 0) for key in keys}
    return {key: change for key, change in changes.items() if change}
