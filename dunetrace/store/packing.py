"""Rows of ``events`` as the bytes Postgres's binary COPY takes, packed once at the door and never again taken apart.

The door packs each event; journal and writer hand the bytes on; only a row that Postgres refuses is unpacked. Layout:
https://www.postgresql.org/docs/current/sql-copy.html (Binary Format).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import UTC, date, datetime
from struct import Struct
from typing import Any, Final, NamedTuple

import msgspec

from dunetrace.batches import Batch, Loss, Touch

# The version of a row's bytes and of `batches.Batch` around them. Raise it with every change of either: a journal keeps
# both, and leaves alone what another version wrote.
LAYOUT: Final = 1
COPY_HEADER: Final = b"PGCOPY\n\xff\r\n\0" + bytes(8)
COPY_TRAILER: Final = b"\xff\xff"

_DAYS_1970_TO_2000: Final = 10_957  # Postgres counts days and microseconds from 2000-01-01
_US_1970_TO_2000: Final = _DAYS_1970_TO_2000 * 86_400 * 1_000_000
_EPOCH_ORDINAL: Final = date(1970, 1, 1).toordinal()

_LENGTH: Final = Struct(">i")
_COUNT: Final = Struct(">h")
_NULL: Final = _LENGTH.pack(-1)
_RECEIVED: Final = Struct(">iq")
# step_index, timestamp, day, and the length of event_key
_NUMBERS: Final = Struct(">iiidiii")
# the length of the payload and the version byte of binary jsonb
_PAYLOAD: Final = Struct(">iB")
_JSONB_VERSION: Final = 1
_encode: Final = msgspec.json.Encoder().encode


class EventRow(NamedTuple):
    """One row of ``events``, column by column in the order it is packed. Everything in it passed the privacy door."""

    customer_id: str
    batch_id: str
    received_at: datetime  # the server's clock, aware UTC
    run_id: str
    agent_id: str
    agent_version: str
    parent_run_id: str | None
    event_type: str
    step_index: int
    timestamp: float  # the client's clock, Unix seconds
    day: date
    event_key: str
    payload: dict[str, Any]


COLUMNS: Final = EventRow._fields


class Packer:
    """Packs the events of one request. `received_at` is Unix seconds."""

    def __init__(self, customer_id: str, batch_id: str, received_at: float) -> None:
        self._customer_id, self._received_at = customer_id, received_at
        self._start = (
            _COUNT.pack(len(COLUMNS))
            + _text(customer_id)
            + _text(batch_id)
            + _RECEIVED.pack(8, round(received_at * 1e6) - _US_1970_TO_2000)
        )
        self._rows: list[bytes] = []
        self._texts: dict[str, bytes] = {}
        # What the rows of one run have in common, and the run's touch.
        self._runs: dict[tuple[str, str, str, str | None], tuple[bytes, Touch]] = {}
        self._touches: dict[str, Touch] = {}

    def add(  # noqa: PLR0917 - called once an event: keywords would cost as much as half of the packing
        self,
        run: tuple[str, str, str, str | None],
        event_type: str,
        step_index: int,
        timestamp: float,
        day: int,
        event_key: str,
        payload: Any,
    ) -> None:
        """One event of `run` (run_id, agent_id, agent_version, parent_run_id); `day` counts from 1970-01-01.

        `payload` is what encodes to a JSON object.
        """
        known = self._runs.get(run)
        if known is None:
            known = self._runs[run] = self._begin(run, day)
        head, touch = known
        touch.events += 1
        if day < touch.first_day:
            touch.first_day = day
        elif day > touch.last_day:
            touch.last_day = day
        kind = self._texts.get(event_type)
        if kind is None:
            kind = self._texts[event_type] = _text(event_type)
        key, content = event_key.encode(), _encode(payload)
        self._rows += (
            head,
            kind,
            _NUMBERS.pack(4, step_index, 8, timestamp, 4, day - _DAYS_1970_TO_2000, len(key)),
            key,
            _PAYLOAD.pack(len(content) + 1, _JSONB_VERSION),
            content,
        )

    def _begin(self, run: tuple[str, str, str, str | None], day: int) -> tuple[bytes, Touch]:
        run_id, agent_id, agent_version, parent = run
        touch = self._touches.get(run_id)
        if touch is None:
            touch = self._touches[run_id] = Touch(run_id, 0, day, day)
        parts = (_text(run_id), _text(agent_id), _text(agent_version), _NULL if parent is None else _text(parent))
        return self._start + b"".join(parts), touch

    def batch(self, owner: str, loss: Loss | None = None) -> Batch:
        """Everything added so far."""
        touches = list(self._touches.values())
        return Batch(self._customer_id, owner, self._received_at, b"".join(self._rows), touches, loss)


def pack(rows: Iterable[EventRow], owner: str = "", loss: Loss | None = None) -> list[Batch]:
    """Rows as batches, one for each request they came with; `loss` goes with the first."""
    packers: dict[tuple[str, str, datetime], Packer] = {}
    for row in rows:
        request = (row.customer_id, row.batch_id, row.received_at)
        if request not in packers:
            packers[request] = Packer(row.customer_id, row.batch_id, row.received_at.timestamp())
        packers[request].add(
            (row.run_id, row.agent_id, row.agent_version, row.parent_run_id),
            row.event_type, row.step_index, row.timestamp, row.day.toordinal() - _EPOCH_ORDINAL, row.event_key,
            row.payload,
        )  # fmt: skip
    return [packer.batch(owner, None if n else loss) for n, packer in enumerate(packers.values())]


def unpack(rows: bytes) -> Iterator[EventRow]:
    """The rows again, for the few that need a look."""
    at = 0
    while at < len(rows):
        at += _COUNT.size
        fields: list[bytes | None] = []
        for _ in COLUMNS:
            (length,) = _LENGTH.unpack_from(rows, at)
            at += _LENGTH.size
            fields.append(None if length < 0 else rows[at : at + length])
            at += max(length, 0)
        yield EventRow(*(read(field) for read, field in zip(_READERS, fields, strict=True)))


def day_of(days: int) -> date:
    """The date so many days after 1970-01-01."""
    return date.fromordinal(_EPOCH_ORDINAL + days)


def _text(value: str) -> bytes:
    data = value.encode()
    return _LENGTH.pack(len(data)) + data


def _read_text(data: bytes | None) -> Any:
    return None if data is None else data.decode()


def _reader(layout: str, read: Any) -> Any:
    unpacked = Struct(layout).unpack
    return lambda data: read(unpacked(data)[0])


_READERS: Final = (
    _read_text,
    _read_text,
    _reader(">q", lambda us: datetime.fromtimestamp((us + _US_1970_TO_2000) / 1e6, UTC)),
    *(_read_text,) * 5,
    _reader(">i", int),
    _reader(">d", float),
    _reader(">i", lambda days: day_of(days + _DAYS_1970_TO_2000)),
    _read_text,
    lambda data: msgspec.json.decode(data[1:]),
)
