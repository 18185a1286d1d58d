"""From signals to deliveries. The signal row is the outbox: `fanned_out_at` NULL is a debt of the dispatcher's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from dunetrace.deliveries import Kind, delivery_id
from dunetrace.signals import Severity
from dunetrace.store.columns import columns
from dunetrace.store.writes import destinations

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from datetime import datetime

    from dunetrace.deliveries import Subscription
    from dunetrace.store.gateway import Connection

MOST_SIGNALS = 500  # a pass: a few milliseconds, so that no row is locked for long


class FanOut(NamedTuple):
    """What one pass did: signals taken, and the destinations that have new deliveries."""

    taken: int
    told: frozenset[str]

    @property
    def more(self) -> bool:
        """Whether another pass may find work at once."""
        return self.taken == MOST_SIGNALS


async def fan_out(conn: Connection, subscriptions: Sequence[Subscription], configured_at: float) -> FanOut:
    """Make the deliveries of the oldest ≤ `MOST_SIGNALS` live signals that still owe them, and mark those.

    Atomic: a signal is marked exactly when its deliveries are there. Any number of dispatchers may run; a signal one
    holds is skipped by the others, and a delivery that exists already (a severity rose, so the mark was taken back) is
    left alone. A destination gets nothing found before it was configured; a signal found more than a day ago that
    nobody was told of yet is marked and told to no one. `configured_at` is by `time.monotonic`.
    """
    first_seen = await destinations.register(conn, subscriptions, configured_at)
    signals = await conn.fetch(
        """
        SELECT s.id, s.customer_id, s.run_id, s.agent_id, s.failure_type, s.severity, s.detected_at,
               s.detected_at < now() - interval '24 hours' AND NOT EXISTS (
                   SELECT FROM deliveries d
                   WHERE d.customer_id = s.customer_id AND d.run_id = s.run_id AND d.failure_type = s.failure_type
               ) AS too_late
        FROM failure_signals s
        WHERE s.fanned_out_at IS NULL AND NOT s.shadow
        ORDER BY s.detected_at, s.id
        LIMIT $1
        FOR UPDATE OF s SKIP LOCKED
        """,
        MOST_SIGNALS,
    )
    if not signals:
        return FanOut(0, frozenset())
    told = await _insert(conn, list(_deliveries(signals, subscriptions, first_seen)))
    await conn.execute(
        "UPDATE failure_signals SET fanned_out_at = now() WHERE id = ANY($1)", [signal["id"] for signal in signals]
    )
    return FanOut(len(signals), told)


def _deliveries(
    signals: Sequence[Any], subscriptions: Sequence[Subscription], first_seen: dict[str, datetime]
) -> Iterator[tuple[Any, ...]]:
    for signal in signals:
        if signal["too_late"]:
            continue
        for subscription in subscriptions:
            name = subscription.destination
            wanted = subscription.wants(signal["agent_id"], Severity(signal["severity"]))
            if wanted and signal["detected_at"] >= first_seen[name]:
                key = (signal["customer_id"], signal["run_id"], signal["failure_type"], name)
                yield (delivery_id(*key), *key)


async def _insert(conn: Connection, rows: list[tuple[Any, ...]]) -> frozenset[str]:
    """The destinations for which a delivery is new."""
    if not rows:
        return frozenset()
    new = await conn.fetch(
        """
        INSERT INTO deliveries (id, customer_id, run_id, failure_type, destination, kind)
        SELECT id, customer_id, run_id, failure_type, destination, $6
        FROM unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::text[])
            AS new (id, customer_id, run_id, failure_type, destination)
        ON CONFLICT DO NOTHING
        RETURNING destination
        """,
        *columns(rows, 5),
        Kind.FIRST,
    )
    return frozenset(row["destination"] for row in new)
