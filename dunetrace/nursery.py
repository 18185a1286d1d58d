"""The supervisor: boot order, restart policy, shutdown order. What the actors do is theirs.

It owns the listening sockets, the hint channels and the promise's queue and lends them to each attempt of an actor,
so a crash breaks nobody else: connections queue in the kernel meanwhile, queued batches stay. A failure before an
actor's very first start ends the process with one clear line; a later crash is contained for ever. Postgres being
away is not a crash.
"""

from __future__ import annotations

import os
import random
import signal
import socket
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field, replace
from typing import Final

import trio

from dunetrace.actors.api import ApiActor
from dunetrace.actors.base import Actor
from dunetrace.actors.database import Database
from dunetrace.actors.demo import Demo
from dunetrace.actors.destination import DestinationActor
from dunetrace.actors.dispatcher import Dispatcher
from dunetrace.actors.ingest import IngestActor
from dunetrace.actors.poller import Poller
from dunetrace.actors.wakeups import Wakeups
from dunetrace.actors.writer import CommitPromise, Writer
from dunetrace.alerts.destinations import Destination, destinations_from
from dunetrace.backoff import delay_s
from dunetrace.bell import Bell
from dunetrace.config import Bind, Settings
from dunetrace.errors import DunetraceError, StoreUnavailableError
from dunetrace.hashing import Hasher
from dunetrace.health import Health
from dunetrace.serving import sockets
from dunetrace.store.embedded import DataDirectory, EmbeddedPostgres
from dunetrace.store.gateway import Gateway, open_gateway
from dunetrace.telemetry import kind, log, where

ROLES: Final = ("ingest", "writer", "poller", "dispatcher", "api")
PORTS: Final = {
    "ingest": ("DUNETRACE_INGEST_BIND", "ingest"),
    "api": ("DUNETRACE_API_BIND", "api"),
    "dashboard": ("DUNETRACE_DASHBOARD_BIND", "api"),
}  # port → its setting, and the role that serves it

RESTART_BASE_S, RESTART_CAP_S = 0.5, 30.0
HEALTHY_AFTER_S: Final = 60.0  # then the next crash counts as the first again
SHUTDOWN_LIMIT_S: Final = 10.0
STAGE_LIMIT_S: Final = 3.0  # for one stage of the shutdown, before it is cancelled
EXIT_FORCED: Final = 70


class HashKey:
    """The key the door hashes with: the setting's, or this installation's once Postgres told it."""

    def __init__(self, configured: bytes | None) -> None:
        self._hasher = None if configured is None else Hasher(configured)
        self._configured = configured is not None

    def learn(self, key: bytes) -> None:
        if not self._configured:
            self._hasher = Hasher(key)

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
    promise: CommitPromise
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


