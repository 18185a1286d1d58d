"""New deliveries, and the signals that are gathered instead. For all who owe some: fan-out, updates, notes, fleet."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple
from uuid import UUID

from dunetrace.deliveries import delivery_id
from dunetrace.store.columns import columns
from dunetrace.store.writes.threads import ThreadKey

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from dunetrace.deliveries import Kind
    from dunetrace.signals import Severity
    from dunetrace.store.gateway import Connection


class Owed(NamedTuple):
    """One delivery: which thread it belongs to, which of its runs it points at, and what is told."""

    thread: ThreadKey
    run_id: str
    kind: Kind
    seq: int
    severity: Severity | None
    reopened: bool = False

    @property
    def id(self) -> UUID:
        customer_id, _, failure_type, destination = self.thread
        return delivery_id(customer_id, self.run_id, failure_type, destination, kind=self.kind, seq=self.seq)


async def make(conn: Connection, owed: Sequence[Owed]) -> frozenset[str]:
    """Make these deliveries, each once; the destinations for which one is new."""
    if not owed:
        return frozenset()
    rows = [
        (one.id, one.thread[0], one.run_id, one.thread[2], one.thread[3], one.kind, one.seq, one.severity, one.reopened)
        for one in owed
    ]
    new = await conn.fetch(
        "INSERT INTO deliveries "
        "(id, customer_id, run_id, failure_type, destination, kind, seq, severity, reopened) "
        "SELECT * FROM unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::int[], "
        "$8::text[], $9::bool[]) ON CONFLICT DO NOTHING RETURNING destination",
        *columns(rows, 9),
    )
    return frozenset(row["destination"] for row in new)


async def gather(conn: Connection, signals: Sequence[tuple[ThreadKey, str]]) -> None:
    """Keep these signals, each a thread and a run, until something of the thread is told. Idempotent."""
    if not signals:
        return
    await conn.execute(
        "INSERT INTO gathered_signals (customer_id, agent_id, failure_type, destination, run_id) "
        "SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[]) ON CONFLICT DO NOTHING",
        *columns([(*key, run_id) for key, run_id in signals], 5),
    )


async def count_in(conn: Connection, deliveries: Mapping[ThreadKey, UUID]) -> None:
    """What these threads gathered is counted by these deliveries; the threads are locked."""
    if not deliveries:
        return
    rows = [(*key, delivery) for key, delivery in deliveries.items()]
    await conn.execute(
        "UPDATE gathered_signals g SET delivery_id = k.delivery_id FROM unnest($1::text[], $2::text[], $3::text[], "
        "$4::text[], $5::uuid[]) AS k (customer_id, agent_id, failure_type, destination, delivery_id) "
        "WHERE g.delivery_id IS NULL AND (g.customer_id, g.agent_id, g.failure_type, g.destination) "
        "= (k.customer_id, k.agent_id, k.failure_type, k.destination)",
        *columns(rows, 5),
    )


async def mark_alerted(conn: Connection, deliveries: Sequence[UUID]) -> None:
    """The signals that these deliveries told of, or counted, are alerted: the deliveries succeeded.

    Locks the signals in key order, as the poller does: neither ever waits for the other in a circle.
    """
    if not deliveries:
        return
    await conn.execute(
        """
        WITH told AS MATERIALIZED (
            SELECT s.id
            FROM (
                SELECT run_id, customer_id, failure_type, FALSE AS counted FROM deliveries WHERE id = ANY($1)
                UNION ALL
                SELECT run_id, customer_id, failure_type, TRUE FROM gathered_signals WHERE delivery_id = ANY($1)
            ) k JOIN failure_signals s USING (run_id, customer_id, failure_type)
            WHERE NOT s.alerted AND NOT (k.counted AND s.shadow)
            ORDER BY s.run_id COLLATE "C", s.customer_id COLLATE "C", s.failure_type COLLATE "C"
            FOR UPDATE OF s
        )
        UPDATE failure_signals SET alerted = TRUE WHERE id = ANY (ARRAY(SELECT id FROM told))
        """,
        list(deliveries),
    )
