"""Processes that are killed where it hurts: the moments between a 202 and its rows, and who is struck at them.

A moment is a block: once it is entered, the process under load is exactly there, and it is let go when the block ends.
Where Postgres shows that it has come to the moment, nobody has to guess how long that takes.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import asyncpg
import trio

from tests.e2e.clusters import Cluster
from tests.e2e.crashing import PATIENCE_S, accepted, load, until
from tests.harness.invariants import assert_invariants, rows
from tests.harness.load import Ledger
from tests.harness.server import Server

AT_ONCE_S = 0.3  # a process is killed again within this time of its start
WAITING_BYTES = 50_000  # in the journal, while Postgres holds its writer up
SMALL_SEGMENTS = {"DUNETRACE_JOURNAL_MAX_BYTES": str(1 << 20)}  # so that one is begun every few dozen requests
_AWAY = (OSError, asyncpg.PostgresError, asyncpg.InterfaceError)
# The writer's transaction, which alone writes events, while it waits for the lock of a table, or for its commit.
_WRITING = (
    "SELECT pid FROM pg_locks JOIN pg_stat_activity USING (pid) WHERE relation = 'events'::regclass "
    "AND mode = 'RowExclusiveLock' AND wait_event_type || ' ' || wait_event = $1"
)
_CHECKPOINTER = "SELECT pid FROM pg_stat_activity WHERE backend_type = 'checkpointer'"
_SESSIONS = (
    "SELECT pid FROM pg_stat_activity WHERE application_name = 'dunetrace' AND datname = current_database() "
    "ORDER BY state = 'active' DESC LIMIT 1"
)


@dataclass
class Scene:
    """Servers on one database, under load. `struck` counts what was done to them."""

    cluster: Cluster
    url: str
    servers: Sequence[Server]
    ledger: Ledger
    rng: random.Random
    struck: Counter[str] = field(default_factory=Counter)

    @property
    def journals(self) -> bool:
        return self.servers[0].env.get("DUNETRACE_PROMISE") != "commit"


Moment = Callable[[Scene, Server], AbstractAsyncContextManager[None]]


class Blow(NamedTuple):
    """`strike` is within a moment, `recover` behind it."""

    name: str
    strike: Callable[[Scene, Server], Awaitable[None]]
    recover: Callable[[Scene, Server], Awaitable[None]]


# -- moments


@asynccontextmanager
async def anywhere(scene: Scene, _server: Server) -> AsyncIterator[None]:
    """Under load that is mostly in the middle of a write to the journal, of a request or of a COPY."""
    await trio.sleep(scene.rng.uniform(0.0, AT_ONCE_S))
    yield


@asynccontextmanager
async def at_rotation(_scene: Scene, server: Server) -> AsyncIterator[None]:
    """A segment was just begun, or is being made."""
    await trio.to_thread.run_sync(_wait_for_rotation, server.data_dir / "journal")
    yield


def _wait_for_rotation(journal: Path) -> None:
    before, deadline_s = {path.name for path in journal.iterdir()}, time.monotonic() + PATIENCE_S
    while {path.name for path in journal.iterdir()} <= before:  # without a pause: it is over within a millisecond
        assert time.monotonic() < deadline_s


@asynccontextmanager
async def before_commit(scene: Scene, server: Server) -> AsyncIterator[None]:
    """The events of a transaction were copied, and it waits for another table; meanwhile more are accepted."""
    with _locked(scene.url, "run_touches"):
        await _come_to(scene, "Lock relation")
        if scene.journals:
            await until(lambda: server.health("ingest")["journal"]["backlog_bytes"] > WAITING_BYTES)
        yield


@asynccontextmanager
async def after_commit(scene: Scene, _server: Server) -> AsyncIterator[None]:
    """A transaction is committed and its client hasn't heard: Postgres waits for a replica that isn't there."""
    scene.cluster.admin("ALTER SYSTEM SET synchronous_standby_names = 'nobody'", "SELECT pg_reload_conf()")
    try:
        await _come_to(scene, "IPC SyncRep")
        yield
    finally:
        with trio.CancelScope(shield=True):
            await until(partial(_told, scene.cluster, "ALTER SYSTEM RESET synchronous_standby_names"))
            await until(partial(_told, scene.cluster, "SELECT pg_reload_conf()"))


async def _come_to(scene: Scene, wait_event: str) -> None:
    await until(partial(_found, scene.url, _WRITING, wait_event))


def _told(cluster: Cluster, statement: str) -> bool:
    try:
        cluster.admin(statement)
    except _AWAY:
        return False
    return True


def _found(url: str, sql: str, *args: object) -> list[Any]:
    try:
        return rows(url, sql, *args)
    except _AWAY:
        return []


@contextmanager
def _locked(url: str, table: str) -> Iterator[None]:
    """For the length of the block nobody else gets at `table`."""
    held, let_go = threading.Event(), threading.Event()

    async def hold() -> None:
        conn = await asyncpg.connect(url)
        with suppress(*_AWAY):  # struck itself
            await conn.execute(f"BEGIN; LOCK TABLE {table}")
            held.set()
            await asyncio.to_thread(let_go.wait)
            await conn.close(timeout=1)

    with ThreadPoolExecutor(1) as pool:
        holding = pool.submit(lambda: asyncio.run(hold()))
        assert held.wait(PATIENCE_S)
        try:
            yield
        finally:
            let_go.set()
            holding.result()


# -- blows


async def _kill(_scene: Scene, server: Server) -> None:
    await trio.to_thread.run_sync(server.kill)


async def _start(_scene: Scene, server: Server) -> None:
    await trio.to_thread.run_sync(server.start)


async def _start_twice(scene: Scene, server: Server) -> None:
    """While it starts and stores what the earlier one left, it is killed again, one time before it is ready."""
    process = await trio.to_thread.run_sync(server.launch)
    with trio.move_on_after(scene.rng.uniform(0.0, 3.0)):
        await trio.to_thread.run_sync(process.wait, abandon_on_cancel=True)
    await _kill(scene, server)
    await _start(scene, server)
    await trio.sleep(scene.rng.uniform(0.0, AT_ONCE_S))
    await _kill(scene, server)
    await _start(scene, server)


async def _shoot(scene: Scene, _server: Server) -> None:
    await trio.to_thread.run_sync(scene.cluster.shoot)
    await trio.to_thread.run_sync(scene.cluster.start_after_shot)


async def _shoot_a_session(scene: Scene, _server: Server) -> None:
    """SIGKILL to one of its processes: Postgres ends all the others then, and starts itself again."""
    before = await trio.to_thread.run_sync(rows, scene.url, _CHECKPOINTER)
    await until(partial(_found, scene.url, _SESSIONS))
    for row in await trio.to_thread.run_sync(_found, scene.url, _SESSIONS):
        with suppress(ProcessLookupError):
            os.kill(row["pid"], signal.SIGKILL)
    await until(lambda: _found(scene.url, _CHECKPOINTER) not in ([], before))


async def _nothing(_scene: Scene, _server: Server) -> None:
    await trio.lowlevel.checkpoint()


KILLED = Blow("server", _kill, _start)
KILLED_AGAIN = Blow("server again", _kill, _start_twice)
SHOT = Blow("postgres", _shoot, _nothing)
SESSION_SHOT = Blow("session", _shoot_a_session, _nothing)


# -- the proof


async def strike(scene: Scene, blows: Sequence[Blow], times: int, **how: Any) -> None:
    """Each of `blows` at each moment in turn, `times` in all, under load; then the invariants. `how` is for `load`."""
    moments = [anywhere, before_commit, after_commit, *([at_rotation] if scene.journals else [])]
    turns = list(product(blows, moments))
    scene.rng.shuffle(turns)
    first, *others = (server.ingest_url for server in scene.servers)
    started = trio.current_time()
    async with load(first, scene.ledger, seed=scene.rng.randrange(1 << 30), others=others, **how):
        for turn in range(times):
            blow, moment = turns[turn % len(turns)]
            server = scene.servers[turn % len(scene.servers)]
            await accepted(scene.ledger, scene.rng.randint(1, 100))
            async with moment(scene, server):
                await blow.strike(scene, server)
            await blow.recover(scene, server)
            scene.struck[f"{blow.name} {moment.__name__}"] += 1
            await accepted(scene.ledger, 1)
        await accepted(scene.ledger, 100)
    await assert_invariants(scene.url, scene.ledger, timeout_s=120)
    print(
        f"{dict(scene.struck)}: {len(scene.ledger.accepted)} events, {dict(scene.ledger.answers)}, "
        f"{trio.current_time() - started:.0f} s"
    )
    assert scene.ledger.unsettled == set()
    assert scene.ledger.retry_after_missing == 0
    for server in scene.servers:
        await until(partial(_is_well, server))


def _is_well(server: Server) -> bool:
    said = server.health("ingest")
    assert {name: actor for name, actor in said["actors"].items() if actor["restarts"]} == {}
    assert said.get("journal", {"state": "ok"})["state"] == "ok"
    return bool(said["status"] == "ok" and said.get("journal", {"backlog_bytes": 0})["backlog_bytes"] == 0)
