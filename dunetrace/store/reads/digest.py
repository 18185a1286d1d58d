"""What the weekly digest tells of one customer's week. Read by the digest actor, once a week."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dunetrace.explain import RateContext
from dunetrace.store.reads.rate import SYSTEMIC_RATE, SYSTEMIC_RUNS
from dunetrace.weekly import TOP, AgentCount, Pattern, TypeCount, Week

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dunetrace.store.gateway import Connection
    from dunetrace.store.reads.scope import Scope
    from dunetrace.weekly import Span

_AGENTS = "customer_id = $1 AND ($4::text[] IS NULL OR agent_id = ANY($4))"


async def customers(conn: Connection) -> list[str]:
    """Every customer that ever had a run: the digest is the operator's, who answers for all of them."""
    return [row["customer_id"] for row in await conn.fetch("SELECT DISTINCT customer_id FROM agents ORDER BY 1")]


async def week(conn: Connection, scope: Scope, span: Span) -> Week:
    """Runs by the hour they started in, live signals and issues by when they were found."""
    bounds = (scope.customer_id, span.since, span.until, scope.agent_list)
    runs: Any = await conn.fetchrow(
        f"""
        SELECT coalesce(sum(run_count), 0)::int8 AS runs, coalesce(sum(total_tokens), 0)::int8 AS tokens,
               count(DISTINCT agent_id) FILTER (WHERE run_count > 0) AS agents
        FROM agent_hours WHERE {_AGENTS} AND hour >= $2 AND hour < $3
        """,  # noqa: S608 - only constants of this module are put together
        *bounds,
    )
    affected = await conn.fetchval(
        f"""
        SELECT count(DISTINCT run_id) FROM failure_signals
        WHERE {_AGENTS} AND NOT shadow AND detected_at >= $2 AND detected_at < $3
        """,  # noqa: S608
        *bounds,
    )
    types = await conn.fetch(
        f"""
        SELECT failure_type, sum(signal_count)::int8 AS signals, count(DISTINCT agent_id) AS agents
        FROM signal_hours WHERE {_AGENTS} AND hour >= $2 AND hour < $3 AND signal_count > 0
        GROUP BY failure_type ORDER BY signals DESC, failure_type
        """,  # noqa: S608
        *bounds,
    )
    opened, resolved = await _issues(conn, "first_seen", bounds), await _issues(conn, "resolved_at", bounds)
    return Week(
        runs=runs["runs"],
        tokens=runs["tokens"],
        agents=runs["agents"],
        signals=sum(row["signals"] for row in types),
        affected_runs=affected,
        issues_opened=opened[0],
        issues_resolved=resolved[0],
        types=tuple(TypeCount(row["failure_type"], row["signals"], row["agents"]) for row in types),
        top_agents=await _top_agents(conn, bounds),
        systemic=await _systemic(conn, bounds),
        opened=opened[1],
        resolved=resolved[1],
    )


async def _top_agents(conn: Connection, bounds: Sequence[object]) -> tuple[AgentCount, ...]:
    rows = await conn.fetch(
        f"""
        WITH told AS (
            SELECT agent_id, sum(signal_count)::int8 AS signals FROM signal_hours
            WHERE {_AGENTS} AND hour >= $2 AND hour < $3
            GROUP BY agent_id HAVING sum(signal_count) > 0 ORDER BY signals DESC, agent_id LIMIT $5
        )
        SELECT agent_id, signals,
               (SELECT coalesce(sum(run_count), 0)::int8 FROM agent_hours h
                WHERE h.customer_id = $1 AND h.agent_id = told.agent_id AND h.hour >= $2 AND h.hour < $3) AS runs
        FROM told ORDER BY signals DESC, agent_id
        """,  # noqa: S608
        *bounds,
        TOP,
    )
    return tuple(AgentCount(row["agent_id"], row["signals"], row["runs"]) for row in rows)


async def _systemic(conn: Connection, bounds: Sequence[object]) -> tuple[Pattern, ...]:
    """By the same rule as an alert's rate: a run that shows the failure counts as judged."""
    rows = await conn.fetch(
        f"""
        WITH affected AS (
            SELECT s.agent_id, s.failure_type,
                   coalesce(r.processed_at >= $2 AND r.processed_at < $3, FALSE) AS judged
            FROM failure_signals s LEFT JOIN runs r ON r.run_id = s.run_id AND r.customer_id = s.customer_id
            WHERE s.customer_id = $1 AND ($4::text[] IS NULL OR s.agent_id = ANY($4))
              AND NOT s.shadow AND s.detected_at >= $2 AND s.detected_at < $3
        ), often AS (
            SELECT agent_id, failure_type, count(*) AS affected, count(*) FILTER (WHERE NOT judged) AS going_on
            FROM affected GROUP BY agent_id, failure_type HAVING count(*) >= $5
        ), judged AS (
            SELECT agent_id, count(*) AS runs FROM runs
            WHERE {_AGENTS} AND agent_id IN (SELECT agent_id FROM often)
              AND processed_at >= $2 AND processed_at < $3
            GROUP BY agent_id
        ), rates AS (
            SELECT agent_id, failure_type, affected, coalesce(judged.runs, 0) + going_on AS total
            FROM often LEFT JOIN judged USING (agent_id)
        )
        SELECT * FROM rates WHERE affected >= $6::float8 * total
        ORDER BY affected DESC, agent_id, failure_type LIMIT $7
        """,  # noqa: S608
        *bounds,
        SYSTEMIC_RUNS,
        SYSTEMIC_RATE,
        TOP,
    )
    return tuple(
        Pattern(
            row["agent_id"],
            row["failure_type"],
            RateContext(row["total"], row["affected"], row["affected"] / row["total"], is_systemic=True),
        )
        for row in rows
    )


async def _issues(conn: Connection, when: str, bounds: Sequence[object]) -> tuple[int, tuple[tuple[str, str], ...]]:
    """How many, and the latest few."""
    rows = await conn.fetch(
        f"""
        SELECT agent_id, failure_type, count(*) OVER () AS total FROM issues
        WHERE {_AGENTS} AND {when} >= $2 AND {when} < $3
        ORDER BY {when} DESC, agent_id, failure_type LIMIT $5
        """,  # noqa: S608
        *bounds,
        TOP,
    )
    return (rows[0]["total"] if rows else 0), tuple((row["agent_id"], row["failure_type"]) for row in rows)