def plan(roles: Sequence[str], destinations: Sequence[Destination], bell: Bell) -> list[Stage]:
    """The stages of a process with these roles, in boot order: the database first, the door last.

    They stop: the door, then the writer, then what works on rows, then the API, then the database.
    """

    def only(role: str, *actors: Actor) -> list[Actor]:
        return list(actors) if role in roles else []

    hints = {destination.name: bell.sender(f"destination:{destination.name}") for destination in destinations}
    working: list[Actor] = [
        *only("poller", Poller(bell.listen("poller"))),
        *only(
            "dispatcher",
            Dispatcher(destinations, bell.listen("dispatcher"), hints),
            *(DestinationActor(d, bell.listen(f"destination:{d.name}")) for d in destinations),
        ),
        Wakeups(),
    ]
    return [
        Stage([Database()], stops=4),
        Stage(only("writer", Writer()), stops=1),
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


@dataclass(frozen=True)
class Parts:
    """What a process is made of before its actors run: all a `Supervisor` needs, and where it will be found."""

    stages: Sequence[Stage]
    lend: Callable[[Stage], Context]
    health: Health
    addresses: Addresses


async def serve(settings: Settings, roles: Sequence[str], version: str, ready: Callable[[Addresses], None]) -> None:
    """Run a whole process with `roles` until a signal asks it to stop. Raises DunetraceError when it cannot start."""
    stop = trio.Event()
    try:
        async with trio.open_nursery() as nursery:
            # Before anything is opened: a signal while the embedded Postgres is only starting ends things in order too.
            with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
                nursery.start_soon(_obey, signals, stop)
                async with assemble(settings, roles, version) as parts:
                    await _run(parts, stop, ready)
                nursery.cancel_scope.cancel()
    except* DunetraceError as group:
        # A first start failed: the command line prints this one error's line.
        error: BaseException = group
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        raise error from None
    log.info("process.stopped")


async def _run(parts: Parts, stop: trio.Event, ready: Callable[[Addresses], None]) -> None:
    if stop.is_set():
        return
    supervisor = Supervisor(parts.stages, parts.lend, parts.health, stop)
    async with trio.open_nursery() as running:
        await running.start(supervisor.run)
        log.info("process.started")
        ready(parts.addresses)


@asynccontextmanager
async def assemble(settings: Settings, roles: Sequence[str], version: str) -> AsyncIterator[Parts]:
    """Open what the actors share (sockets, the embedded Postgres, the gateway) for the length of the block."""
    destinations = destinations_from(settings) if "dispatcher" in roles else ()
    with _listening(settings, roles) as listening, _embedded(settings) as embedded:
        url = settings.database_url or (embedded.url if embedded else "")
        if embedded is not None:
            await trio.to_thread.run_sync(embedded.start)
        try:
            async with open_gateway(url) as gateway:
                bell = bell_for(destinations)
                health = Health(version, lambda: gateway.state)
                promise, hash_key = CommitPromise(), HashKey(settings.hash_key)
                named = _with_dashboard(settings, listening)

                def lend(stage: Stage) -> Context:
                    return Context(
                        named, url, gateway, embedded, stage.stopping, promise, bell, hash_key, listening, health.report
                    )

                yield Parts(plan(roles, destinations, bell), lend, health, Addresses.of(listening))
        finally:
            if embedded is not None:
                with trio.CancelScope(shield=True):
                    await trio.to_thread.run_sync(embedded.stop)


@dataclass(frozen=True)
class Addresses:
    """Base URLs of what this process serves; None for a port whose role runs elsewhere."""

    ingest: str | None
    api: str | None
    dashboard: str | None

    @classmethod
    def of(cls, listening: dict[str, socket.socket]) -> Addresses:
        urls = {port: f"http://{sockets.address_of(sock)}" for port, sock in listening.items()}
        return cls(urls.get("ingest"), urls.get("api"), urls.get("dashboard"))


async def _obey(signals: object, stop: trio.Event) -> None:
    """The first signal starts the ordered shutdown, against a deadline that holds whatever hangs; a second ends it."""
    stops = 0
    async for _ in signals:  # type: ignore[attr-defined]
        stops += 1
        if stops > 1:
            _end_now()
        threading.Thread(target=_deadline, daemon=True, name="shutdown-deadline").start()
        stop.set()


def _deadline() -> None:
    threading.Event().wait(SHUTDOWN_LIMIT_S)
    _end_now()


def _end_now() -> None:
    log.error("process.stop_forced")
    sys.stderr.flush()
    os._exit(EXIT_FORCED)


@contextmanager
def _listening(settings: Settings, roles: Sequence[str]) -> Iterator[dict[str, socket.socket]]:
    binds: dict[str, Bind] = {
        "ingest": settings.ingest_bind, "api": settings.api_bind, "dashboard": settings.dashboard_bind
    }  # fmt: skip
    listening: dict[str, socket.socket] = {}
    try:
        for port, (setting, role) in PORTS.items():
            if role in roles:
                listening[port] = sockets.listen(str(binds[port]), setting)
        yield listening
    finally:
        for sock in listening.values():
            sock.close()


@contextmanager
def _embedded(settings: Settings) -> Iterator[EmbeddedPostgres | None]:
    """The embedded Postgres, with its data directory locked, when no DATABASE_URL is set."""
    if settings.database_url is not None:
        yield None
        return
    directory = DataDirectory(settings.data_dir)
    directory.lock()
    try:
        yield EmbeddedPostgres(settings.data_dir)
    finally:
        directory.unlock()


def _with_dashboard(settings: Settings, listening: dict[str, socket.socket]) -> Settings:
    """Settings whose `dashboard_url` is the page's real address where none was given."""
    if settings.dashboard_url or "dashboard" not in listening:
        return settings
    return replace(settings, dashboard_url=f"http://{sockets.address_of(listening['dashboard'])}")
