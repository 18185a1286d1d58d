"""Which destinations there are and since when, and whether their circuit is open."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from dunetrace.deliveries import Hold, Subscription
    from dunetrace.store.gateway import Connection


class Circuit(NamedTuple):
    """Open, with what a probe needs to know. `wait_s` ≤ 0 means a probe may go now."""

    failed_rounds: int
    wait_s: float


async def register(
    conn: Connection, subscriptions: Sequence[Subscription], configured_at: float
) -> dict[str, datetime]:
    """When each destination was first configured; the new ones at `configured_at`, by this process's `time.monotonic`.

    Measured within the transaction, after its now(): however long it waited to begin, a destination is never taken for
    younger than it is, which would lose it alerts. Idempotent: a destination that is known keeps its time, also when
    its kind changes.
    """
    names = [subscription.destination for subscription in subscriptions]
    found = await _first_seen(conn, names)
    if len(found) < len(names):
        await conn.execute(
            """
            INSERT INTO destinations (name, kind, first_seen)
            SELECT name, kind, now() - make_interval(secs => $3) FROM unnest($1::text[], $2::text[]) AS new (name, kind)
            ON CONFLICT (name) DO NOTHING
            """,
            names,
            [subscription.kind for subscription in subscriptions],
            time.monotonic() - configured_at,
        )
        found = await _first_seen(conn, names)
    return found


async def lock_open_circuit(conn: Connection, destination: str) -> Circuit | None:
    """The circuit, locked until the transaction ends; None when it is closed."""
    row = await conn.fetchrow(
        """
        SELECT failed_rounds, extract(epoch FROM probe_at - now())::float8 AS wait_s
        FROM destinations WHERE name = $1 AND circuit_open_since IS NOT NULL
        FOR UPDATE
        """,
        destination,
    )
    return None if row is None else Circuit(row["failed_rounds"], row["wait_s"] or 0.0)


async def send_probe(conn: Connection, destination: str, lease_s: float) -> None:
    """Let no other probe go before `lease_s`, unless this one's outcome says so earlier."""
    await conn.execute(
        "UPDATE destinations SET probe_at = now() + make_interval(secs => $2) WHERE name = $1", destination, lease_s
    )


async def hold(conn: Connection, destination: str, wanted: Hold, *, probe: bool) -> bool:
    """Open the circuit, or move an open one on when a probe says so. True when this opened it."""
    opened: bool | None = await conn.fetchval(
        """
        WITH before AS (SELECT circuit_open_since FROM destinations WHERE name = $1 FOR UPDATE)
        UPDATE destinations d
        SET circuit_open_since = coalesce(d.circuit_open_since, now()), failed_rounds = $2,
            probe_at = now() + make_interval(secs => $3)
        FROM before WHERE d.name = $1 AND ($4 OR d.circuit_open_since IS NULL)
        RETURNING before.circuit_open_since IS NULL
        """,
        destination,
        wanted.failed_rounds,
        wanted.wait_s,
        probe,
    )
    return bool(opened)


async def close_circuit(conn: Connection, destination: str) -> bool:
    """What waits is due again. True when the circuit was open."""
    closed = await conn.fetchval(
        """
        UPDATE destinations SET circuit_open_since = NULL, failed_rounds = 0, probe_at = NULL
        WHERE name = $1 AND circuit_open_since IS NOT NULL
        RETURNING TRUE
        """,
        destination,
    )
    return bool(closed)


async def _first_seen(conn: Connection, names: list[str]) -> dict[str, datetime]:
    rows = await conn.fetch("SELECT name, first_seen FROM destinations WHERE name = ANY($1)", names)
    return {row["name"]: row["first_seen"] for row in rows}
