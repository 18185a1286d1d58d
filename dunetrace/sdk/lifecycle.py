"""The process around the SDK: its identity, its end, its forks, and the few words it says aloud.

Every `Shipper` is known here from its making. At exit what waits is shipped; in a forked child every shipper starts
afresh, so that the parent's events are not sent twice. Warnings go to stderr once for each cause; debug lines to the
logger `dunetrace`.
"""

from __future__ import annotations

import atexit
import os
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Protocol
from weakref import WeakSet, ref

EXIT_TIMEOUT_S = 5.0


class Shipping(Protocol):
    """What this module does with a shipper."""

    @property
    def output(self) -> object:
        """Where it ships to."""

    def begin_stop(self, deadline: float, *, patient: bool) -> None:
        """Ship what waits and end, at `deadline` (monotonic seconds) at the latest."""

    def finish_stop(self, deadline: float) -> bool:
        """Wait until it has ended; whether everything was acknowledged."""

    def start_afresh(self) -> None:
        """Be empty, without a thread: this is a forked child."""


_shippers: WeakSet[Shipping] = WeakSet()  # one with events waiting is held by its thread
_warned: set[str] = set()
_mentioned: set[str] = set()


class _Process:
    """This process: `token` tells its events and runs from those of its parent and its children."""

    def __init__(self) -> None:
        self.token = os.urandom(6).hex()


process = _Process()

# Held across a fork. What a drain thread does under it is never cut in two by one: a child forked in the middle of an
# import waits for ever on that module's lock, in the middle of a write it writes the rest again.
_forking = threading.Lock()
_forkers: set[int] = set()  # the threads that hold it for their fork
_LONGEST_WAIT_S = 2.0


@contextmanager
def unforked() -> Iterator[None]:
    """No fork in here; for as long as a fork can be made to wait, which is two seconds."""
    forking = _forking
    held = forking.acquire(timeout=_LONGEST_WAIT_S)
    try:
        yield
    finally:
        if held:
            forking.release()


def load(modules: Iterable[str]) -> None:
    """Import what is too slow for the agent's own import, before it is needed."""
    with unforked():
        for module in modules:
            import_module(module)


def know(shipper: Shipping) -> None:
    """Stop `shipper` at exit and empty it in forked children."""
    _shippers.add(shipper)


def note_start() -> None:
    """A drain thread starts: where atexit is skipped, in children of `multiprocessing` and in Celery's, see to it that
    the exit waits too."""
    celery = sys.modules.get("celery.signals")
    if celery is not None:
        celery.worker_process_shutdown.connect(_stop_in_celery, weak=False, dispatch_uid="dunetrace")
    processes = sys.modules.get("multiprocessing.process")
    ends = sys.modules.get("multiprocessing.util")
    if processes is not None and ends is not None and processes.parent_process() is not None:
        ends.Finalize(None, stop_all, exitpriority=0)


def stop_all(timeout_s: float = EXIT_TIMEOUT_S, *, patient: bool = False, of: object = None) -> None:
    """Stop every shipper, or that `of` one output, all within `timeout_s`. Without patience, a server that never
    answered is not waited for."""
    deadline = time.monotonic() + timeout_s
    known = [shipper for shipper in _shippers if of is None or shipper.output is of]
    for shipper in known:
        shipper.begin_stop(deadline, patient=patient)
    for shipper in known:
        shipper.finish_stop(deadline)


def stop_before_others(output: object) -> None:
    """At exit, stop the shipper of `output` before what is registered with `atexit` already, such as the shutdown of
    what it hands its events to."""
    atexit.register(_stop_if_there, ref(output))


def _stop_if_there(output: ref[object]) -> None:
    there = output()
    if there is not None:
        stop_all(of=there)


def _stop_in_celery(**_: object) -> None:
    stop_all()


def warn_once(cause: str, message: str) -> None:
    """Say on stderr, once for each cause, what is wrong and what to do."""
    if cause in _warned:
        return
    _warned.add(cause)
    try:
        sys.stderr.write(f"dunetrace: {message}\n")
        sys.stderr.flush()
    except (OSError, ValueError, AttributeError):
        debug("stderr is closed")


def debug(message: str, *, once: str = "") -> None:
    """A line for whoever looks for it. Never holds content: names, types and counts only."""
    if once:
        if once in _mentioned or len(_mentioned) > 1000:
            return
        _mentioned.add(once)
    if "logging" not in sys.modules:
        load(("logging",))
    import logging  # noqa: PLC0415 - most processes never need it, and it is a fifth of the import time

    logging.getLogger("dunetrace").debug(message)


def speak_up() -> None:
    """Show debug lines on stderr, for `debug=True`."""
    import logging  # noqa: PLC0415 - as above

    logger = logging.getLogger("dunetrace")
    if not logger.handlers:
        logger.addHandler(logging.StreamHandler())
    logger.setLevel(logging.DEBUG)


def _before_fork() -> None:
    if _forking.acquire(timeout=_LONGEST_WAIT_S):
        _forkers.add(threading.get_ident())


def _in_parent() -> None:
    if threading.get_ident() in _forkers:
        _forkers.discard(threading.get_ident())
        _forking.release()


def _in_child() -> None:
    global _forking  # noqa: PLW0603 - the old one is the parent's
    _forking = threading.Lock()
    _forkers.clear()
    process.token = os.urandom(6).hex()
    for shipper in list(_shippers):
        shipper.start_afresh()


atexit.register(stop_all)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_in_parent, after_in_child=_in_child)
