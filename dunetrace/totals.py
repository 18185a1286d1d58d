"""What a run and a signal add to the totals. Pure, and computed in this one place.

The judging transaction writes the difference between what a row added before and what it adds now; a recount sums the
same contributions over all rows, so the two can only agree.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
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


class Added(NamedTuple):
    """What a row of ``runs`` adds to its AgentHour."""

    runs: int
    tokens: int


def of_run(run: Mapping[str, Any]) -> tuple[AgentHour, Added]:
    """What a row of ``runs`` counts for: one run and its tokens, in the hour it started."""
    hour = AgentHour(run["customer_id"], run["agent_id"], run["agent_version"], run["start_hour"])
    return hour, Added(1, run["total_tokens"])


def difference(changes: Iterable[tuple[Mapping[str, Any], Mapping[str, Any] | None]]) -> dict[AgentHour, Added]:
    """What to add to the totals when rows become others, given as (now, before); before is None where it is new."""
    sums: dict[AgentHour, Added] = {}
    for now, before in changes:
        hour, added = of_run(now)
        sums[hour] = _sum(sums.get(hour), added, 1)
        if before is not None:
            hour, added = of_run(before)
            sums[hour] = _sum(sums.get(hour), added, -1)
    return {hour: added for hour, added in sums.items() if any(added)}


def _sum(held: Added | None, added: Added, sign: int) -> Added:
    runs, tokens = held or (0, 0)
    return Added(runs + sign * added.runs, tokens + sign * added.tokens)
