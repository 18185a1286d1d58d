"""Appending what ingest accepted. Called by the writer only."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from dunetrace.batches import Batch, EventRow, bucket_of
from dunetrace.store.gateway import UniqueViolationError

if TYPE_CHECKING:
    from dunetrace.store.gateway import Connection

_COLUMNS = EventRow._fields
_NAMES = ", ".join(_COLUMNS)
_TOUCH_COLUMNS = ("customer_id", "run_id", "bucket", "n", "first_day", "last_day", "received_at")


async def append(conn: Connection, batches: Sequence[Batch]) -> int:
    """Store events, touches and losses of `batches`; all of it or nothing. Returns the number of events that were new.

    An event whose key is stored already is left out, and its run gets no touch for it, so a batch may be appended any
    number of times.
    """
    rows = [row for batch in batches for row in batch.rows]
    new = await _append_events(conn, rows)
    touches = _touches(new)
    if touches:
        await conn.copy_records_to_table("run_touches", records=touches, columns=_TOUCH_COLUMNS)
    losses = [loss for batch in batches for loss in batch.losses]
    if losses:
        await conn.executemany(
            "INSERT INTO sender_losses (customer_id, agent_id, loss_key, dropped, received_at) "
            "VALUES ($1, $2, $3, $4, $5) ON CONFLICT DO NOTHING",
            losses,
        )
    return len(new)


async def set_aside(conn: Connection, row: EventRow, error: str) -> None:
    """Keep a row that Postgres refused, as JSON, beside the events."""
    await conn.execute(
        "INSERT INTO set_aside_events (customer_id, event_key, error, row_json, received_at) "
        "VALUES ($1, $2, $3, $4, $5)",
        row.customer_id.replace("\0", "\ufffd"), row.event_key.replace("\0", "\ufffd"), error,
        msgspec.json.encode(row._asdict()), row.received_at,
    )  # fmt: skip


async def _append_events(conn: Connection, rows: list[EventRow]) -> Sequence[Any]:
    """COPY optimistically: it is twice as fast and duplicates are rare, but it knows no ON CONFLICT."""
    try:
        async with conn.transaction():
            await conn.copy_records_to_table("events", records=rows, columns=_COLUMNS)
        return rows
    except UniqueViolationError:
        await conn.execute(
            f"CREATE TEMPORARY TABLE incoming_events ON COMMIT DROP AS SELECT {_NAMES} FROM events WITH NO DATA"  # noqa: S608
        )
        await conn.copy_records_to_table("incoming_events", records=rows, columns=_COLUMNS)
        # In key order, so that two hosts that resend the same events wait for each other instead of deadlocking.
        new: list[Any] = await conn.fetch(
            f"INSERT INTO events ({_NAMES}) SELECT {_NAMES} FROM incoming_events ORDER BY run_id, event_key "  # noqa: S608
            "ON CONFLICT DO NOTHING RETURNING customer_id, run_id, day, received_at"
        )
        return new


def _touches(rows: Iterable[Any]) -> list[tuple[Any, ...]]:
    """One row a run: how many new events it has, and between which days."""
    runs: dict[tuple[str, str], list[Any]] = {}
    for row in rows:
        customer_id, run_id, day, received_at = _touched(row)
        known = runs.get((customer_id, run_id))
        if known is None:
            runs[customer_id, run_id] = [1, day, day, received_at]
        else:
            known[0] += 1
            known[1] = min(known[1], day)
            known[2] = max(known[2], day)
            known[3] = max(known[3], received_at)
    return [(customer_id, run_id, bucket_of(run_id), *known) for (customer_id, run_id), known in runs.items()]


def _touched(row: Any) -> tuple[str, str, Any, Any]:
    if isinstance(row, EventRow):
        return row.customer_id, row.run_id, row.day, row.received_at
    return row["customer_id"], row["run_id"], row["day"], row["received_at"]
