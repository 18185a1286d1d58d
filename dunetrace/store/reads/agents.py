"""The list of agents with their counts, read from the totals tables: what it costs does not grow with the runs.

Called by the API's routes, one unit of work a request.
"""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from typing import TYPE_CHECKING

from dunetrace.store.reads.paging import Found, Row, Window

if TYPE_CHECKING:
    from dunetrace.store.gateway import Connection
    from dunetrace.store.reads.scope import Scope

SPARKLINE_DAYS = 7

_COUNT = "SELECT count(*) FROM agents WHERE customer_id = $1 AND ($2::text[] IS NULL OR agent_id = ANY($2))"

_PAGE = """
SELECT a.agent_id, extract(epoch FROM a.last_seen)::float8 AS last_seen, a.run_count,
       coalesce((SELECT sum(l.dropped) FROM sender_losses l
                 WHERE l.customer_id = $1 AND l.agent_id = a.agent_id), 0)::bigint AS dropped_events
FROM (SELECT agent_id, last_seen, run_count FROM agents
      WHERE customer_id = $1 AND ($2::text[] IS NULL OR agent_id = ANY($2))
      ORDER BY last_seen DESC, agent_id LIMIT $3 OFFSET $4) a
ORDER BY a.last_seen DESC, a.agent_id
"""

# One row per agent, type and severity for each day of the sparkline, and one (day NULL) for all before it.
_SIGNALS = """
SELECT agent_id, failure_type, severity, CASE WHEN hour >= $3 THEN (hour AT TIME ZONE 'UTC')::date END AS day,
       sum(signal_count)::bigint AS signals
FROM signal_hours
WHERE customer_id = $1 AND agent_id = ANY($2::text[])
GROUP BY 1, 2, 3, 4
HAVING sum(signal_count) > 0
ORDER BY 1, 2
"""


async def agents(conn: Connection, scope: Scope, window: Window, today: date) -> Found:
    """Agents, newest activity first. Signals are live ones; `today` (UTC) is the sparkline's last day."""
    total = await conn.fetchval(_COUNT, scope.customer_id, scope.agent_list)
    page = await conn.fetch(_PAGE, scope.customer_id, scope.agent_list, window.limit, window.offset)
    rows: dict[str, Row] = {}
    for record in page:
        rows[record["agent_id"]] = dict(record) | {
            "signal_count": 0,
            "critical_count": 0,
            "high_count": 0,
            "sparkline": [0] * SPARKLINE_DAYS,
            "severity_sparklines": {},
            "failure_types": {},
        }
    if rows:
        first_day = today - timedelta(days=SPARKLINE_DAYS - 1)
        since = datetime.combine(first_day, time(), UTC)
        for record in await conn.fetch(_SIGNALS, scope.customer_id, list(rows), since):
            agent = rows[record["agent_id"]]
            _count(agent, record["failure_type"], record["severity"], record["signals"])
            if record["day"] is not None:
                index = min((record["day"] - first_day).days, SPARKLINE_DAYS - 1)  # the two clocks may differ a little
                agent["sparkline"][index] += record["signals"]
                of_severity = agent["severity_sparklines"].setdefault(record["severity"], [0] * SPARKLINE_DAYS)
                of_severity[index] += record["signals"]
    return Found(list(rows.values()), total)


def _count(agent: Row, failure_type: str, severity: str, signals: int) -> None:
    agent["signal_count"] += signals
    agent["failure_types"][failure_type] = agent["failure_types"].get(failure_type, 0) + signals
    if severity == "CRITICAL":
        agent["critical_count"] += signals
    elif severity == "HIGH":
        agent["high_count"] += signals
