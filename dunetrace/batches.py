"""A batch of accepted events on its way into Postgres, and the promise that stands behind its 202.

The ingest door makes batches, a `Promise` keeps them, the writer stores them. There are two ways to keep one, and door
and writer know only the seam: ``journal`` (`journal/`: on this machine's disk, synced) and ``commit``
(`committing.py`: in Postgres).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol
from zlib import crc32

import msgspec

if TYPE_CHECKING:
    import trio

    from dunetrace.errors import StoreUnavailableError

BUCKETS = 64
MAX_QUEUED_EVENTS = 200_000  # a few seconds of what Postgres takes: more would only make what is found old
GROUP_EVENTS = 20_000  # COPY itself is as fast from 5,000 on; the rest makes up for the steps around it
GROUP_BYTES = 8 << 20


def bucket_of(run_id: str) -> int:
    """The detection bucket of a run, 0..63: one poller at a time holds the lease of a bucket."""
    return crc32(run_id.encode("utf-8", "replace")) % BUCKETS


class Touch(msgspec.Struct, array_like=True, gc=False):
    """One run of a batch: how many events it has there and between which days (days since 1970-01-01)."""

    run_id: str
    events: int
    first_day: int
    last_day: int


class Loss(msgspec.Struct, array_like=True, gc=False):
    """What a sender said it lost before it could send it; `loss_key` makes a retried batch count once."""

    agent_id: str
    loss_key: str
    dropped: int


class Batch(msgspec.Struct, array_like=True, gc=False):
    """What one request had accepted, of one customer: exactly what a journal keeps and what COPY takes.

    `rows` are rows of ``events`` in the form of `store.packing`; `owner` says whose share of a queue they take;
    `received_at` is the server's clock, Unix seconds.
    """

    customer_id: str
    owner: str
    received_at: float
    rows: bytes
    touches: list[Touch]
    loss: Loss | None = None

    @property
    def events(self) -> int:
        """How many rows it holds."""
        return sum(touch.events for touch in self.touches)


class Promise(Protocol):
    """The door's side. When `keep` returns, the batch survives ``kill -9`` of this process."""

    def check_room(self) -> None:
        """Raises what `keep` would raise of any batch: asked before a body costs anything."""

    async def keep(self, batch: Batch) -> None:
        """Raises QueueFullError when a bound is reached, StoreUnavailableError when Postgres is away."""


class Group(Protocol):
    """Batches that are written together."""

    @property
    def batches(self) -> Sequence[Batch]:
        """In the order they were accepted; none when there is only something to pass over."""

    def finish(self, error: StoreUnavailableError | None = None) -> None:
        """All of it is stored and leaves the queue; or (`error`) Postgres is away."""


class Queue(Promise, Protocol):
    """A promise with the writer's side of it: the oldest batches that are not stored yet."""

    async def wait_for_work(self, stopping: trio.Event) -> bool:
        """False when a stop was asked for and nothing is left to write."""

    async def head(self) -> Group:
        """The oldest batches, as many as are worth a transaction. They stay in the queue until they are finished."""

    def health(self) -> dict[str, Any] | None:
        """What /health says of the disk under it, with a "state"; None when there is none."""
