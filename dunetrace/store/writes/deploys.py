"""Deploys are kept as marks on an agent's trends: which agent, which version, when."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dunetrace.store.gateway import Connection


async def mark_deploy(conn: Connection, customer_id: str, agent_id: str, version: str) -> tuple[int, float]:
    """One row; its id and time in Unix seconds. The same agent and version within a minute is the mark there is.

    That makes a retry after a lost answer harmless; a lock on the mark's name keeps two retries at once apart.
    """
    await conn.execute(
        "SELECT pg_advisory_xact_lock(hashtext('deploys'), hashtext($1 || '/' || $2 || '/' || $3))",
        customer_id,
        agent_id,
        version,
    )
    row = await conn.fetchrow(
        """
        WITH recent AS (
            SELECT id, deployed_at FROM deploys
            WHERE customer_id = $1 AND agent_id = $2 AND version = $3 AND deployed_at > now() - interval '1 minute'
            ORDER BY deployed_at DESC LIMIT 1
        ), made AS (
            INSERT INTO deploys (customer_id, agent_id, version)
            SELECT $1, $2, $3 WHERE NOT EXISTS (SELECT FROM recent)
            RETURNING id, deployed_at
        )
        SELECT id, extract(epoch FROM deployed_at)::float8 AS at FROM (TABLE recent UNION ALL TABLE made) marks
        """,
        customer_id,
        agent_id,
        version,
    )
    assert row is not None  # one of the two always has one
    return row["id"], row["at"]
