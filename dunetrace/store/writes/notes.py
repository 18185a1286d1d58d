"""Notes of resolved issues. The issue's row is the outbox: `note_due` is a debt of the dispatcher's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dunetrace.deliveries import Kind
from dunetrace.store.writes import telling, threads
from dunetrace.store.writes.telling import Owed
from dunetrace.threads import ended, is_owed_note

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dunetrace.store.gateway import Connection

MOST_ISSUES = 100  # a pass

# A signal that was not fanned out yet may be the first a destination hears of the issue: that comes before its end.
_RESOLVED = f"""
SELECT i.id FROM issues i
WHERE i.note_due AND NOT EXISTS (
    SELECT FROM failure_signals s
    WHERE s.fanned_out_at IS NULL AND NOT s.shadow AND s.customer_id = i.customer_id AND s.agent_id = i.agent_id
      AND s.failure_type = i.failure_type
)
ORDER BY i.id LIMIT {MOST_ISSUES} FOR UPDATE SKIP LOCKED
"""  # noqa: S608 - made of constants

_THREADS = f"""
SELECT {threads.COLUMNS}, i.times_reopened AS issue_life
FROM issues i JOIN alert_threads t USING (customer_id, agent_id, failure_type)
WHERE i.id = ANY($1) AND t.destination = ANY($2)
ORDER BY t.customer_id, t.agent_id, t.failure_type, t.destination FOR UPDATE OF t
"""  # noqa: S608 - made of constants


async def tell_resolved(conn: Connection, destinations: Sequence[str]) -> frozenset[str]:
    """Make the notes of ≤ `MOST_ISSUES` resolved issues for those of `destinations` that know of them; who has some.

    Atomic: an issue owes no more when its notes are there, its threads are at an end, and what they had gathered is
    counted. An issue that another dispatcher holds is left to it.
    """
    issues = [row["id"] for row in await conn.fetch(_RESOLVED)]
    if not issues:
        return frozenset()
    rows = await conn.fetch(_THREADS, issues, list(destinations))
    knowing = {threads.key_of(row): row for row in rows if is_owed_note(threads.thread_of(row), row["issue_life"])}
    owed = {key: _note(row) for key, row in knowing.items()}
    if owed:
        await telling.count_in(conn, {key: note.id for key, note in owed.items()})
        await threads.save(conn, {key: ended(threads.thread_of(row)) for key, row in knowing.items()})
    await conn.execute("UPDATE issues SET note_due = FALSE WHERE id = ANY($1)", issues)
    return await telling.make(conn, list(owed.values()))


def _note(row: Any) -> Owed:
    return Owed(threads.key_of(row), row["run_id"], Kind.RESOLVED, row["issue_life"], None)
