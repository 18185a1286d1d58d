"""What an agent spent in tokens, and what of it its failures wasted. Called by the API's routes."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final

from dunetrace.store.reads.paging import Row
from dunetrace.totals import hour_of

if TYPE_CHECKING:
    from dunetrace.store.gateway import Connection
    from dunetrace.store.reads.scope import Scope

WINDOW_DAYS: Final = {"1d": 1, "7d": 7, "30d": 30}

# Of a row `s` of failure_signals: the tokens its evidence says were wasted, NULL when it says nothing of tokens.
WASTED: Final = (
    "CASE WHEN jsonb_typeof(s.evidence -> 'wasted_tokens') = 'number' "
    "THEN (s.evidence ->> 'wasted_tokens')::numeric END"
)

_SPENT = """
SELECT w.name, coalesce(sum(h.run_count), 0)::bigint AS run_count,
       coalesce(sum(h.total_tokens), 0)::bigint AS total_tokens
FROM unnest($4::text[], $5::timestamptz[]) AS w (name, since)
LEFT JOIN agent_hours h ON h.customer_id = $1 AND h.agent_id = $2 AND ($3::text[] IS NULL OR h.agent_id = ANY($3))
  AND h.hour >= w.since
GROUP BY 1
"""

_WASTE = f"""
SELECT s.failure_type, coalesce(sum({WASTED}), 0)::bigint AS wasted_tokens, count(*) AS affected_runs
FROM failure_signals s
WHERE s.customer_id = $1 AND s.agent_id = $2 AND ($3::text[] IS NULL OR s.agent_id = ANY($3)) AND NOT s.shadow
  AND s.detected_at >= $4
GROUP BY 1 ORDER BY 2 DESC, 3 DESC, 1
"""  # noqa: S608 - made of constants


async def token_stats(conn: Connection, scope: Scope, agent_id: str, now: datetime) -> Row:
    """Runs and tokens in each window, which begins with a whole hour; waste by failure type in the longest."""
    whose = (scope.customer_id, agent_id, scope.agent_list)
    since = {name: hour_of(now - timedelta(days=days)) for name, days in WINDOW_DAYS.items()}
    spent = {
        row["name"]: {"run_count": row["run_count"], "total_tokens": row["total_tokens"]}
        for row in await conn.fetch(_SPENT, *whose, list(since), list(since.values()))
    }
    wasted = await conn.fetch(_WASTE, *whose, min(since.values()))
    return {
        "windows": {name: spent[name] for name in WINDOW_DAYS},
        "waste_by_failure_type": [dict(row) | {"wasted_cost_usd": 0.0} for row in wasted],
    }
