"""What goes wrong with an agent again and again: issues, one per failure type. Called by the API's routes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dunetrace.store.reads.paging import Found, Row, Window

if TYPE_CHECKING:
    from dunetrace.store.gateway import Connection
    from dunetrace.store.reads.scope import Scope

MAX_AFFECTED_RUNS = 100  # of one issue's answer, newest first; `affected_runs_count` counts all

_FIELDS = """
id, agent_id, failure_type, status, extract(epoch FROM first_seen)::float8 AS first_seen,
extract(epoch FROM last_seen)::float8 AS last_seen, extract(epoch FROM resolved_at)::float8 AS resolved_at,
affected_runs, clean_runs_since, extract(epoch FROM acknowledged_at)::float8 AS acknowledged_at,
CASE WHEN snoozed_until > now() THEN extract(epoch FROM snoozed_until)::float8 END AS snoozed_until
"""

_OF_AGENT = f"""
SELECT {_FIELDS} FROM issues
WHERE customer_id = $1 AND ($2::text[] IS NULL OR agent_id = ANY($2)) AND agent_id = $3
  AND ($4::text IS NULL OR status = $4)
ORDER BY issues.last_seen DESC, id
"""  # noqa: S608 - made of constants

_MATCHING = """
FROM issues
WHERE customer_id = $1 AND ($2::text[] IS NULL OR agent_id = ANY($2))
  AND ($3 = '' OR position(lower($3) IN lower(agent_id)) > 0 OR position(lower($3) IN lower(failure_type)) > 0)
  AND ($4::text IS NULL OR status = $4) AND ($5::text IS NULL OR agent_id = $5)
  AND ($6::text IS NULL OR failure_type = $6)
"""

_MATCH_COUNT = "SELECT count(*) " + _MATCHING

_MATCH_PAGE = f"SELECT {_FIELDS} {_MATCHING} ORDER BY issues.last_seen DESC, id LIMIT $7 OFFSET $8"

_ONE = f"""
SELECT {_FIELDS} FROM issues
WHERE id = $2 AND customer_id = $1 AND ($3::text[] IS NULL OR agent_id = ANY($3))
"""  # noqa: S608 - made of constants

_AFFECTED = """
SELECT run_id, extract(epoch FROM detected_at)::float8 AS detected_at, step_index,
       round(confidence::numeric, 2)::float8 AS confidence
FROM failure_signals
WHERE customer_id = $1 AND agent_id = $2 AND failure_type = $3 AND NOT shadow
ORDER BY failure_signals.detected_at DESC, id DESC LIMIT $4
"""


async def issues(conn: Connection, scope: Scope, agent_id: str, status: str | None) -> list[Row]:
    """An agent's issues, latest trouble first: one per failure type, so nothing to page. `status` None is all."""
    records = await conn.fetch(_OF_AGENT, scope.customer_id, scope.agent_list, agent_id, status)
    return [dict(record) for record in records]


async def search(
    conn: Connection,
    scope: Scope,
    window: Window,
    *,
    text: str,
    status: str | None,
    agent_id: str | None,
    failure_type: str | None,
) -> Found:
    """Issues of all agents, latest trouble first. `text` is part of an agent's id or a failure type, in any case."""
    wanted = (scope.customer_id, scope.agent_list, text, status, agent_id, failure_type)
    total = await conn.fetchval(_MATCH_COUNT, *wanted)
    records = await conn.fetch(_MATCH_PAGE, *wanted, window.limit, window.offset)
    return Found([dict(record) for record in records], total)


async def issue(conn: Connection, scope: Scope, issue_id: int) -> Row | None:
    """One issue, `runs` being its newest affected ones; None when there is none in scope."""
    record = await conn.fetchrow(_ONE, scope.customer_id, issue_id, scope.agent_list)
    if record is None:
        return None
    affected = await conn.fetch(
        _AFFECTED, scope.customer_id, record["agent_id"], record["failure_type"], MAX_AFFECTED_RUNS
    )
    return dict(record) | {"runs": [dict(run) for run in affected]}
