"""From events as sent to rows as stored: the privacy door, the identity and the day of each, decided here for good."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, NamedTuple

from dunetrace.batches import EventRow, Loss
from dunetrace.door import door
from dunetrace.events import EVENT_TYPES, event_day, event_key, storable
from dunetrace.injection import scan

if TYPE_CHECKING:
    from dunetrace.hashing import Hasher
    from dunetrace.serving.auth import Principal
    from dunetrace.serving.wire import SentBatch, SentEvent


class Receipt(NamedTuple):
    """What the server decides about a request when it has it whole. `received_at` is Unix seconds."""

    batch_id: str
    idempotency_key: str | None
    body_sha256: bytes
    received_at: float


@dataclass(slots=True)
class Admitted:
    """What one batch became. `foreign` are the positions of events the key may not write for."""

    rows: list[EventRow]
    losses: list[Loss]
    foreign: list[int] = field(default_factory=list)
    dropped_keys: int = 0


def admit(batch: SentBatch, principal: Principal, hasher: Hasher, receipt: Receipt) -> Admitted:
    """The rows of all events of the batch that `principal` may write. Pure but for the hashing, safe in a thread."""
    received_at = datetime.fromtimestamp(receipt.received_at, UTC)
    admitted = Admitted([], _losses(batch, principal, receipt, received_at))
    for position, event in batch.events:
        if not principal.may_write(event.agent_id):
            admitted.foreign.append(position)
            continue
        payload, dropped = door(event.event_type, event.payload or {}, hasher, scan)
        admitted.dropped_keys += dropped
        if isinstance(event.conversation_id, str) and event.event_type in EVENT_TYPES:
            payload["conversation_hash"] = hasher.text(storable(event.conversation_id))
        timestamp = receipt.received_at if event.timestamp is None else event.timestamp
        admitted.rows.append(
            EventRow(
                principal.customer_id,
                receipt.batch_id,
                event.event_type,
                event.run_id,
                event.agent_id,
                event.agent_version,
                event.step_index,
                timestamp,
                payload,
                event.parent_run_id or None,
                received_at,
                _key(event, receipt, position),
                event_day(timestamp, receipt.received_at),
            )
        )
    return admitted


def _key(event: SentEvent, receipt: Receipt, position: int) -> str:
    return event_key(
        event.event_id or None,
        event.timestamp,
        idempotency_key=receipt.idempotency_key,
        body_sha256=receipt.body_sha256,
        batch_id=receipt.batch_id,
        position=position,
    )


def _losses(batch: SentBatch, principal: Principal, receipt: Receipt, received_at: datetime) -> list[Loss]:
    """What the sender says it lost. The key holds the body, so that the same batch sent again counts once."""
    if not batch.dropped_events or not principal.may_write(batch.agent_id):
        return []
    key = hashlib.sha256(receipt.body_sha256 + (receipt.idempotency_key or "").encode("utf-8", "replace"))
    return [Loss(principal.customer_id, batch.agent_id, key.hexdigest(), batch.dropped_events, received_at)]
