"""Who judges which runs: every bucket has at most one poller. Times are Postgres's clock, the one clock all share."""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import UUID

from dunetrace.batches import BUCKETS

if TYPE_CHECKING:
    from dunetrace.store.gateway import Connection

LEASE_S = 10.0
RENEW_EVERY_S = 3.0


async def renew(conn: Connection, holder: UUID) -> dict[int, int]:
    """Say that `holder` is alive, extend its leases, give up or take buckets towards a fair share.

    Returns {bucket: epoch} of all it now holds. An epoch rises whenever a bucket changes hands, so what a former owner
    judged can no longer be committed.
    """
    await conn.execute(
        "INSERT INTO pollers (holder, seen_at) VALUES ($1, now()) ON CONFLICT (holder) DO UPDATE SET seen_at = now()",
        holder,
    )
    live = await conn.fetchval("SELECT count(*) FROM pollers WHERE seen_at > now() - $1 * interval '1 second'", LEASE_S)
    share = -(-BUCKETS // max(1, live))
    held = await conn.fetch(
        "UPDATE bucket_leases SET expires_at = now() + $2 * interval '1 second' "
        "WHERE holder = $1 AND expires_at > now() RETURNING bucket, epoch",
        holder, LEASE_S,
    )  # fmt: skip
    epochs = {row["bucket"]: row["epoch"] for row in held}
    if len(epochs) > share:
        extra = sorted(epochs)[share:]
        await conn.execute(
            "UPDATE bucket_leases SET holder = NULL, expires_at = '-infinity' WHERE bucket = ANY($1::smallint[])", extra
        )
        for bucket in extra:
            del epochs[bucket]
    elif len(epochs) < share:
        taken = await conn.fetch(
            "UPDATE bucket_leases SET holder = $1, epoch = epoch + 1, expires_at = now() + $2 * interval '1 second' "
            "WHERE bucket IN (SELECT bucket FROM bucket_leases WHERE expires_at <= now() "
            "ORDER BY bucket LIMIT $3 FOR UPDATE SKIP LOCKED) RETURNING bucket, epoch",
            holder, LEASE_S, share - len(epochs),
        )  # fmt: skip
        epochs.update({row["bucket"]: row["epoch"] for row in taken})
    return epochs


async def release(conn: Connection, holder: UUID) -> None:
    """Give everything back at a clean stop, so that another poller need not wait for the expiry."""
    await conn.execute("UPDATE bucket_leases SET holder = NULL, expires_at = '-infinity' WHERE holder = $1", holder)
    await conn.execute("DELETE FROM pollers WHERE holder = $1 OR seen_at < now() - interval '1 hour'", holder)


async def still_held(conn: Connection, holder: UUID, epochs: dict[int, int]) -> bool:
    """Lock the lease rows FOR SHARE until the transaction ends; whether all are still `holder`'s at these epochs."""
    rows = await conn.fetch(
        "SELECT bucket, epoch FROM bucket_leases WHERE bucket = ANY($1::smallint[]) AND holder = $2 "
        "ORDER BY bucket FOR SHARE",
        list(epochs), holder,
    )  # fmt: skip
    return {row["bucket"]: row["epoch"] for row in rows} == epochs
