"""The usual way to write an ingest door: FastAPI on uvicorn, pydantic models, rows inserted by `executemany`.

``python -m bench.rival --database-url … --port …``. Same table, same key check, same pool as ours. It answers 202
before anything is stored anywhere, so that what it has in hand at a crash is lost; or, with ``--answer stored``, when
the rows are committed, which is what our 202 promises.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import asyncpg
import uvicorn
from fastapi import BackgroundTasks, FastAPI, HTTPException, Request
from pydantic import BaseModel, Field

KEY = "dt_key_of_the_bench"
_INSERT = (
    "INSERT INTO events (customer_id, batch_id, event_type, run_id, agent_id, agent_version, step_index, timestamp, "
    "payload, parent_run_id, received_at, event_key, day) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, "
    "$13) ON CONFLICT DO NOTHING"
)


class SentEvent(BaseModel):
    """One event of a batch."""

    event_type: str = Field(min_length=1, max_length=64)
    run_id: str = Field(min_length=1, max_length=256)
    agent_id: str = Field(min_length=1, max_length=256)
    agent_version: str = Field(min_length=1, max_length=256)
    step_index: int = Field(ge=0, le=2_147_483_647)
    timestamp: float = Field(ge=0, lt=4_102_444_800)
    payload: dict[str, Any] = {}
    parent_run_id: str | None = None
    event_id: str | None = None


class SentBatch(BaseModel):
    """The body of a request."""

    agent_id: str = Field(min_length=1, max_length=256)
    events: list[SentEvent] = Field(min_length=1, max_length=50_000)
    api_key: str | None = None


def application(database_url: str, *, stores_first: bool) -> FastAPI:
    """The door on the database at `database_url`."""
    pools: list[Any] = []

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        pools.append(await asyncpg.create_pool(database_url, min_size=10, max_size=10))
        yield
        await pools.pop().close()

    app = FastAPI(lifespan=lifespan)

    async def insert(rows: list[tuple[Any, ...]]) -> None:
        await pools[0].executemany(_INSERT, rows)

    @app.post("/v1/ingest", status_code=202)
    async def ingest(batch: SentBatch, request: Request, background: BackgroundTasks) -> dict[str, Any]:
        key = request.headers.get("authorization", "").removeprefix("Bearer ") or batch.api_key or ""
        found = await pools[0].fetchrow(
            "SELECT customer_id FROM api_keys WHERE key_hash = $1 AND active", hashlib.sha256(key.encode()).hexdigest()
        )
        if found is None:
            raise HTTPException(401, "Invalid or inactive API key")
        batch_id, now = str(uuid.uuid4()), time.time()
        received_at = datetime.fromtimestamp(now, UTC)
        rows = [
            (
                found["customer_id"], batch_id, event.event_type, event.run_id, event.agent_id,
                event.agent_version, event.step_index, event.timestamp, json.dumps(event.payload),
                event.parent_run_id, received_at, event.event_id or f"{batch_id}:{position}",
                datetime.fromtimestamp(event.timestamp, UTC).date(),
            )
            for position, event in enumerate(batch.events)
        ]  # fmt: skip
        if stores_first:
            await insert(rows)
        else:
            background.add_task(insert, rows)
        return {"accepted": len(batch.events), "batch_id": batch_id, "queued_at": now}

    return app


def main() -> None:
    parser = argparse.ArgumentParser(description="A plain FastAPI ingest door.")
    parser.add_argument("--database-url", required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--answer", choices=("at-once", "stored"), required=True)
    given = parser.parse_args()
    # What `pip install fastapi uvicorn` runs on, whatever else is installed here.
    uvicorn.run(
        application(given.database_url, stores_first=given.answer == "stored"),
        host="127.0.0.1", port=given.port, http="h11", loop="asyncio", log_level="warning", access_log=False,
    )  # fmt: skip


if __name__ == "__main__":
    main()
