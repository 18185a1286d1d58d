"""What an agent spent in tokens, and what of it its failures wasted. Called by the API's routes."""

from __future__ import annotations

from collections import defaultdict
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final

from dunetrace.store.reads.paging import Row
from dunetrace.totals import hour_of

if TYPE_CHECKING:
    from dunetrace.prices import Prices
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


# The wasted tokens of each signal, split as its run's own tokens are; by model, so that a few prices fit all of them.
_WASTED_MIX = f"""
WITH wasted AS (
    SELECT s.failure_type, r.token_mix, {WASTED}::float8 / nullif(r.total_tokens, 0) AS share
    FROM failure_signals s JOIN runs r ON r.run_id = s.run_id AND r.customer_id = s.customer_id
    WHERE s.customer_id = $1 AND s.agent_id = $2 AND ($3::text[] IS NULL OR s.agent_id = ANY($3)) AND NOT s.shadow
      AND s.detected_at >= $4 AND {WASTED} > 0 AND r.token_mix IS NOT NULL
)
SELECT failure_type, model, sum(share * (spent ->> 0)::float8) AS prompt, sum(share * (spent ->> 1)::float8) AS cached,
       sum(share * (spent ->> 2)::float8) AS completion
FROM wasted, jsonb_each(token_mix) AS e (model, spent) GROUP BY 1, 2
"""  # noqa: S608


async def token_stats(conn: Connection, scope: Scope, agent_id: str, now: datetime, prices: Prices) -> Row:
    """Runs and tokens in each window, which begins with a whole hour; waste by failure type in the longest.

    The cost is that of models with a price; what has none, or is not known by model, costs nothing here.
    """
    whose = (scope.customer_id, agent_id, scope.agent_list)
    since = {name: hour_of(now - timedelta(days=days)) for name, days in WINDOW_DAYS.items()}
    spent = {
        row["name"]: {"run_count": row["run_count"], "total_tokens": row["total_tokens"]}
        for row in await conn.fetch(_SPENT, *whose, list(since), list(since.values()))
    }
    wasted = await conn.fetch(_WASTE, *whose, min(since.values()))
    usd: defaultdict[str, float] = defaultdict(float)
    for row in await conn.fetch(_WASTED_MIX, *whose, min(since.values())) if prices else ():
        price = prices.of(row["model"])
        usd[row["failure_type"]] += price.usd(row["prompt"], row["cached"], row["completion"]) if price else 0.0
    return {
        "windows": {name: spent[name] for name in WINDOW_DAYS},
        "waste_by_failure_type": [dict(row) | {"wasted_cost_usd": usd[row["failure_type"]]} for row in wasted],
    }
