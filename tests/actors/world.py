"""One database, and the actors' single passes on it, without a process around them."""

from __future__ import annotations

import itertools
import time
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import trio

from dunetrace import config
from dunetrace.actors.poller import Poller
from dunetrace.actors.writer import Writer
from dunetrace.bell import Bell
from dunetrace.committing import CommitPromise
from dunetrace.detectors import thresholds
from dunetrace.events import event_day
from dunetrace.nursery import Context, HashKey
from dunetrace.store.gateway import Gateway
from dunetrace.store.packing import EventRow, day_of, pack

NOWHERE = Path("/nonexistent")


def settings(**changes: Any) -> config.Settings:
    """The default settings, changed."""
    limits = changes.pop("detectors", None)
    loaded = replace(config.load({}, NOWHERE), **changes)
    return replace(loaded, limits=thresholds.check(limits)) if limits else loaded


def context(gateway: Gateway, **changes: Any) -> Context:
    """What the supervisor would lend, with no sockets."""
    return Context(
        settings(**changes), "", gateway, None, trio.Event(), CommitPromise(), Bell(["poller", "dispatcher"]),
        HashKey(b"key"), {}, lambda _: (200, {}),
    )  # fmt: skip


class World:
    """Appends events as the writer does and judges as the poller does, one pass at a time."""

    def __init__(self, gateway: Gateway, **changes: Any) -> None:
        self.gateway = gateway
        self.ctx = context(gateway, **changes)
        self.poller = self.new_poller()
        self.start = time.time() - 60
        self._numbers = itertools.count()

    def new_poller(self) -> Poller:
        """Another poller, as after a restart or in another process."""
        return Poller(self.ctx.bell.listen("poller"))

    def row(
        self, run_id: str, event_type: str, at: float, step: int = 0, *, agent: str = "agent",
        received: float | None = None, parent: str | None = None, customer: str = "default", **payload: Any,
    ) -> EventRow:  # fmt: skip
        """One event `at` seconds after the world's start; received at the same moment unless said otherwise."""
        timestamp = self.start + at
        received_at = datetime.fromtimestamp(timestamp if received is None else self.start + received, UTC)
        return EventRow(
            customer, "batch", received_at, run_id, agent, "v1", parent, event_type, step, timestamp,
            day_of(event_day(timestamp, received_at.timestamp())), f"key:{next(self._numbers)}", payload,
        )  # fmt: skip

    async def append(self, *rows: EventRow) -> int:
        """One unit of the writer's."""
        return await Writer()._append(self.gateway, pack(rows))

    async def judge(self, poller: Poller | None = None) -> None:
        """Passes until nothing is left."""
        judging = poller or self.poller
        await judging._renew(self.ctx)
        for _ in range(50):
            if not await judging.run_once(self.ctx):
                return
        raise AssertionError("the poller is never done")

    async def rows(self, sql: str, *args: Any) -> list[dict[str, Any]]:
        async def read(conn: Any) -> list[dict[str, Any]]:
            return [dict(row) for row in await conn.fetch(sql, *args)]

        return await self.gateway.unit(read)

    async def one(self, sql: str, *args: Any) -> dict[str, Any]:
        (row,) = await self.rows(sql, *args)
        return row

    async def execute(self, sql: str, *args: Any) -> None:
        async def run(conn: Any) -> None:
            await conn.execute(sql, *args)

        await self.gateway.unit(run)

    # ---- shapes of runs

    def started(self, run_id: str, at: float = 0.0, **payload: Any) -> EventRow:
        agent = payload.pop("agent", "agent")
        return self.row(run_id, "run.started", at, 0, agent=agent, model="m", tools=["search"], **payload)

    def call(self, run_id: str, step: int, at: float, *, args: str = "ab" * 32, agent: str = "agent") -> list[EventRow]:
        """A tool call and its answer, a tenth of a second apart."""
        return [
            self.row(run_id, "tool.called", at, step, agent=agent, tool_name="search", args_hash=args),
            self.row(
                run_id, "tool.responded", at + 0.1, step, agent=agent, tool_name="search", success=True,
                output_hash=f"{step:064x}", output_length=5,
            ),
        ]  # fmt: skip

    def completed(self, run_id: str, at: float, **payload: Any) -> EventRow:
        agent = payload.pop("agent", "agent")
        return self.row(run_id, "run.completed", at, 9, agent=agent, exit_reason="final_answer", **payload)

    def clean_run(self, run_id: str, at: float = 0.0, agent: str = "agent") -> list[EventRow]:
        """A completed run in which nothing is wrong."""
        return [
            self.started(run_id, at, agent=agent),
            *self.call(run_id, 1, at + 0.2, agent=agent),
            self.completed(run_id, at + 1, agent=agent),
        ]

    def looping_run(self, run_id: str, at: float = 0.0, *, calls: int = 3, ended: bool = True) -> list[EventRow]:
        """The same call `calls` times."""
        rows = [self.started(run_id, at)]
        for n in range(calls):
            rows += self.call(run_id, n + 1, at + 0.2 * (n + 1))
        return [*rows, self.completed(run_id, at + 5)] if ended else rows


__all__ = ["World", "Writer", "context", "settings"]
