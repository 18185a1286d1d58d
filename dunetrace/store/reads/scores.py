"""The newest judged runs of an agent as its health score counts them. Called by the API's routes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dunetrace.scores import MAX_RUNS, JudgedRun
from dunetrace.store.reads.tokens import WASTED

if TYPE_CHECKING:
    from dunetrace.store.gateway import Connection
    from dunetrace.store.reads.scope import Scope

_NEWEST = f"""
SELECT r.trigger = 'run.errored' AS errored, found.failure_types, r.total_tokens, found.wasted_tokens,
       r.ended_at - r.started_at AS duration_s
FROM (SELECT * FROM runs
      WHERE customer_id = $1 AND agent_id = $2 AND ($3::text[] IS NULL OR agent_id = ANY($3))
        AND processed_at IS NOT NULL AND trigger IS NOT NULL AND parked_error IS NULL
      ORDER BY processed_at DESC LIMIT {MAX_RUNS}) r,
     LATERAL (SELECT coalesce(array_agg(s.failure_type), ARRAY[]::text[]) AS failure_types,
                     coalesce(sum({WASTED}), 0)::bigint AS wasted_tokens
              FROM failure_signals s
              WHERE s.run_id = r.run_id AND s.customer_id = $1 AND NOT s.shadow) found
"""  # noqa: S608 - made of constants


async def newest_judged(conn: Connection, scope: Scope, agent_id: str) -> list[JudgedRun]:
    """At most MAX_RUNS, the last judged first; runs that are going on or parked are left out."""
    return [
        JudgedRun(
            row["errored"], frozenset(row["failure_types"]), row["total_tokens"], row["wasted_tokens"],
            row["duration_s"],
        )
        for row in await conn.fetch(_NEWEST, scope.customer_id, agent_id, scope.agent_list)
    ]  # fmt: skip
