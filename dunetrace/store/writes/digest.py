"""The few transactions of the weekly digest: take what is owed to a destination, keep what an attempt came to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from dunetrace.deliveries import Standing, State
from dunetrace.weekly import is_credible

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from dunetrace.deliveries import Next, Outcome
    from dunetrace.store.gateway import Connection
    from dunetrace.weekly import Schedule


class Claim(NamedTuple):
    """A digest that is ours until `lease_until`; that time is also what proves it when the outcome is kept."""

    destination: str
    due_at: datetime
    standing: Standing
    lease_until: datetime


class Later(NamedTuple):
    """Nothing may be sent now; in `wait_s` something may."""

    wait_s: float


async def claim(conn: Connection, destination: str, schedule: Schedule, lease_s: float) -> Claim | Later:
    """Take the digest that is owed to `destination`, if one is and nobody else has it.

    Atomic under a lock on the destination's row, so that of many processes one sends. A claim whose process dies is due
    again when its lease ends. The first call ever owes nothing: it only says since when there is a destination.
    """
    now = await conn.fetchval("SELECT now()")
    await conn.execute(
        "INSERT INTO digests (destination, due_at, state) VALUES ($1, $2, 'done') ON CONFLICT DO NOTHING",
        destination,
        schedule.latest(now),
    )
    row: Any = await conn.fetchrow(
        "SELECT due_at, state FROM digests WHERE destination = $1 AND digest_type = 'weekly' FOR UPDATE", destination
    )
    settled, state = row["due_at"], State(row["state"])
    if not is_credible(settled, now):
        settled, state = schedule.latest(now), State.DONE
        await _turn_to(conn, destination, settled, state)
    owed = schedule.owed(now, settled)
    if owed is not None:
        state = State.PENDING
        await _turn_to(conn, destination, owed, state)
    if state is not State.PENDING:
        return Later((schedule.following(now) - now).total_seconds())
    return await _take(conn, destination, lease_s)


async def keep(conn: Connection, claim: Claim, outcome: Outcome, following: Next) -> bool:
    """Keep what an attempt came to. False when it was no longer ours to tell.

    Atomic: the destination's row and the record in `digest_log`. Idempotent. A success counts whoever reports it; any
    other outcome only while the claim is still ours.
    """
    done = following.state is State.DONE
    updated = await conn.fetchval(
        """
        UPDATE digests
        SET state = $3, round = $4, attempt = $5, next_attempt_at = now() + make_interval(secs => $6),
            lease_until = NULL, last_status = $7, last_error = $8
        WHERE destination = $1 AND digest_type = 'weekly' AND due_at = $2
          AND CASE WHEN $9 THEN state <> 'done' ELSE state = 'pending' AND lease_until = $10 END
        RETURNING TRUE
        """,
        claim.destination,
        claim.due_at,
        following.state,
        following.round,
        following.attempt,
        following.wait_s,
        outcome.status,
        outcome.error,
        done,
        claim.lease_until,
    )
    if done:
        await conn.execute(
            "INSERT INTO digest_log (destination, due_at) VALUES ($1, $2) ON CONFLICT DO NOTHING",
            claim.destination,
            claim.due_at,
        )
    return bool(updated)


async def again(conn: Connection, destinations: Sequence[str]) -> int:
    """Make refused digests due again, by hand; how many."""
    rows = await conn.fetch(
        """
        UPDATE digests SET state = 'pending', round = 0, attempt = 0, next_attempt_at = now()
        WHERE state = 'refused' AND destination = ANY($1) RETURNING destination
        """,
        list(destinations),
    )
    return len(rows)


async def _turn_to(conn: Connection, destination: str, due_at: datetime, state: State) -> None:
    await conn.execute(
        """
        UPDATE digests SET due_at = $2, state = $3, round = 0, attempt = 0, next_attempt_at = now(), lease_until = NULL,
                           last_status = NULL, last_error = NULL
        WHERE destination = $1 AND digest_type = 'weekly'
        """,
        destination,
        due_at,
        state,
    )


async def _take(conn: Connection, destination: str, lease_s: float) -> Claim | Later:
    row = await conn.fetchrow(
        """
        UPDATE digests SET lease_until = clock_timestamp() + make_interval(secs => $2)
        WHERE destination = $1 AND digest_type = 'weekly' AND next_attempt_at <= clock_timestamp()
          AND (lease_until IS NULL OR lease_until <= clock_timestamp())
        RETURNING due_at, round, attempt, lease_until
        """,
        destination,
        lease_s,
    )
    if row is None:
        wait_s: float = await conn.fetchval(
            """
            SELECT extract(epoch FROM greatest(next_attempt_at, lease_until) - clock_timestamp())::float8
            FROM digests WHERE destination = $1 AND digest_type = 'weekly'
            """,
            destination,
        )
        return Later(max(wait_s, 0.0))
    # A digest has no lifetime: the next week's takes its place.
    standing = Standing(row["round"], row["attempt"], age_s=0.0)
    return Claim(destination, row["due_at"], standing, row["lease_until"])
