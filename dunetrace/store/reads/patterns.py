"""One failure type of one agent, looked at closely. Called by the API's routes."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING

from dunetrace.store.reads.paging import Row

if TYPE_CHECKING:
    from dunetrace.store.gateway import Connection
    from dunetrace.store.reads.scope import Scope

TREND_DAYS = 14  # today included
MAX_TOP_RUNS = 10

_MINE = """
s.customer_id = $1 AND s.agent_id = $2 AND ($3::text[] IS NULL OR s.agent_id = ANY($3)) AND s.failure_type = $4
AND NOT s.shadow
"""

_ALL = f"""
SELECT s.step_index, count(*) AS signals,
       extract(epoch FROM min(s.detected_at))::float8 AS first_seen,
       extract(epoch FROM max(s.detected_at))::float8 AS last_seen
FROM failure_signals s WHERE {_MINE} GROUP BY 1 ORDER BY 1
"""  # noqa: S608 - made of constants

_DAYS = f"""
SELECT (s.detected_at AT TIME ZONE 'UTC')::date AS day, count(*) AS signals
FROM failure_signals s WHERE {_MINE} AND s.detected_at >= $5::date::timestamp AT TIME ZONE 'UTC' GROUP BY 1
"""  # noqa: S608 - made of constants

_BESIDE = f"""
SELECT o.failure_type, count(*) AS count
FROM failure_signals s JOIN failure_signals o ON o.run_id = s.run_id AND o.customer_id = s.customer_id
WHERE {_MINE} AND o.failure_type <> $4 AND NOT o.shadow
GROUP BY 1 ORDER BY 2 DESC, 1
"""  # noqa: S608 - made of constants

_TOP = f"""
SELECT s.run_id, extract(epoch FROM s.detected_at)::float8 AS detected_at, s.step_index,
       round(s.confidence::numeric, 2)::float8 AS confidence
FROM failure_signals s WHERE {_MINE}
ORDER BY s.confidence DESC, s.detected_at DESC, s.id DESC LIMIT {MAX_TOP_RUNS}
"""  # noqa: S608 - made of constants


async def failure_pattern(conn: Connection, scope: Scope, agent_id: str, failure_type: str, now: datetime) -> Row:
    """Live signals only; a day is the UTC day a signal was found on."""
    mine = (scope.customer_id, agent_id, scope.agent_list, failure_type)
    steps = await conn.fetch(_ALL, *mine)
    today = now.astimezone(UTC).date()
    days = [today - timedelta(days=back) for back in reversed(range(TREND_DAYS))]
    found: dict[date, int] = {row["day"]: row["signals"] for row in await conn.fetch(_DAYS, *mine, days[0])}
    return {
        "failure_type": failure_type,
        "total_signals": sum(row["signals"] for row in steps),
        "affected_runs": sum(row["signals"] for row in steps),  # one signal a run and type
        "first_seen": min((row["first_seen"] for row in steps), default=None),
        "last_seen": max((row["last_seen"] for row in steps), default=None),
        "daily_trend": [{"day": day, "count": found.get(day, 0)} for day in days],
        "step_distribution": {str(row["step_index"]): row["signals"] for row in steps},
        "co_occurring_signals": [dict(row) for row in await conn.fetch(_BESIDE, *mine)],
        "top_runs": [dict(row) for row in await conn.fetch(_TOP, *mine)],
    }
