"""Appending what ingest accepted. Called by the writer only."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final, Self

import msgspec

from dunetrace.batches import Batch, bucket_of
from dunetrace.store.gateway import UniqueViolationError
from dunetrace.store.packing import COLUMNS, COPY_HEADER, COPY_TRAILER, EventRow, day_of

if TYPE_CHECKING:
    from dunetrace.store.gateway import Connection

COPY_PIECE_BYTES: Final = 256 << 10  # about what a socket takes at once
_NAMES = ", ".join(COLUMNS)
_TOUCH_COLUMNS = ("customer_id", "run_id", "bucket", "n", "first_day", "last_day", "received_at")
# One run's news: customer_id, run_id, n, first_day, last_day (days since 1970-01-01), received_at (Unix seconds).
_News = tuple[str, str, int, int, int, float]


async def append(conn: Connection, batches: Sequence[Batch]) -> int:
    """Store events, touches and losses of `batches`; all of it or nothing. Returns the number of events that were new.

    An event whose key is stored already is left out, and its run gets no touch for it, so a batch may be appended any
    number of times.
    """
    news = await _append_events(conn, batches)
    touches = [
        (customer_id, run_id, bucket_of(run_id), n, day_of(first), day_of(last), datetime.fromtimestamp(received, UTC))
        for customer_id, run_id, n, first, last, received in _by_run(news)
    ]
    if touches:
        await conn.copy_records_to_table("run_touches", records=touches, columns=_TOUCH_COLUMNS)
    losses = [
        (batch.customer_id, batch.loss.agent_id, batch.loss.loss_key, batch.loss.dropped,
         datetime.fromtimestamp(batch.received_at, UTC))
        for batch in batches if batch.loss
    ]  # fmt: skip
    if losses:
        await conn.executemany(
            "INSERT INTO sender_losses (customer_id, agent_id, loss_key, dropped, received_at) "
            "VALUES ($1, $2, $3, $4, $5) ON CONFLICT DO NOTHING",
            losses,
        )
    return sum(touch[3] for touch in touches)


async def set_aside(conn: Connection, row: EventRow, error: str) -> None:
    """Keep a row that Postgres refused, as JSON, beside the events."""
    await conn.execute(
        "INSERT INTO set_aside_events (customer_id, event_key, error, row_json, received_at) "
        "VALUES ($1, $2, $3, $4, $5)",
        row.customer_id.replace("\0", "\ufffd"), row.event_key.replace("\0", "\ufffd"), error,
        msgspec.json.encode(row._asdict()), row.received_at,
    )  # fmt: skip


async def _append_events(conn: Connection, batches: Sequence[Batch]) -> list[_News]:
    """COPY optimistically: it is twice as fast and duplicates are rare, but it knows no ON CONFLICT."""
    try:
        async with conn.transaction():
            await _copy(conn, "events", batches)
        return [
            (batch.customer_id, touch.run_id, touch.events, touch.first_day, touch.last_day, batch.received_at)
            for batch in batches
            for touch in batch.touches
        ]
    except UniqueViolationError:
        await conn.execute(
            f"CREATE TEMPORARY TABLE incoming_events ON COMMIT DROP AS SELECT {_NAMES} FROM events WITH NO DATA"  # noqa: S608
        )
        await _copy(conn, "incoming_events", batches)
        # In key order, so that two hosts that resend the same events wait for each other instead of deadlocking.
        new = await conn.fetch(
            f"WITH new AS (INSERT INTO events ({_NAMES}) SELECT {_NAMES} FROM incoming_events "  # noqa: S608
            "ORDER BY run_id, event_key ON CONFLICT DO NOTHING RETURNING customer_id, run_id, day, received_at) "
            "SELECT customer_id, run_id, count(*), min(day) - DATE 'epoch', max(day) - DATE 'epoch', "
            "extract(epoch FROM max(received_at))::float8 FROM new GROUP BY 1, 2"
        )
        return [tuple(row) for row in new]


async def _copy(conn: Connection, table: str, batches: Sequence[Batch]) -> None:
    await conn.copy_to_table(table, source=_CopyData(batches), columns=COLUMNS, format="binary")


class _CopyData:
    """The rows of batches as COPY's data. The driver would read a file object by a thread's hop for each piece."""

    def __init__(self, batches: Iterable[Batch]) -> None:
        self._pieces = iter([COPY_HEADER, *(batch.rows for batch in batches), COPY_TRAILER])

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        piece = b"".join(_up_to(self._pieces, COPY_PIECE_BYTES))
        if not piece:
            raise StopAsyncIteration
        return piece


def _up_to(pieces: Iterator[bytes], size_bytes: int) -> Iterator[bytes]:
    """Pieces until they have this size together, or a little more."""
    for piece in pieces:
        yield piece
        size_bytes -= len(piece)
        if size_bytes <= 0:
            return


def _by_run(news: Iterable[_News]) -> Iterable[_News]:
    """One row a run: how many new events it has, and between which days."""
    runs: dict[tuple[str, str], _News] = {}
    for one in news:
        known = runs.get(one[:2])
        runs[one[:2]] = one if known is None else _together(known, one)
    return runs.values()


def _together(a: _News, b: _News) -> _News:
    return (*a[:2], a[2] + b[2], min(a[3], b[3]), max(a[4], b[4]), max(a[5], b[5]))
