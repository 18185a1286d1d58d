"""The ingest door on a real socket, with a promise that records what it was asked to keep."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import httpx
import trio

from dunetrace.batches import Batch
from dunetrace.hashing import Hasher
from dunetrace.serving.auth import Gate, Principal, key_hash
from dunetrace.serving.connection import EngineLimits
from dunetrace.serving.engine import serve
from dunetrace.serving.ingest_app import IngestApp, IngestLimits
from dunetrace.serving.sockets import address_of, listen
from dunetrace.store.packing import EventRow, unpack

HASH_KEY = b"the installation's key"
ENGINE_LIMITS = EngineLimits()


@dataclass
class RecordedPromise:
    """Keeps what it is given in a list, or raises what it was told to."""

    kept: list[Batch] = field(default_factory=list)
    error: Exception | None = None

    def check_room(self) -> None:
        if self.error is not None:
            raise self.error

    async def keep(self, batch: Batch) -> None:
        await trio.lowlevel.checkpoint()
        if self.error is not None:
            raise self.error
        self.kept.append(batch)

    @property
    def rows(self) -> list[EventRow]:
        """The rows of all batches, in the order they came."""
        return [row for batch in self.kept for row in unpack(batch.rows)]


@dataclass
class Door:
    """A served app, a client of it, and what it works with."""

    client: httpx.AsyncClient
    app: IngestApp
    promise: RecordedPromise
    keys: dict[str, Principal]
    marks: list[tuple[str, str, str]]
    port: int
    shutdown: trio.Event

    async def send(self, *events: Any, headers: Mapping[str, str] = {}, **top: Any) -> httpx.Response:
        """POST a batch of these events."""
        body = {"agent_id": "agent", "events": list(events), **top}
        return await self.client.post("/v1/ingest", json=body, headers=dict(headers))

    async def post(self, content: bytes, **headers: str) -> httpx.Response:
        """POST a body as it is; underscores in header names stand for dashes."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return await self.client.post(
            "/v1/ingest", content=content, headers={"Content-Type": "application/json", **named}
        )


def event(**fields: Any) -> dict[str, Any]:
    """A well-formed event with these fields changed."""
    return {
        "event_type": "llm.called",
        "run_id": "run-1",
        "agent_id": "agent",
        "agent_version": "6ddeb0c4",
        "step_index": 1,
        "timestamp": 1_795_316_696.25,
        "payload": {"model": "gpt-4o", "prompt_tokens": 150},
        "parent_run_id": None,
        **fields,
    }


def key(door_keys: dict[str, Principal], text: str, *, agent: str = "*", scopes: str = "ingest") -> dict[str, str]:
    """Make a key known; the header that carries it."""
    hashed = key_hash(text)
    door_keys[hashed] = Principal("acme", agent, frozenset(scopes.split()), hashed)
    return {"Authorization": f"Bearer {text}"}


@asynccontextmanager
async def open_door(
    mode: str = "dev", limits: IngestLimits | None = None, engine_limits: EngineLimits = ENGINE_LIMITS
) -> AsyncIterator[Door]:
    """Serve the app on a free port for the length of the block."""
    promise = RecordedPromise()
    keys: dict[str, Principal] = {}
    marks: list[tuple[str, str, str]] = []

    async def find_key(hashed: str) -> Principal | None:
        await trio.lowlevel.checkpoint()
        return keys.get(hashed)

    async def mark(customer_id: str, agent_id: str, version: str) -> tuple[int, float]:
        await trio.lowlevel.checkpoint()
        marks.append((customer_id, agent_id, version))
        return len(marks), 1_795_316_700.5

    app = IngestApp(
        limits=limits or IngestLimits(),
        promise=promise,
        gate=Gate(mode, find_key, trio.current_time),
        hasher=lambda: Hasher(HASH_KEY),
        mark_deploy=mark,
        health=lambda name: (200, {"status": "ok", "actors": {name: {"state": "running", "restarts": 0}}}),
    )
    shutdown = trio.Event()
    with listen("127.0.0.1:0", "DUNETRACE_INGEST_BIND") as sock:
        async with trio.open_nursery() as nursery:
            await nursery.start(partial(serve, app.answer, sock, shutdown, limits=engine_limits))
            url = f"http://{address_of(sock)}"
            async with httpx.AsyncClient(base_url=url, timeout=20, trust_env=False) as client:
                yield Door(client, app, promise, keys, marks, sock.getsockname()[1], shutdown)
            shutdown.set()
