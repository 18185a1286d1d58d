"""An agent's runs, and one run with its events and signals. Called by the API's routes, one unit of work a request."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dunetrace.store.reads import signals
from dunetrace.store.reads.paging import Found, Row, Window

if TYPE_CHECKING:
    from dunetrace.store.gateway import Connection
    from dunetrace.store.reads.scope import Scope

# What one answer holds of a run's events at most, newest first to stay: 10,000 is the ring of a published client,
# and the bytes (of payload text) bound what a run of unusually large events may take of this process's memory.
MAX_EVENTS = 10_000
MAX_EVENT_BYTES = 16 * 1024 * 1024

_SUMMARY = """
run_id, agent_id, agent_version,
CASE WHEN parked_error IS NOT NULL THEN 'parked' WHEN trigger = 'stalled' THEN 'stalled'
     WHEN trigger IS NOT NULL THEN 'ended' ELSE 'running' END AS status,
started_at, ended_at AS completed_at, coalesce(trigger, '') AS exit_reason, step_count, signal_count,
signal_count > 0 AS has_signals, total_tokens, token_mix
"""

_STANDING = """
CASE WHEN parked_error IS NOT NULL THEN 'parked' WHEN trigger = 'stalled' THEN 'stalled'
     WHEN trigger = 'run.errored' THEN 'errored' WHEN trigger IS NOT NULL THEN 'completed' ELSE 'running' END
"""

_OF_AGENT = f"""
FROM runs WHERE customer_id = $1 AND ($2::text[] IS NULL OR agent_id = ANY($2)) AND agent_id = $3
            AND ($4::boolean IS NULL OR (signal_count > 0) = $4)
            AND ($5::text IS NULL OR {_STANDING} = $5)
"""

_COUNT = "SELECT count(*) " + _OF_AGENT

_PAGE = f"SELECT {_SUMMARY} {_OF_AGENT} ORDER BY started_at DESC, run_id LIMIT $6 OFFSET $7"

_RUN = f"""
SELECT {_SUMMARY}, parent_run_id, dropped_events, parked_error, first_day, last_day
FROM runs WHERE run_id = $2 AND customer_id = $1 AND ($3::text[] IS NULL OR agent_id = ANY($3))
"""  # noqa: S608 - made of constants

# The bounds on `day` come from the run's own row, so that only the partitions that can hold its events are read.
_EVENTS = """
WITH newest AS (
    SELECT id, event_type, step_index, timestamp, payload, parent_run_id FROM events
    WHERE run_id = $2 AND customer_id = $1 AND ($3::text[] IS NULL OR agent_id = ANY($3)) AND day BETWEEN $4 AND $5
    ORDER BY timestamp DESC, step_index DESC, id DESC LIMIT $6
), measured AS (
    SELECT *, sum(octet_length(payload::text)) OVER (ORDER BY timestamp DESC, step_index DESC, id DESC) AS total_bytes
    FROM newest
)
SELECT event_type, step_index, timestamp, payload, parent_run_id FROM measured WHERE total_bytes <= $7
ORDER BY timestamp, step_index, id
"""

_EVENT_COUNT = """
SELECT count(*) FROM events
WHERE run_id = $2 AND customer_id = $1 AND ($3::text[] IS NULL OR agent_id = ANY($3)) AND day BETWEEN $4 AND $5
"""


async def runs(
    conn: Connection,
    scope: Scope,
    agent_id: str,
    window: Window,
    *,
    has_signals: bool | None = None,
    standing: str | None = None,
) -> Found:
    """An agent's runs, newest start first, running ones too. `has_signals` None is all, else those with / without.

    `standing` None is all, else those that are running, completed, errored, stalled or parked.
    """
    whose = (scope.customer_id, scope.agent_list, agent_id, has_signals, standing)
    total = await conn.fetchval(_COUNT, *whose)
    records = await conn.fetch(_PAGE, *whose, window.limit, window.offset)
    return Found([dict(record) for record in records], total)


async def run(
    conn: Connection, scope: Scope, run_id: str, include_shadow: bool, with_events: bool = True
) -> Row | None:
    """One run with `events` in order (timestamp, step_index, arrival) and `signals`; None when there is none in scope.

    Of a run beyond MAX_EVENTS or MAX_EVENT_BYTES the newest events are given; `event_count` counts all stored.
    Without events there is no telling whether all of them would be given; `events_truncated` is then False.
    """
    record = await conn.fetchrow(_RUN, scope.customer_id, run_id, scope.agent_list)
    if record is None:
        return None
    found = dict(record)
    whose = (scope.customer_id, run_id, scope.agent_list, found.pop("first_day"), found.pop("last_day"))
    found["event_count"] = await conn.fetchval(_EVENT_COUNT, *whose)
    found["events_truncated"] = False
    if with_events:
        found["events"] = [dict(event) for event in await conn.fetch(_EVENTS, *whose, MAX_EVENTS, MAX_EVENT_BYTES)]
        found["events_truncated"] = len(found["events"]) < found["event_count"]
    found["signals"] = await signals.of_run(conn, scope, run_id, include_shadow)
    return found
