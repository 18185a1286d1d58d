"""A batch of accepted events on its way into Postgres, and the promise that stands behind its 202.

The ingest door makes batches, a `Promise` keeps them. ``commit`` (the writer's group commit, `actors/writer.py`)
is one way to keep it; a journal on local disk is the other. The door knows only this seam.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Any, NamedTuple, Protocol
from zlib import crc32

BUCKETS = 64


def bucket_of(run_id: str) -> int:
    """The detection bucket of a run, 0..63: one poller at a time holds the lease of a bucket."""
    return crc32(run_id.encode("utf-8", "replace")) % BUCKETS


class EventRow(NamedTuple):
    """One row of ``events``, in the order the writer copies it. Everything in it passed the privacy door."""

    customer_id: str
    batch_id: str
    event_type: str
    run_id: str
    agent_id: str
    agent_version: str
    step_index: int
    timestamp: float  # the client's clock, Unix seconds
    payload: dict[str, Any]
    parent_run_id: str | None
    received_at: datetime  # the server's clock, aware UTC
    event_key: str
    day: date


class Loss(NamedTuple):
    """What a sender said it lost before it could send it; `loss_key` makes a retried batch count once."""

    customer_id: str
    agent_id: str
    loss_key: str
    dropped: int
    received_at: datetime


@dataclass(frozen=True, slots=True)
class Batch:
    """What one request had accepted. `size_bytes` is the inflated body's size, for the queue's bound."""

    rows: list[EventRow]
    size_bytes: int
    losses: list[Loss] = field(default_factory=list)


class Promise(Protocol):
    """Keeps what was accepted. When `keep` returns, the batch survives ``kill -9`` of this process."""

    async def keep(self, batch: Batch) -> None:
        """Raises QueueFullError when a bound is reached, StoreUnavailableError when Postgres is away."""
