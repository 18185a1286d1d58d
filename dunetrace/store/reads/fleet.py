"""An agent's judged runs counted by failure, for the test of `dunetrace.fleet`; and the fleet signals it found.

Counted are runs that were judged as ended or stalled and lost no events: for the others nobody knows whether they fail.
Called by the fleet's transactions and by the API's routes.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

from dunetrace.fleet import FleetShift, Scope, Side
from dunetrace.signals import FailureType
from dunetrace.store.reads.paging import Found, Row, Window

if TYPE_CHECKING:
    from datetime import datetime

    from dunetrace.store.gateway import Connection
    from dunetrace.store.reads import scope

# Through the index on (customer_id, agent_id, processed_at).
_JUDGED = """
r.customer_id = $1 AND r.agent_id = $2
AND r.processed_at >= $3 AND r.processed_at < coalesce($4::timestamptz, 'infinity')
AND ($5::text IS NULL OR (r.agent_version = $5) = $6)
AND r.trigger IS NOT NULL AND r.dropped_events = 0 AND r.parked_error IS NULL
"""

_COUNT = f"""
WITH judged AS MATERIALIZED (SELECT r.run_id, r.signal_count FROM runs r WHERE {_JUDGED})
SELECT NULL AS failure_type, NULL AS severity, count(*) AS runs FROM judged
UNION ALL
SELECT s.failure_type, s.severity, count(*) FROM judged JOIN failure_signals s
    ON s.run_id = judged.run_id AND s.customer_id = $1
WHERE judged.signal_count > 0 AND NOT s.shadow GROUP BY 1, 2
"""  # noqa: S608 - made of constants

_NEWEST = f"""
SELECT s.run_id FROM failure_signals s JOIN runs r ON r.run_id = s.run_id AND r.customer_id = s.customer_id
WHERE s.customer_id = $1 AND s.agent_id = $2 AND s.failure_type = $7 AND NOT s.shadow AND {_JUDGED}
ORDER BY s.detected_at DESC, s.id DESC LIMIT 1
"""  # noqa: S608

SHIFT = """
f.scope, f.subject, f.failure_type, extract(epoch FROM f.since)::float8 AS since, f.runs, f.affected, f.runs_before,
f.affected_before
"""

_OF_AGENT = """
FROM fleet_signals f WHERE f.customer_id = $1 AND ($2::text[] IS NULL OR f.agent_id = ANY($2)) AND f.agent_id = $3
"""

_COUNT_SIGNALS = "SELECT count(*) " + _OF_AGENT

_PAGE = f"""
SELECT f.id, f.agent_id, f.severity, f.run_id, extract(epoch FROM f.found_at)::float8 AS found_at,
       extract(epoch FROM f.over_at)::float8 AS over_at, {SHIFT} {_OF_AGENT}
ORDER BY f.id DESC LIMIT $4 OFFSET $5
"""  # noqa: S608

_KNOWN = frozenset(FailureType)


class Runs(NamedTuple):
    """Which of an agent's runs: judged from `since` until `until` (None = until now), of `version`, or if not `of` of
    any other; None = of all."""

    customer_id: str
    agent_id: str
    since: datetime
    until: datetime | None = None
    version: str | None = None
    of: bool = True


class Counted(NamedTuple):
    """How many runs, and by failure type how many of them show it with which severity."""

    runs: int
    affected: dict[FailureType, Counter[str]]

    def side(self, failure_type: FailureType) -> Side:
        return Side(self.runs, self.affected.get(failure_type, Counter()).total())


async def count(conn: Connection, runs: Runs) -> Counted:
    """Two reads of the runs' index, whatever their events."""
    affected: dict[FailureType, Counter[str]] = {}
    total = 0
    for row in await conn.fetch(_COUNT, *runs):
        if row["failure_type"] is None:
            total = row["runs"]
        elif row["failure_type"] in _KNOWN:
            affected.setdefault(FailureType(row["failure_type"]), Counter())[row["severity"]] = row["runs"]
    return Counted(total, affected)


async def newest_affected(conn: Connection, runs: Runs, failure_type: FailureType) -> str:
    """The run of these in which the failure was found last. There must be one."""
    return str(await conn.fetchval(_NEWEST, *runs, failure_type))


async def signals(conn: Connection, whose: scope.Scope, agent_id: str, window: Window) -> Found:
    """An agent's fleet signals, newest first."""
    of_agent = (whose.customer_id, whose.agent_list, agent_id)
    total = await conn.fetchval(_COUNT_SIGNALS, *of_agent)
    records = await conn.fetch(_PAGE, *of_agent, window.limit, window.offset)
    return Found([_shown(dict(record)) for record in records], total)


def shift_of(row: Row) -> FleetShift:
    """The rise that a row with `SHIFT` in it tells of."""
    return FleetShift(
        Scope(row["scope"]),
        row["subject"],
        FailureType(row["failure_type"]),
        row["since"],
        Side(row["runs"], row["affected"]),
        Side(row["runs_before"], row["affected_before"]),
    )


def _shown(row: Row) -> Row:
    return row | shift_of(row).as_json()
