"""The fixes people applied or copied, and what the agent's runs did before and after them. Called by the API's routes.

A fix belongs to a signal, whose row says whose it is and which failure it is about; without it, it is not shown.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from dunetrace.store.reads.paging import Row
from dunetrace.verdicts import Recurrence

if TYPE_CHECKING:
    from dunetrace.store.gateway import Connection
    from dunetrace.store.reads.scope import Scope

BEFORE_DAYS: Final = 30  # how far back the rate before a fix is counted
MAX_FIXES: Final = 100  # of one answer, newest first to stay

_SIGNAL = """
SELECT s.id, s.agent_id, s.failure_type FROM failure_signals s
WHERE s.id = $2 AND s.customer_id = $1 AND ($3::text[] IS NULL OR s.agent_id = ANY($3))
"""

_OF_SIGNAL = f"""
SELECT id AS fix_id, fix_type, applied_via, extract(epoch FROM applied_at)::float8 AS applied_at, langfuse_prompt_name,
       langfuse_version
FROM fixes WHERE customer_id = $1 AND signal_id = $2 ORDER BY fixes.applied_at, id LIMIT {MAX_FIXES}
"""  # noqa: S608 - made of constants

_OF_AGENT = f"""
SELECT f.signal_id, s.failure_type, f.fix_type, f.applied_via, extract(epoch FROM f.applied_at)::float8 AS applied_at,
       extract(epoch FROM (SELECT min(e.applied_at) FROM fixes e
                           WHERE e.customer_id = $1 AND e.signal_id = f.signal_id))::float8 AS first_applied_at
FROM fixes f JOIN failure_signals s ON s.id = f.signal_id AND s.customer_id = f.customer_id
WHERE f.customer_id = $1 AND s.agent_id = $2 AND ($3::text[] IS NULL OR s.agent_id = ANY($3))
ORDER BY f.applied_at DESC, f.id DESC LIMIT {MAX_FIXES}
"""  # noqa: S608 - made of constants

# When a run started, by the clock its start_hour was taken from: the client's, or the server's where they disagree.
_STARTED = """
CASE WHEN r.started_at >= extract(epoch FROM r.start_hour) AND r.started_at < extract(epoch FROM r.start_hour) + 3600
     THEN r.started_at ELSE extract(epoch FROM r.start_hour)::float8 END
"""

# Runs that tell: ended or stalled, with no events lost. `$5` are moments in order; a run's place is how many of them
# its start has passed.
_TELLING = f"""
FROM runs r
WHERE r.customer_id = $1 AND r.agent_id = $2 AND ($3::text[] IS NULL OR r.agent_id = ANY($3)) AND r.start_day >= $4
  AND r.trigger IS NOT NULL AND r.parked_error IS NULL AND r.dropped_events = 0
GROUP BY width_bucket({_STARTED}, $5::float8[])
"""

_RUNS = f"SELECT width_bucket({_STARTED}, $5::float8[]) AS place, count(*) AS runs {_TELLING}"

_RECURRED = f"""
SELECT s.failure_type, width_bucket({_STARTED}, $5::float8[]) AS place, count(*) AS runs,
       count(*) FILTER (WHERE r.trigger IS NULL OR r.parked_error IS NOT NULL OR r.dropped_events > 0) AS uncounted
FROM failure_signals s JOIN runs r ON r.run_id = s.run_id AND r.customer_id = s.customer_id
WHERE s.customer_id = $1 AND s.agent_id = $2 AND ($3::text[] IS NULL OR s.agent_id = ANY($3))
  AND s.failure_type = ANY($6) AND NOT s.shadow AND r.start_day >= $4
GROUP BY 1, 2
"""  # noqa: S608 - made of constants

# failure type and moment of the fix, Unix seconds
Fixed = tuple[str, float]


async def fixes_of_signal(conn: Connection, scope: Scope, signal_id: int) -> Row | None:
    """A signal's fixes, oldest first, and the recurrence around the earliest (None without a fix).

    None when there is no such signal in scope.
    """
    signal = await conn.fetchrow(_SIGNAL, scope.customer_id, signal_id, scope.agent_list)
    if signal is None:
        return None
    fixes = [dict(record) for record in await conn.fetch(_OF_SIGNAL, scope.customer_id, signal_id)]
    seen = None
    if fixes:
        fixed = (signal["failure_type"], fixes[0]["applied_at"])
        seen = (await _recurrences(conn, scope, signal["agent_id"], [fixed]))[fixed]
    return {"fixes": fixes, "seen": seen}


async def fixes_of_agent(conn: Connection, scope: Scope, agent_id: str) -> list[Row]:
    """An agent's fixes, newest first, each with `seen`, the recurrence around the earliest fix of its signal."""
    records = await conn.fetch(_OF_AGENT, scope.customer_id, agent_id, scope.agent_list)
    fixed = [(record["failure_type"], record["first_applied_at"]) for record in records]
    seen = await _recurrences(conn, scope, agent_id, fixed) if fixed else {}
    return [dict(record) | {"seen": seen[one]} for record, one in zip(records, fixed, strict=True)]


async def _recurrences(
    conn: Connection, scope: Scope, agent_id: str, fixed: Sequence[Fixed]
) -> dict[Fixed, Recurrence]:
    """For all the fixes at once, so that an agent's runs are read once and not once a fix."""
    before_s = BEFORE_DAYS * 86_400.0
    moments = sorted({moment for _, at in fixed for moment in (at - before_s, at)})
    since = datetime.fromtimestamp(moments[0], UTC).date() - timedelta(days=1)
    asked = (scope.customer_id, agent_id, scope.agent_list, since, moments)
    runs: dict[int, int] = {row["place"]: row["runs"] for row in await conn.fetch(_RUNS, *asked)}
    recurred: dict[str, dict[int, Any]] = defaultdict(dict)
    for row in await conn.fetch(_RECURRED, *asked, sorted({failure_type for failure_type, _ in fixed})):
        recurred[row["failure_type"]][row["place"]] = row
    places = {moment: place for place, moment in enumerate(moments, 1)}

    def counted(failure_type: str, first: int, last: int) -> tuple[int, int]:
        rows = [row for place, row in recurred[failure_type].items() if first <= place < last]
        total = sum(n for place, n in runs.items() if first <= place < last)
        # A run that shows the failure tells, whatever else is the matter with it.
        return total + sum(row["uncounted"] for row in rows), sum(row["runs"] for row in rows)

    return {
        (failure_type, at): Recurrence(
            *counted(failure_type, places[at - before_s], places[at]),
            *counted(failure_type, places[at], len(moments) + 1),
        )
        for failure_type, at in fixed
    }
