"""From events as sent to rows as stored: the privacy door, the identity and the day of each, decided here for good."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from msgspec import to_builtins

from dunetrace.batches import Batch, Loss
from dunetrace.door import door
from dunetrace.events import DAY_S, EVENT_TYPES, event_day, id_key, position_key, storable
from dunetrace.injection import scan
from dunetrace.serving.auth import ALL_AGENTS
from dunetrace.serving.plain import Plain
from dunetrace.store.packing import Packer

if TYPE_CHECKING:
    from dunetrace.hashing import Hasher
    from dunetrace.serving.auth import Principal
    from dunetrace.serving.wire import SentBatch, SentEvent


class Receipt:
    """What the server decides about a request when it has it whole. `received_at` is Unix seconds."""

    __slots__ = ("_body", "_body_sha256", "batch_id", "idempotency_key", "received_at")

    def __init__(self, batch_id: str, idempotency_key: str | None, body: bytes, received_at: float) -> None:
        self.batch_id, self.idempotency_key, self.received_at = batch_id, idempotency_key, received_at
        self._body, self._body_sha256 = body, b""

    @property
    def body_sha256(self) -> bytes:
        """Of the inflated body; only made when asked for, since most events bring an identity of their own."""
        self._body_sha256 = self._body_sha256 or hashlib.sha256(self._body).digest()
        return self._body_sha256


@dataclass(slots=True)
class Admitted:
    """What one batch became. `events` is how many; `foreign` are the positions of events the key may not write for."""

    batch: Batch
    events: int
    foreign: list[int] = field(default_factory=list)
    dropped_keys: int = 0


def admit(sent: SentBatch, principal: Principal, hasher: Hasher, receipt: Receipt) -> Admitted:
    """The rows of all events of the batch that `principal` may write. Pure but for the hashing, safe in a thread."""
    received_at = receipt.received_at
    packer = Packer(principal.customer_id, receipt.batch_id, received_at)
    foreign: list[int] = []
    dropped_keys = 0
    may_write_all = principal.may_write(ALL_AGENTS)
    day, day_begins_s = 0, math.inf
    for position, event in sent.events:
        if not may_write_all and not principal.may_write(event.agent_id):
            foreign.append(position)
            continue
        payload = event.payload
        if event.conversation_id is not None or not isinstance(payload, Plain):
            payload, dropped = _through_the_door(event, hasher)
            dropped_keys += dropped
        timestamp = received_at if event.timestamp is None else event.timestamp
        if not day_begins_s <= timestamp < day_begins_s + DAY_S:  # nearly all events of a batch are of one day
            day = event_day(timestamp, received_at)
            day_begins_s = day * DAY_S
        packer.add(
            (event.run_id, event.agent_id, event.agent_version, event.parent_run_id or None),
            event.event_type,
            event.step_index,
            timestamp,
            day,
            id_key(event.event_id, event.timestamp) if event.event_id else _key_of_position(position, receipt),
            payload,
        )
    batch = packer.batch(principal.key_hash or principal.customer_id, _loss(sent, principal, receipt))
    return Admitted(batch, len(sent.events) - len(foreign), foreign, dropped_keys)


def _through_the_door(event: SentEvent, hasher: Hasher) -> tuple[dict[str, Any], int]:
    sent = event.payload
    payload, dropped = door(event.event_type, sent if isinstance(sent, dict) else to_builtins(sent or {}), hasher, scan)
    if isinstance(event.conversation_id, str) and event.event_type in EVENT_TYPES:
        payload["conversation_hash"] = hasher.text(storable(event.conversation_id))
    return payload, dropped


def _key_of_position(position: int, receipt: Receipt) -> str:
    if receipt.idempotency_key is not None:
        return position_key(receipt.idempotency_key, receipt.body_sha256, position)
    return f"{receipt.batch_id}:{position}"


def _loss(sent: SentBatch, principal: Principal, receipt: Receipt) -> Loss | None:
    """What the sender says it lost. The key holds the body, so that the same batch sent again counts once."""
    if not sent.dropped_events or not principal.may_write(sent.agent_id):
        return None
    key = hashlib.sha256(receipt.body_sha256 + (receipt.idempotency_key or "").encode("utf-8", "replace"))
    return Loss(sent.agent_id, key.hexdigest(), sent.dropped_events)
