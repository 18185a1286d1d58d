"""Updates: one delivery that tells of all the signals a thread has gathered, once they are due."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from dunetrace.deliveries import Kind
from dunetrace.signals import Severity
from dunetrace.store.columns import columns
from dunetrace.store.writes import telling, threads
from dunetrace.store.writes.telling import Owed
from dunetrace.threads import updated

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dunetrace.store.gateway import Connection

MOST_THREADS = 100  # a pass


class Updates(NamedTuple):
    """The destinations that have new deliveries, whether more is due now, and in how long the next is (None: never)."""

    told: frozenset[str]
    more: bool
    wait_s: float | None


# While the last message of a thread has not arrived there is no sense in another: what comes is gathered meanwhile. Of
# an issue that was acknowledged or snoozed nothing is due, of one that was just resolved its note tells.
_DUE = f"""
SELECT {threads.COLUMNS}, coalesce(i.times_reopened, 0) AS issue_life, extract(epoch FROM now())::float8 AS now
FROM alert_threads t LEFT JOIN issues i
    ON i.customer_id = t.customer_id AND i.agent_id = t.agent_id AND i.failure_type = t.failure_type
WHERE t.destination = ANY($1) AND t.due_at <= now() AND NOT coalesce(i.note_due, FALSE)
  AND i.acknowledged_at IS NULL AND (i.snoozed_until IS NULL OR i.snoozed_until <= now())
  AND NOT EXISTS (
      SELECT FROM deliveries d
      WHERE d.customer_id = t.customer_id AND d.run_id = t.run_id AND d.failure_type = t.failure_type
        AND d.destination = t.destination AND d.state = 'pending'
  )
ORDER BY t.due_at LIMIT {MOST_THREADS} FOR UPDATE OF t SKIP LOCKED
"""  # noqa: S608 - made of constants

_GATHERED = f"""
SELECT g.customer_id, g.agent_id, g.failure_type, g.destination, max(severity_rank(s.severity)) AS rank,
       (array_agg(s.run_id ORDER BY s.detected_at DESC, s.id DESC))[1] AS run_id
FROM {threads.KEYS} JOIN gathered_signals g USING (customer_id, agent_id, failure_type, destination)
JOIN failure_signals s
    ON s.run_id = g.run_id AND s.customer_id = g.customer_id AND s.failure_type = g.failure_type
WHERE g.delivery_id IS NULL GROUP BY 1, 2, 3, 4
"""  # noqa: S608 - made of constants


async def tell_due(conn: Connection, destinations: Sequence[str]) -> Updates:
    """Make the updates that are due, of ≤ `MOST_THREADS` threads; each points at the newest run it counts.

    Atomic: a gathered signal belongs to the update that counts it. A thread another dispatcher holds is left to it.
    """
    due = await conn.fetch(_DUE, list(destinations))
    told = await _tell(conn, due) if due else frozenset()
    wait_s: float | None = await conn.fetchval(
        "SELECT extract(epoch FROM min(due_at) - now())::float8 FROM alert_threads "
        "WHERE destination = ANY($1) AND due_at > now()",
        list(destinations),
    )
    return Updates(told, len(due) == MOST_THREADS, wait_s)


async def _tell(conn: Connection, due: Sequence[Any]) -> frozenset[str]:
    keys = [threads.key_of(row) for row in due]
    gathered = {threads.key_of(row): row for row in await conn.fetch(_GATHERED, *columns(keys, 4))}
    after, owed = {}, {}
    for key, row in zip(keys, due, strict=True):
        thread, news = threads.thread_of(row), gathered.get(key)
        if news is None:  # its signals were deleted by hand
            after[key] = thread._replace(due_at=None)
            continue
        severity = list(Severity)[news["rank"] - 1]  # severity_rank counts from 1
        after[key] = updated(thread, news["run_id"], severity, row["issue_life"], row["now"])
        owed[key] = Owed(key, news["run_id"], Kind.UPDATE, after[key].updates, severity)
    await threads.save(conn, after)
    await telling.count_in(conn, {key: one.id for key, one in owed.items()})
    return await telling.make(conn, list(owed.values()))
