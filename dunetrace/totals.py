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
    """What rows of ``runs`` add to an AgentHour."""

    runs: int
    tokens: int


def difference(changes: Iterable[tuple[Mapping[str, Any], Mapping[str, Any] | None]]) -> dict[AgentHour, Added]:
    """What to add to the totals when rows become others, given as (now, before); before is None where it is new.

    A row counts as one run and its tokens, in the hour the run started.
    """
    sums: dict[AgentHour, list[int]] = {}
    for now, before in changes:
        for row, sign in ((now, 1), (before, -1)):
            if row is not None:
                hour = AgentHour(row["customer_id"], row["agent_id"], row["agent_version"], row["start_hour"])
                added = sums.setdefault(hour, [0, 0])
                added[0] += sign
                added[1] += sign * row["total_tokens"]
    return {hour: Added(*added) for hour, added in sums.items() if any(added)}
