"""Every log event's name, and how a line is written: one line an event on stderr, JSON or plain words on a terminal.

Ids, counts, states and names may be logged; a payload value, a query string, a secret, an address with a token in it
or an exception's message never is (an exception is named by its type and the code line that raised it).
"""

from __future__ import annotations

import logging
import sys
import traceback
from contextlib import suppress
from types import TracebackType
from typing import TYPE_CHECKING, TextIO, cast

import structlog

if TYPE_CHECKING:
    from collections.abc import Mapping

# name → when it is written. A test checks that nothing else is ever logged and that docs/operations names each.
LOG_EVENTS: Mapping[str, str] = {
    "process.started": "the supervisor has brought every actor up",
    "process.stopping": "a stop was asked for; the shutdown order begins",
    "process.stopped": "everything has stopped in order",
    "process.stop_forced": "the 10 second limit of a shutdown passed, or a second signal came",
    "actor.started": "an actor can do its job",
    "actor.crashed": "an actor raised; it starts again after a backoff",
    "database.unreachable": "Postgres does not answer; tried again until it does",
    "database.reachable": "Postgres answers again",
    "database.loop_error": "the database driver reported an error outside any unit of work",
    "postgres.started": "the embedded Postgres runs",
    "postgres.adopted": "an embedded Postgres left by an earlier process was taken over",
    "postgres.stopped": "the embedded Postgres stopped",
    "postgres.restarted": "the embedded Postgres had died and was started again",
    "migration.applied": "a numbered SQL file was applied",
    "keys.none": "prod mode, and nobody has a key yet; the line says how to make one",
    "detectors.unknown_agent": "detectors.yml has a section for an agent that was never seen",
    "lease.gained": "this poller now owns these buckets",
    "lease.lost": "another poller took over; this one drops what it had judged",
    "run.retry": "a detector raised on a run; the run is judged again later",
    "run.parked": "a run failed three times and was set aside, visible",
    "poller.batch_failed": "a batch could not be committed; its runs are judged one by one",
    "journal.found": "accepted events of an earlier process wait on disk; they are stored now",
    "journal.damaged": "a part of the journal is unreadable: accepted events were lost, the readable rest is stored",
    "journal.other_version": "another version of Dunetrace wrote a segment: it waits for that version to store it",
    "journal.unfinished_write": "a write that was cut off by a crash and never promised was passed over",
    "journal.unwritable": "the disk takes no more; requests are refused until it does",
    "journal.full": "the journal is at its limit; requests are refused until Postgres takes what is in it",
    "journal.writable": "the journal takes events again",
    "events.set_aside": "Postgres refused a row; it was set aside and the rest stored",
    "delivery.done": "a destination took an alert",
    "delivery.failed": "an attempt failed; it is tried again",
    "delivery.refused": "a destination refused an alert for good",
    "delivery.expired": "a delivery was given up after 72 hours",
    "destination.circuit_opened": "a destination failed a whole round; only probes go to it",
    "destination.circuit_closed": "a probe got through; what waited is released",
    "fleet.risen": "a failure became more frequent with a version, a deploy or in an hour; it is told once",
    "digest.sent": "a destination took the weekly digest",
    "digest.failed": "the weekly digest was not taken; it is tried again",
    "digest.refused": "a destination refused the weekly digest for good; the next one is tried again",
    "destination.unsigned": "a webhook has no secret, so its requests are not signed",
    "destination.internal_address": "a destination resolves to an internal address and is refused",
    "ingest.failed": "a request raised; it was answered 500",
    "api.failed": "a request raised; it was answered 500",
    "fix.explained": "a model explained a signal; the line says what that took",
    "fix.applied": "a fix was put into a prompt",
    "fix.failed": "Langfuse or the model failed; the request was answered 502",
    "ingest.key_unchecked": "the keys could not be read from Postgres",
    "demo.failed": "the demo agents stopped with an error",
}

_LEVELS = {"DEBUG": logging.DEBUG, "INFO": logging.INFO, "WARNING": logging.WARNING, "ERROR": logging.ERROR}

log: structlog.typing.FilteringBoundLogger = structlog.get_logger()


def configure(level: str) -> None:
    """Called once by the command line. `level` is DEBUG, INFO, WARNING or ERROR."""
    renderer: structlog.typing.Processor = (
        structlog.dev.ConsoleRenderer(colors=False, exception_formatter=lambda *_: None)
        if sys.stderr.isatty()
        else structlog.processors.JSONRenderer()
    )
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(_LEVELS[level]),
        logger_factory=structlog.PrintLoggerFactory(cast("TextIO", _Unfailing(sys.stderr))),
        cache_logger_on_first_use=False,
    )
    # httpx writes whole URLs at INFO, and a webhook's URL is a secret; asyncpg writes a traceback for each attempt to
    # reach a Postgres that is away.
    for noisy in ("asyncpg", "httpx", "httpcore", "hypercorn", "quart", "asyncio"):
        logging.getLogger(noisy).setLevel(logging.CRITICAL)


class _Unfailing:
    """A log that cannot be written, because its disk is full or its reader gone, must not end what it tells of."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        with suppress(OSError):
            return self._stream.write(text)
        return 0

    def flush(self) -> None:
        with suppress(OSError):
            self._stream.flush()


def where(error: BaseException) -> str:
    """The code line an error was raised at, `file.py:12`: enough to find it, and never its message."""
    error = _leaf(error)
    frames: list[traceback.FrameSummary] = []
    tb: TracebackType | None = error.__traceback__
    if tb is not None:
        frames = traceback.extract_tb(tb)
    ours = [frame for frame in frames if "dunetrace" in frame.filename] or frames
    if not ours:
        return "unknown"
    return f"{ours[-1].filename.rsplit('/', 1)[-1]}:{ours[-1].lineno}"


def kind(error: BaseException) -> str:
    """The type's name of an error; of a group, the first of its leaves."""
    return type(_leaf(error)).__name__


def _leaf(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
