"""The ceiling: one connection that does nothing but COPY into ``events``, 5,000 rows at a time."""

from __future__ import annotations

import asyncio
import itertools
import random
import time
import uuid
from io import BytesIO
from typing import Any

import asyncpg

from dunetrace.batches import Batch
from dunetrace.events import event_day
from dunetrace.store.packing import COLUMNS, COPY_HEADER, COPY_TRAILER, Packer
from tests.harness.shapes import run_events

ROWS = 5_000


def copied(database_url: str, seconds: float) -> tuple[int, float]:
    """Rows copied into the ``events`` of this database, each COPY a transaction, and the seconds that took.

    The rows are made off the clock.
    """
    return asyncio.run(_copy(database_url, seconds))


async def _copy(database_url: str, seconds: float) -> tuple[int, float]:
    conn: Any = await asyncpg.connect(database_url)
    try:
        rows, took_s = 0, 0.0
        while took_s < seconds:
            data = BytesIO(COPY_HEADER + _batch().rows + COPY_TRAILER)
            started = time.perf_counter()
            await conn.copy_to_table("events", source=data, columns=COLUMNS, format="binary")
            took_s += time.perf_counter() - started
            rows += ROWS
        return rows, took_s
    finally:
        await conn.close()


def _batch() -> Batch:
    """Rows as ours are, of runs nobody else has."""
    rng, now = random.Random(), time.time()
    packer = Packer("default", str(uuid.uuid4()), now)
    events = itertools.islice(itertools.chain.from_iterable(run_events(rng, "copied", now) for _ in iter(int, 1)), ROWS)
    for event in events:
        run = (event["run_id"], event["agent_id"], event["agent_version"], event["parent_run_id"])
        timestamp, key = event["timestamp"], f"{rng.getrandbits(128):032x}"
        packer.add(
            run, event["event_type"], event["step_index"], timestamp, event_day(timestamp, now), key, event["payload"]
        )
    return packer.batch("bench")
