"""The supervisor: boot order, restart policy, shutdown order. What the actors do is theirs.

It owns the listening sockets, the hint channels and the promise's queue and lends them to each attempt of an actor,
so a crash breaks nobody else: connections queue in the kernel meanwhile, queued batches stay. A failure before an
actor's very first start ends the process with one clear line; a later crash is contained for ever. Postgres being
away is not a crash.
"""

from __future__ import annotations

import random
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

import trio

from dunetrace.actors.api import ApiActor
from dunetrace.actors.base import Actor
from dunetrace.actors.database import Database
from dunetrace.actors.demo import Demo
from dunetrace.actors.destination import DestinationActor
from dunetrace.actors.digest import Digest
from dunetrace.actors.dispatcher import Dispatcher
from dunetrace.actors.fleet import Fleet
from dunetrace.actors.ingest import IngestActor
from dunetrace.actors.journal import JournalActor
from dunetrace.actors.poller import Poller
from dunetrace.actors.wakeups import Wakeups
from dunetrace.actors.writer import Writer
from dunetrace.alerts.destinations import Destination
from dunetrace.backoff import delay_s
from dunetrace.batches import Queue
from dunetrace.bell import Bell
from dunetrace.config import Settings
from dunetrace.errors import StoreUnavailableError
from dunetrace.hashing import Hasher
from dunetrace.health import Health
from dunetrace.journal.journal import Journal
from dunetrace.store.embedded import EmbeddedPostgres
from dunetrace.store.gateway import Gateway
from dunetrace.telemetry import kind, log, where

ROLES: Final = ("ingest", "writer", "poller", "dispatcher", "digest", "api")

RESTART_BASE_S, RESTART_CAP_S = 0.5, 30.0
HEALTHY_AFTER_S: Final = 60.0  # then the next crash counts as the first again
STAGE_LIMIT_S: Final = 3.0  # for one stage of the shutdown, before the next begins
STAGES_LIMIT_S: Final = 5.0  # for all of them, before what is left is cancelled: that takes a while as well


class HashKey:
    """The key the door hashes with: the setting's, or this installation's once Postgres told it."""

    def __init__(self, configured: bytes | None) -> None:
        self._hasher = None if configured is None else Hasher(configured)
        self._configured = configured is not None

    def learn(self, key: bytes) -> None:
        if not self._configured:
            self._hasher = Hasher(key)

    @property
    def is_known(self) -> bool:
        return self._hasher is not None

    def hasher(self) -> Hasher:
        """Raises StoreUnavailableError while it isn't known: nothing may be stored under another key."""
        if self._hasher is None:
            raise StoreUnavailableError
        return self._hasher


@dataclass(frozen=True)
class Context:
    """What the supervisor lends to one attempt of an actor."""

    settings: Settings
    database_url: str = field(repr=False)
    gateway: Gateway
    embedded: EmbeddedPostgres | None
    stopping: trio.Event
    promise: Queue
    bell: Bell
    hash_key: HashKey
    sockets: dict[str, socket.socket]
    report_health: Callable[[str], tuple[int, dict[str, object]]]

    def socket(self, port: str) -> socket.socket:
        """The listening socket of "ingest", "api" or "dashboard". The actor must not close it."""
        return self.sockets[port]

    def health(self, port: str) -> tuple[int, dict[str, object]]:
        """Status and body of /health on "ingest" or "api"."""
        return self.report_health(port)


@dataclass(frozen=True)
class Stage:
    """Actors that stop together; stages start in order and stop in the order `stops`."""

    actors: Sequence[Actor]
    stops: int
    stopping: trio.Event = field(default_factory=trio.Event)
    stopped: trio.Event = field(default_factory=trio.Event)


