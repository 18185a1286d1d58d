"""One process: opens what its actors share, runs them until a signal asks it to stop, and closes it all again.

The command line calls `serve`. The parts are put together in `assemble`, so that they can also be run without signals.
"""

from __future__ import annotations

import gc
import os
import signal
import socket
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from typing import Final

import trio

from dunetrace.alerts.destinations import destinations_from
from dunetrace.batches import Queue
from dunetrace.committing import CommitPromise
from dunetrace.config import Bind, Settings
from dunetrace.errors import StartError
from dunetrace.health import Health
from dunetrace.journal.backlog import SUFFIX
from dunetrace.journal.journal import Journal
from dunetrace.nursery import Context, HashKey, Stage, Supervisor, bell_for, plan
from dunetrace.serving import sockets
from dunetrace.store.embedded import DataDirectory, EmbeddedPostgres
from dunetrace.store.gateway import Gateway, open_gateway
from dunetrace.telemetry import log

PORTS: Final = {
    "ingest": ("DUNETRACE_INGEST_BIND", "ingest"),
    "api": ("DUNETRACE_API_BIND", "api"),
    "dashboard": ("DUNETRACE_DASHBOARD_BIND", "api"),
}  # port → its setting, and the role that serves it

JOURNAL: Final = "journal"  # its directory, under the data directory
SHUTDOWN_LIMIT_S: Final = 10.0
# Objects made and not yet freed before cycles are looked for. The rows and runs in hand are tens of thousands of
# objects and no cycles: walking them as often as Python does by default took a quarter of the time of judging.
GC_AFTER_OBJECTS: Final = 50_000
THREADS_SWITCH_S: Final = 0.0005  # the loop waits for the thread that judges no longer than this at a time
EXIT_FORCED: Final = 70


@dataclass(frozen=True)
class Parts:
    """What a process is made of before its actors run: all a `Supervisor` needs, and where it will be found."""

    stages: Sequence[Stage]
    lend: Callable[[Stage], Context]
    health: Health
    addresses: Addresses


async def serve(settings: Settings, roles: Sequence[str], version: str, ready: Callable[[Addresses], None]) -> None:
    """Run a whole process with `roles` until a signal asks it to stop.

    Raises DunetraceError, alone or in trio's groups, when it cannot start.
    """
    gc.freeze()  # what is loaded by now stays
    gc.set_threshold(GC_AFTER_OBJECTS, 20, 20)
    sys.setswitchinterval(THREADS_SWITCH_S)
    stop = trio.Event()
    # Before anything is opened: a signal while the embedded Postgres is only starting ends things in order too.
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_obey, signals, stop)
            async with assemble(settings, roles, version) as parts:
                await _run(parts, stop, ready)
            nursery.cancel_scope.cancel()
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
    destinations = destinations_from(settings) if {"dispatcher", "digest"} & set(roles) else ()
    with _listening(settings, roles) as listening, _data_directory(settings, roles):
        embedded = EmbeddedPostgres(settings.data_dir) if settings.database_url is None else None
        url = settings.database_url or (embedded.url if embedded else "")
        if embedded is not None:
            await trio.to_thread.run_sync(embedded.start)
        try:
            async with open_gateway(url) as gateway, _promise(settings, roles, gateway) as promise:
                bell = bell_for(destinations)
                hash_key = HashKey(settings.hash_key)
                spools = settings.during_outage == "spool"
                health = Health(
                    version, lambda: gateway.state, promise.health, spools=lambda: spools and hash_key.is_known
                )
                named = _with_dashboard(settings, listening)

                def lend(stage: Stage) -> Context:
                    return Context(
                        named, url, gateway, embedded, stage.stopping, promise, bell, hash_key, listening, health.report
                    )

                yield Parts(plan(roles, destinations, bell, promise), lend, health, Addresses.of(listening))
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


async def _obey(signals: AsyncIterator[int], stop: trio.Event) -> None:
    """The first signal starts the ordered shutdown, against a deadline that holds whatever hangs; a second ends it."""
    stops = 0
    async for _ in signals:
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
def _data_directory(settings: Settings, roles: Sequence[str]) -> Iterator[None]:
    """The data directory, locked where something of this process lies in it.

    StartError when accepted events would stay behind in a journal that nobody reads any more.
    """
    directory = DataDirectory(settings.data_dir)
    journals = _journals(settings, roles)
    is_ours = settings.database_url is None or journals
    if is_ours:
        directory.lock()
    try:
        left = "ingest" in roles and not journals and any((settings.data_dir / JOURNAL).glob(f"*{SUFFIX}"))
        if left and (is_ours or directory.is_free()):
            raise StartError(
                f"DUNETRACE_PROMISE: {settings.data_dir / JOURNAL} holds accepted events that are not in Postgres yet; "
                "start once with DUNETRACE_PROMISE=journal until they are"
            )
        yield
    finally:
        directory.unlock()


def _journals(settings: Settings, roles: Sequence[str]) -> bool:
    return "ingest" in roles and settings.promise == "journal"


@asynccontextmanager
async def _promise(settings: Settings, roles: Sequence[str], gateway: Gateway) -> AsyncIterator[Queue]:
    """What keeps accepted batches in a process with these roles."""
    if not _journals(settings, roles):
        yield CommitPromise()
        return
    directory = settings.data_dir / JOURNAL
    try:
        journal = Journal(
            directory,
            max_bytes=settings.journal_max_bytes,
            sync=settings.journal_sync,
            spool=settings.during_outage == "spool",
            store_state=lambda: gateway.state,
        )
    except OSError as error:
        raise StartError(
            f"DUNETRACE_DATA_DIR: {directory} cannot be used ({error.strerror}); "
            "set it to a directory this account may write"
        ) from None
    try:
        yield journal
    finally:
        journal.close()


def _with_dashboard(settings: Settings, listening: dict[str, socket.socket]) -> Settings:
    """Settings whose `dashboard_url` is the page's real address where none was given."""
    if settings.dashboard_url or "dashboard" not in listening:
        return settings
    return replace(settings, dashboard_url=f"http://{sockets.address_of(listening['dashboard'])}")
