"""What was found: one signal, an agent's, and one run's. Called by the API's routes and by the run read beside it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dunetrace.store.reads.paging import Found, Row, Window

if TYPE_CHECKING:
    from dunetrace.store.gateway import Connection
    from dunetrace.store.reads.scope import Scope

# confidence is kept as REAL; rounding gives back the two decimals the detector wrote.
_FIELDS = """
id, failure_type, severity, run_id, agent_id, agent_version, step_index, round(confidence::numeric, 2)::float8
AS confidence, extract(epoch FROM detected_at)::float8 AS detected_at, evidence, alerted, shadow
"""

_OF_AGENT = """
FROM failure_signals
WHERE customer_id = $1 AND ($2::text[] IS NULL OR agent_id = ANY($2)) AND agent_id = $3
  AND ($4::text IS NULL OR severity = $4) AND ($5::text IS NULL OR failure_type = $5) AND ($6 OR NOT shadow)
"""

_COUNT = "SELECT count(*) " + _OF_AGENT

_PAGE = f"SELECT {_FIELDS} {_OF_AGENT} ORDER BY failure_signals.detected_at DESC, id DESC LIMIT $7 OFFSET $8"

_OF_RUN = f"""
SELECT {_FIELDS} FROM failure_signals
WHERE run_id = $2 AND customer_id = $1 AND ($3::text[] IS NULL OR agent_id = ANY($3)) AND ($4 OR NOT shadow)
ORDER BY step_index, id
"""  # noqa: S608 - made of constants

_ONE = f"""
SELECT {_FIELDS} FROM failure_signals
WHERE id = $2 AND customer_id = $1 AND ($3::text[] IS NULL OR agent_id = ANY($3))
"""  # noqa: S608 - made of constants


async def signal(conn: Connection, scope: Scope, signal_id: int) -> Row | None:
    """One signal; None when there is no such one in scope."""
    record = await conn.fetchrow(_ONE, scope.customer_id, signal_id, scope.agent_list)
    return None if record is None else dict(record)


async def signals(
    conn: Connection,
    scope: Scope,
    agent_id: str,
    window: Window,
    *,
    severity: str | None,
    failure_type: str | None,
    include_shadow: bool,
) -> Found:
    """An agent's signals, newest first."""
    wanted = (scope.customer_id, scope.agent_list, agent_id, severity, failure_type, include_shadow)
    total = await conn.fetchval(_COUNT, *wanted)
    records = await conn.fetch(_PAGE, *wanted, window.limit, window.offset)
    return Found([dict(record) for record in records], total)


async def of_run(conn: Connection, scope: Scope, run_id: str, include_shadow: bool) -> list[Row]:
    """One run's signals (at most one a failure type), in the order of their steps."""
    return [
        dict(record)
        for record in await conn.fetch(_OF_RUN, scope.customer_id, run_id, scope.agent_list, include_shadow)
    ]
