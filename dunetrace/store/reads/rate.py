"""How often an agent shows a failure: what an alert says beside the single signal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from dunetrace.explain import RateContext
from dunetrace.store.reads.scope import Scope

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dunetrace.signals import FailureType
    from dunetrace.store.gateway import Connection

SYSTEMIC_RATE, SYSTEMIC_RUNS = 0.10, 2


class RateKey(NamedTuple):
    """What a rate is of."""

    customer_id: str
    agent_id: str
    failure_type: FailureType


async def rate_contexts(conn: Connection, keys: Sequence[RateKey]) -> list[RateContext]:
    """One for each of `keys`, in their order."""
    return [await rate_context(conn, Scope(key.customer_id), key.agent_id, key.failure_type) for key in keys]


async def rate_context(conn: Connection, scope: Scope, agent_id: str, failure_type: FailureType) -> RateContext:
    """Of the agent's runs judged in the last 7 days, how many show `failure_type` live.

    A run that shows it counts as judged, also while it is still going on, so the rate lies in 0..1.
    """
    row: Any = await conn.fetchrow(
        """
        WITH affected AS MATERIALIZED (
            SELECT run_id FROM failure_signals
            WHERE customer_id = $1 AND agent_id = $2 AND failure_type = $3 AND NOT shadow
              AND detected_at >= now() - interval '7 days' AND ($4::text[] IS NULL OR agent_id = ANY($4))
        )
        SELECT (SELECT count(*) FROM affected) AS affected,
               (SELECT count(*) FROM runs
                WHERE customer_id = $1 AND agent_id = $2 AND processed_at >= now() - interval '7 days'
                  AND ($4::text[] IS NULL OR agent_id = ANY($4))) AS judged,
               (SELECT count(*) FROM affected WHERE NOT EXISTS (
                    SELECT FROM runs r WHERE r.run_id = affected.run_id AND r.customer_id = $1
                      AND r.processed_at >= now() - interval '7 days')) AS running
        """,
        scope.customer_id,
        agent_id,
        failure_type,
        scope.agent_list,
    )
    affected: int = row["affected"]
    total: int = row["judged"] + row["running"]
    rate = affected / total if total else 0.0
    return RateContext(
        total_runs=total,
        affected_runs=affected,
        rate=rate,
        is_systemic=rate >= SYSTEMIC_RATE and affected >= SYSTEMIC_RUNS,
    )
