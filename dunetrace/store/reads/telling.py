"""What deliveries tell beside their signals. Called by the destination actors."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from dunetrace.fleet import FleetShift
from dunetrace.signals import Severity
from dunetrace.store.reads.fleet import SHIFT, shift_of

if TYPE_CHECKING:
    from collections.abc import Sequence
    from uuid import UUID

    from dunetrace.prices import Mix
    from dunetrace.store.gateway import Connection

_RISES = f"""
SELECT d.id, f.severity, {SHIFT} FROM deliveries d JOIN fleet_signals f ON f.id = d.seq
WHERE d.id = ANY($1) AND d.kind = 'fleet'
"""  # noqa: S608 - made of constants

_MIXES = """
SELECT d.id, r.token_mix FROM deliveries d JOIN runs r ON r.run_id = d.run_id AND r.customer_id = d.customer_id
WHERE d.id = ANY($1) AND r.token_mix IS NOT NULL
"""


class Rise(NamedTuple):
    """A fleet signal, as a delivery tells it."""

    shift: FleetShift
    severity: Severity


async def rises(conn: Connection, delivery_ids: Sequence[UUID]) -> dict[UUID, Rise]:
    """The fleet signal of each of these deliveries that tells of one."""
    rows = await conn.fetch(_RISES, delivery_ids)
    return {row["id"]: Rise(shift_of(dict(row)), Severity(row["severity"])) for row in rows}


async def token_mixes(conn: Connection, delivery_ids: Sequence[UUID]) -> dict[UUID, Mix]:
    """What the tokens were of each of these deliveries' runs, where that is known."""
    return {row["id"]: row["token_mix"] for row in await conn.fetch(_MIXES, delivery_ids)}
