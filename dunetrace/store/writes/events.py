"""Appending what ingest accepted. Called by the writer only."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final, Self

import msgspec

from dunetrace.batches import Batch, bucket_of
from dunetrace.store.columns import columns
from dunetrace.store.packing import COLUMNS, COPY_HEADER, COPY_TRAILER, EventRow

if TYPE_CHECKING:
    from dunetrace.store.gateway import Connection

COPY_PIECE_BYTES: Final = 256 << 10  # about what a socket takes at once
_NAMES = ", ".join(COLUMNS)
_TOUCH = (
    "INSERT INTO run_touches (bucket, customer_id, run_id, n, first_day, last_day, received_at) "
    "SELECT bucket, customer_id, run_id, n, DATE 'epoch' + first_day, DATE 'epoch' + last_day, to_timestamp(received) "
    "FROM unnest($1::smallint[], $2::text[], $3::text[], $4::int[], $5::int[], $6::int[], $7::float8[]) "
    "AS news (bucket, customer_id, run_id, n, first_day, last_day, received)"
)
# One run's news: customer_id, run_id, n, first_day, last_day (days since 1970-01-01), received_at (Unix seconds).
_News = tuple[str, str, int, int, int, float]


async def append(conn: Connection, batches: Sequence[Batch]) -> int:
    """Store events, touches and losses of `batches`; all of it or nothing. Returns the number of events.

    Raises UniqueViolationError when one of them is stored already: COPY knows no ON CONFLICT, but it is twice as fast,
    and duplicates are rare. Then it is `append_new`'s turn, in a transaction of its own: a savepoint for it in each of
    these would be paid for always.
    """
    await _copy(conn, "events", batches)
    news = [
        (batch.customer_id, touch.run_id, touch.events, touch.first_day, touch.last_day, batch.received_at)
        for batch in batches
        for touch in batch.touches
    ]
    return await _note(conn, news, batches)


async def append_new(conn: Connection, batches: Sequence[Batch]) -> int:
    """The same for batches of which some may be stored already. Returns the number of events that were new.

    An event whose key is stored is left out, and its run gets no touch for it, so a batch may be appended any number of
    times.
    """
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
    return await _note(conn, [tuple(row) for row in new], batches)


async def _note(conn: Connection, news: Sequence[_News], batches: Sequence[Batch]) -> int:
    """The touches and losses that go with the events. Returns how many events that is."""
    runs = _by_run(news)
    if runs:
        buckets = [bucket_of(run_id) for _, run_id, *_ in runs]
        await conn.execute(_TOUCH, buckets, *columns(runs, 6))  # one wait less than COPY has
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
    return sum(n for _, _, n, *_ in runs)


async def set_aside(conn: Connection, row: EventRow, error: str) -> None:
    """Keep a row that Postgres refused, as JSON, beside the events."""
    await conn.execute(
        "INSERT INTO set_aside_events (customer_id, event_key, error, row_json, received_at) "
        "VALUES ($1, $2, $3, $4, $5)",
        row.customer_id.replace("\0", "\ufffd"), row.event_key.replace("\0", "\ufffd"), error,
        msgspec.json.encode(row._asdict()), row.received_at,
    )  # fmt: skip


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


def _by_run(news: Iterable[_News]) -> Sequence[_News]:
    """One row a run: how many new events it has, and between which days."""
    runs: dict[tuple[str, str], _News] = {}
    for one in news:
        known = runs.get(one[:2])
        runs[one[:2]] = one if known is None else _together(known, one)
    return list(runs.values())


def _together(a: _News, b: _News) -> _News:
    return (*a[:2], a[2] + b[2], min(a[3], b[3]), max(a[4], b[4]), max(a[5], b[5]))
