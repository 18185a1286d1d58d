"""The few transactions of a destination actor: take due deliveries, keep what their attempts came to.

Each works on many at a time: what a transaction costs is then no matter of how many alerts there are.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from dunetrace.deliveries import LIFETIME_S, Alert, Kind, Next, Outcome, Standing, State
from dunetrace.signals import FailureSignal, FailureType, Severity
from dunetrace.store.columns import columns
from dunetrace.store.reads.told import with_facts
from dunetrace.store.writes import destinations, telling

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime
    from uuid import UUID

    from dunetrace.store.gateway import Connection

_DUE = """
    destination = $1 AND state = 'pending' AND next_attempt_at <= now()
    AND (lease_until IS NULL OR lease_until <= now())
"""
_ORDERS = {"oldest": "created_at, id", "least tried": "round, created_at, id"}


class Claim(NamedTuple):
    """A delivery that is ours until `lease_until`; that time is also what proves it when the outcome is kept."""

    destination: str
    alert: Alert
    standing: Standing
    lease_until: datetime

    @property
    def customer_id(self) -> str:
        return self.alert.customer_id


class Claimed(NamedTuple):
    """What was taken. In `wait_s` there may be more: 0 when as much was due as was wanted, None: nothing is pending."""

    claims: list[Claim]
    wait_s: float | None


class Settled(NamedTuple):
    """A claim that was attempted, what came of it, and what follows."""

    claim: Claim
    outcome: Outcome
    following: Next


class Kept(NamedTuple):
    """What keeping an outcome changed beside the delivery. `known` is False when another process took it over."""

    known: bool
    circuit_opened: bool = False
    circuit_closed: bool = False


async def claim(conn: Connection, destination: str, lease_s: float, most: int) -> Claimed:
    """Take the next due deliveries of `destination`: the oldest ≤ `most`, or while its circuit is open the one probe.

    Atomic: the leases, the probe's turn and the giving up of what is past its lifetime. Claims whose process dies are
    due again when their lease ends. Deliveries whose signal is gone, or turned out to be a shadow, are given up here.
    """
    # A lease that a crash of Postgres forgets costs at most a second telling; waiting for the disk costs each alert.
    await conn.execute("SET LOCAL synchronous_commit = off")
    await _expire(conn, destination)
    circuit = await destinations.lock_open_circuit(conn, destination)
    if circuit is None:
        rows = await _take_tellable(conn, destination, "oldest", lease_s, most)
        wait_s = 0.0 if len(rows) == most else await _next_due_s(conn, destination)
        return Claimed(await _claims(conn, rows, circuit), wait_s)
    if circuit.wait_s > 0:
        return Claimed([], circuit.wait_s)
    # A probe is the delivery with the fewest failed rounds: one that a receiver cannot digest then holds up the others
    # for a minute, not for as long as it lives.
    rows = await _take_tellable(conn, destination, "least tried", lease_s, 1)
    if not rows:
        return Claimed([], await _next_due_s(conn, destination))
    await destinations.send_probe(conn, destination, lease_s)
    return Claimed(await _claims(conn, rows, circuit), lease_s)


async def keep(conn: Connection, settled: Sequence[Settled]) -> list[Kept]:
    """Keep what attempts at one destination came to and what follows from it, in the order they ended.

    Atomic: the deliveries, their signals' `alerted`, the circuit. Idempotent. A success counts whoever reports it; any
    other outcome only while the claim is still ours.
    """
    known = await _keep_outcomes(conn, settled)
    done = [each.claim.alert.delivery_id for each in settled if each.following.state is State.DONE]
    await telling.mark_alerted(conn, [delivery_id for delivery_id in done if delivery_id in known])
    kept = []
    shown_to_be_up = False
    for claim, _, following in settled:
        if claim.alert.delivery_id not in known:
            kept.append(Kept(known=False))
            continue
        opened = closed = False
        if following.closes_circuit:
            closed = not shown_to_be_up and await destinations.close_circuit(conn, claim.destination)
            shown_to_be_up = True
        elif following.hold is not None:
            opened = await destinations.hold(conn, claim.destination, following.hold, probe=claim.standing.probe)
            shown_to_be_up = False
        kept.append(Kept(known=True, circuit_opened=opened, circuit_closed=closed))
    return kept


async def give_back(conn: Connection, claims: Sequence[Claim]) -> None:
    """Make claims that nobody attempted due again, as far as they are still ours. Idempotent."""
    await conn.execute(
        """
        UPDATE deliveries d SET lease_until = NULL
        FROM unnest($1::uuid[], $2::timestamptz[]) AS ours (id, lease_until)
        WHERE d.id = ours.id AND d.state = 'pending' AND d.lease_until = ours.lease_until
        """,
        *columns([(claim.alert.delivery_id, claim.lease_until) for claim in claims], 2),
    )


async def again(conn: Connection, names: Sequence[str]) -> int:
    """Make the refused and expired deliveries of these destinations due again, by hand, as if just made; how many.

    Those whose signal is gone, or turned out to be a shadow, stay given up.
    """
    rows = await conn.fetch(
        """
        UPDATE deliveries d
        SET state = 'pending', round = 0, attempt = 0, next_attempt_at = now(), created_at = now(), done_at = NULL,
            lease_until = NULL
        FROM failure_signals s
        WHERE d.state IN ('refused', 'expired') AND d.destination = ANY($1) AND NOT s.shadow
          AND s.run_id = d.run_id AND s.customer_id = d.customer_id AND s.failure_type = d.failure_type
        RETURNING d.id
        """,
        list(names),
    )
    return len(rows)


async def _expire(conn: Connection, destination: str) -> None:
    await conn.execute(
        """
        UPDATE deliveries SET state = 'expired', done_at = now()
        WHERE destination = $1 AND state = 'pending' AND created_at <= now() - make_interval(secs => $2)
          AND (lease_until IS NULL OR lease_until <= now())
        """,
        destination,
        LIFETIME_S,
    )


async def _take_tellable(conn: Connection, destination: str, order: str, lease_s: float, most: int) -> list[Any]:
    """Rows of due deliveries that can be told; those met on the way that cannot are given up."""
    rows: list[Any] = []
    while True:
        found = await _take(conn, destination, order, lease_s, most - len(rows))
        gone = [row["id"] for row in found if not row["tellable"]]
        rows += (row for row in found if row["tellable"])
        if not gone:
            return rows
        await _give_up(conn, gone)


async def _take(conn: Connection, destination: str, order: str, lease_s: float, most: int) -> list[Any]:
    # The ids as an array, not as a join: whatever Postgres believes of the table's size, it then goes by the keys.
    return await conn.fetch(
        f"""
        WITH taken AS (
            UPDATE deliveries SET lease_until = now() + make_interval(secs => $2)
            WHERE id = ANY (ARRAY(
                SELECT id FROM deliveries WHERE {_DUE} ORDER BY {_ORDERS[order]} LIMIT $3 FOR UPDATE SKIP LOCKED
            ))
            RETURNING id, customer_id, run_id, failure_type, destination, kind, round, attempt, lease_until, created_at
        )
        SELECT t.id, t.customer_id, t.run_id, t.failure_type, t.destination, t.kind, t.round, t.attempt, t.lease_until,
               extract(epoch FROM now() - t.created_at)::float8 AS age_s,
               coalesce(NOT s.shadow, FALSE) AS tellable, s.severity, s.agent_id, s.agent_version, s.step_index,
               s.confidence, s.evidence, extract(epoch FROM s.detected_at)::float8 AS detected_at
        FROM taken t LEFT JOIN failure_signals s
            ON s.run_id = t.run_id AND s.customer_id = t.customer_id AND s.failure_type = t.failure_type
        ORDER BY t.created_at, t.id
        """,  # noqa: S608 - only constants of this module are put together
        destination,
        lease_s,
        most,
    )


async def _claims(conn: Connection, rows: Sequence[Any], circuit: destinations.Circuit | None) -> list[Claim]:
    alerts = [
        Alert(row["id"], Kind(row["kind"]), _signal(row), row["detected_at"], customer_id=row["customer_id"])
        for row in rows
    ]
    return [
        Claim(
            destination=row["destination"],
            alert=alert,
            standing=Standing(
                round=row["round"],
                attempt=row["attempt"],
                age_s=row["age_s"],
                probe=circuit is not None,
                failed_rounds=circuit.failed_rounds if circuit is not None else 0,
            ),
            lease_until=row["lease_until"],
        )
        for row, alert in zip(rows, await with_facts(conn, alerts), strict=True)
    ]


def _signal(row: Any) -> FailureSignal:
    return FailureSignal(
        failure_type=FailureType(row["failure_type"]),
        severity=Severity(row["severity"]),
        run_id=row["run_id"],
        agent_id=row["agent_id"],
        agent_version=row["agent_version"],
        step_index=row["step_index"],
        confidence=round(row["confidence"], 2),  # REAL: 0.95 comes back as 0.949999988079071
        evidence=row["evidence"],
    )


async def _give_up(conn: Connection, ids: Sequence[UUID]) -> None:
    await conn.execute(
        """
        UPDATE deliveries SET state = 'expired', done_at = now(), lease_until = NULL, last_error = 'SignalGoneError'
        WHERE id = ANY($1)
        """,
        ids,
    )


async def _next_due_s(conn: Connection, destination: str) -> float | None:
    wait_s: float | None = await conn.fetchval(
        """
        SELECT extract(epoch FROM min(greatest(next_attempt_at, lease_until)) - now())::float8
        FROM deliveries WHERE destination = $1 AND state = 'pending'
        """,
        destination,
    )
    return wait_s


async def _keep_outcomes(conn: Connection, settled: Sequence[Settled]) -> set[UUID]:
    """The deliveries whose outcome counts."""
    rows = await conn.fetch(
        """
        UPDATE deliveries d
        SET state = n.state, round = n.round, attempt = n.attempt, lease_until = NULL,
            next_attempt_at = now() + make_interval(secs => n.wait_s),
            last_status = n.status, last_error = n.error,
            done_at = CASE WHEN n.state = 'pending' THEN NULL ELSE now() END
        FROM unnest($1::uuid[], $2::timestamptz[], $3::text[], $4::int[], $5::int[], $6::float8[], $7::int[],
                    $8::text[]) AS n (id, lease_until, state, round, attempt, wait_s, status, error)
        WHERE d.id = n.id AND CASE WHEN n.state = 'done' THEN d.state <> 'done'
                                   ELSE d.state = 'pending' AND d.lease_until = n.lease_until END
        RETURNING d.id
        """,
        *columns([_outcome_row(each) for each in settled], 8),
    )
    return {row["id"] for row in rows}


def _outcome_row(settled: Settled) -> tuple[Any, ...]:
    claim, outcome, following = settled
    return (
        claim.alert.delivery_id, claim.lease_until, following.state, following.round, following.attempt,
        following.wait_s, outcome.status, outcome.error,
    )  # fmt: skip
