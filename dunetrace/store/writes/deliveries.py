"""The few transactions of a destination actor: take a due delivery, keep what its attempt came to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from dunetrace.deliveries import LIFETIME_S, Alert, Kind, Standing, State
from dunetrace.signals import FailureSignal, FailureType, Severity
from dunetrace.store.reads.told import with_facts
from dunetrace.store.writes import destinations, telling

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from dunetrace.deliveries import Next, Outcome
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


class Idle(NamedTuple):
    """Nothing may be attempted now; in `wait_s` something may (None: nothing is pending)."""

    wait_s: float | None


class Kept(NamedTuple):
    """What keeping an outcome changed beside the delivery. `known` is False when another process took it over."""

    known: bool
    circuit_opened: bool = False
    circuit_closed: bool = False


async def claim(conn: Connection, destination: str, lease_s: float) -> Claim | Idle:
    """Take the next due delivery of `destination`: the oldest, or while its circuit is open the one probe.

    Atomic: the lease, the probe's turn and the giving up of what is past its lifetime. A claim whose process dies is
    due again when its lease ends. Deliveries whose signal is gone, or turned out to be a shadow, are given up here.
    """
    # A lease that a crash of Postgres forgets costs at most a second telling; waiting for the disk costs each alert.
    await conn.execute("SET LOCAL synchronous_commit = off")
    await conn.execute(
        """
        UPDATE deliveries SET state = 'expired', done_at = now()
        WHERE destination = $1 AND state = 'pending' AND created_at <= now() - make_interval(secs => $2)
          AND (lease_until IS NULL OR lease_until <= now())
        """,
        destination,
        LIFETIME_S,
    )
    circuit = await destinations.lock_open_circuit(conn, destination)
    if circuit is not None and circuit.wait_s > 0:
        return Idle(circuit.wait_s)
    # A probe is the delivery with the fewest failed rounds: one that a receiver cannot digest then holds up the others
    # for a minute, not for as long as it lives.
    order = "oldest" if circuit is None else "least tried"
    row = await _take(conn, destination, order, lease_s)
    while row is not None and not row["tellable"]:
        await _give_up(conn, row["id"])
        row = await _take(conn, destination, order, lease_s)
    if row is None:
        return Idle(await _next_due_s(conn, destination))
    if circuit is not None:
        await destinations.send_probe(conn, destination, lease_s)
    claimed = _claimed(row, circuit)
    (alert,) = await with_facts(conn, [claimed.alert])
    return claimed._replace(alert=alert)


async def keep(conn: Connection, claim: Claim, outcome: Outcome, following: Next) -> Kept:
    """Keep what an attempt came to and what follows from it.

    Atomic: the delivery, its signal's `alerted`, its destination's circuit. Idempotent. A success counts whoever
    reports it; any other outcome only while the claim is still ours.
    """
    done = following.state is State.DONE
    updated = await conn.fetchval(
        """
        UPDATE deliveries
        SET state = $2, round = $3, attempt = $4, next_attempt_at = now() + make_interval(secs => $5),
            lease_until = NULL, last_status = $6, last_error = $7,
            done_at = CASE WHEN $2 = 'pending' THEN NULL ELSE now() END
        WHERE id = $1 AND CASE WHEN $8 THEN state <> 'done' ELSE state = 'pending' AND lease_until = $9 END
        RETURNING TRUE
        """,
        claim.alert.delivery_id,
        following.state,
        following.round,
        following.attempt,
        following.wait_s,
        outcome.status,
        outcome.error,
        done,
        claim.lease_until,
    )
    if not updated:
        return Kept(known=False)
    if done:
        await _mark_alerted(conn, claim)
        await telling.mark_alerted(conn, [claim.alert.delivery_id])
    opened = closed = False
    if following.closes_circuit:
        closed = await destinations.close_circuit(conn, claim.destination)
    elif following.hold is not None:
        opened = await destinations.hold(conn, claim.destination, following.hold, probe=claim.standing.probe)
    return Kept(known=True, circuit_opened=opened, circuit_closed=closed)


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


async def _take(conn: Connection, destination: str, order: str, lease_s: float) -> Any:
    return await conn.fetchrow(
        f"""
        WITH due AS (
            SELECT id, customer_id, run_id, failure_type FROM deliveries
            WHERE {_DUE} ORDER BY {_ORDERS[order]} LIMIT 1 FOR UPDATE SKIP LOCKED
        )
        UPDATE deliveries d SET lease_until = now() + make_interval(secs => $2)
        FROM due LEFT JOIN failure_signals s
            ON s.run_id = due.run_id AND s.customer_id = due.customer_id AND s.failure_type = due.failure_type
        WHERE d.id = due.id
        RETURNING d.id, d.customer_id, d.run_id, d.failure_type, d.destination, d.kind, d.round, d.attempt,
                  d.lease_until, extract(epoch FROM now() - d.created_at)::float8 AS age_s,
                  coalesce(NOT s.shadow, FALSE) AS tellable, s.severity, s.agent_id, s.agent_version, s.step_index,
                  s.confidence, s.evidence, extract(epoch FROM s.detected_at)::float8 AS detected_at
        """,  # noqa: S608 - only constants of this module are put together
        destination,
        lease_s,
    )


def _claimed(row: Any, circuit: destinations.Circuit | None) -> Claim:
    signal = FailureSignal(
        failure_type=FailureType(row["failure_type"]),
        severity=Severity(row["severity"]),
        run_id=row["run_id"],
        agent_id=row["agent_id"],
        agent_version=row["agent_version"],
        step_index=row["step_index"],
        confidence=round(row["confidence"], 2),  # REAL: 0.95 comes back as 0.949999988079071
        evidence=row["evidence"],
    )
    return Claim(
        destination=row["destination"],
        alert=Alert(row["id"], Kind(row["kind"]), signal, row["detected_at"], customer_id=row["customer_id"]),
        standing=Standing(
            round=row["round"],
            attempt=row["attempt"],
            age_s=row["age_s"],
            probe=circuit is not None,
            failed_rounds=circuit.failed_rounds if circuit is not None else 0,
        ),
        lease_until=row["lease_until"],
    )


async def _give_up(conn: Connection, delivery_id: object) -> None:
    await conn.execute(
        """
        UPDATE deliveries SET state = 'expired', done_at = now(), lease_until = NULL, last_error = 'SignalGoneError'
        WHERE id = $1
        """,
        delivery_id,
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


async def _mark_alerted(conn: Connection, claim: Claim) -> None:
    await conn.execute(
        """
        UPDATE failure_signals SET alerted = TRUE
        WHERE run_id = $1 AND customer_id = $2 AND failure_type = $3 AND NOT alerted
        """,
        claim.alert.signal.run_id,
        claim.customer_id,
        claim.alert.signal.failure_type,
    )