def plan(roles: Sequence[str], destinations: Sequence[Destination], bell: Bell, promise: Queue) -> list[Stage]:
    """The stages of a process with these roles, in boot order: the database first, the door last.

    They stop: the door, then the writer, then what works on rows, then the API, then the database.
    """
    journal = [JournalActor(promise)] if isinstance(promise, Journal) else []

    def only(role: str, *actors: Actor) -> list[Actor]:
        return list(actors) if role in roles else []

    hints = {destination.name: bell.sender(f"destination:{destination.name}") for destination in destinations}
    working: list[Actor] = [
        *only("poller", Poller(bell.listen("poller"))),
        *only(
            "dispatcher",
            Dispatcher(destinations, bell.listen("dispatcher"), hints),
            Fleet(destinations, hints),
            *(DestinationActor(d, bell.listen(f"destination:{d.name}")) for d in destinations),
        ),
        *only("digest", Digest(destinations)),
        Wakeups(),
    ]
    return [
        Stage([Database()], stops=4),
        Stage(only("writer", *journal, Writer()), stops=1),
        Stage(working, stops=2),
        Stage(only("api", ApiActor()), stops=3),
        Stage([*only("ingest", IngestActor()), *only("demo", Demo())], stops=0),
    ]


def bell_for(destinations: Sequence[Destination]) -> Bell:
    """A bell with every name an actor listens to."""
    return Bell(["poller", "dispatcher", *(f"destination:{destination.name}" for destination in destinations)])


class Supervisor:
    """Runs stages of actors until `stop`. Made once a process; `run` may be called once."""

    def __init__(
        self,
        stages: Sequence[Stage],
        lend: Callable[[Stage], Context],
        health: Health,
        stop: trio.Event | None = None,
    ) -> None:
        self._stages = stages
        self._lend = lend
        self._health = health
        self._stop = trio.Event() if stop is None else stop
        self._rng = random.Random()
        for stage in stages:
            for actor in stage.actors:
                health.actor(actor.name)

    def stop(self) -> None:
        """Ask for the ordered shutdown."""
        self._stop.set()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Start every stage in order, then wait for `stop` and end them in theirs. Raises what a first start raised."""
        async with trio.open_nursery() as nursery:
            for stage in self._stages:
                await nursery.start(self._run_stage, stage)
            task_status.started()
            await self._stop.wait()
            log.info("process.stopping")
            with trio.move_on_after(STAGES_LIMIT_S):
                for stage in sorted(self._stages, key=lambda stage: stage.stops):
                    stage.stopping.set()
                    with trio.move_on_after(STAGE_LIMIT_S):
                        await stage.stopped.wait()
            nursery.cancel_scope.cancel()

    async def _run_stage(self, stage: Stage, *, task_status: trio.TaskStatus[None]) -> None:
        try:
            async with trio.open_nursery() as nursery:
                for actor in stage.actors:
                    await nursery.start(self._keep_running, actor, stage)
                task_status.started()
        finally:
            stage.stopped.set()

    async def _keep_running(self, actor: Actor, stage: Stage, *, task_status: trio.TaskStatus[None]) -> None:
        health = self._health.actor(actor.name)
        crashes = 0
        first = True
        while not stage.stopping.is_set():
            started_at = trio.current_time()
            try:
                async with trio.open_nursery() as attempt:
                    await attempt.start(actor.run, self._lend(stage))
                    health.state = "running"
                    log.info("actor.started", actor=actor.name, restarts=health.restarts)
                    if first:
                        first = False
                        task_status.started()
                if stage.stopping.is_set():
                    break
                error: BaseException | None = None  # it returned without being asked to: as good as a crash
            except Exception as caught:
                if first:
                    raise
                error = caught
            except BaseExceptionGroup as group:  # cut off at the end of a shutdown, it raised as well
                raised, cancelled = group.split(Exception)
                if raised is not None:
                    log.error("actor.crashed", actor=actor.name, error=kind(raised), at=where(raised))
                if cancelled is not None:
                    raise cancelled from None
                return
            health.state = "restarting"
            health.restarts += 1
            if trio.current_time() - started_at >= HEALTHY_AFTER_S:
                crashes = 0
            crashes += 1
            pause_s = delay_s(crashes, base_s=RESTART_BASE_S, cap_s=RESTART_CAP_S, rng=self._rng)
            log.error(
                "actor.crashed", actor=actor.name, error=kind(error) if error else "returned",
                at=where(error) if error else "", again_in_s=round(pause_s, 2),
            )  # fmt: skip
            with trio.move_on_after(pause_s):
                await stage.stopping.wait()
        health.state = "stopped"
