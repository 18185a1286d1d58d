"""Works, and ends in one of the ways a process ends, never with `shutdown()`. Arguments: endpoint, runs, way."""

from __future__ import annotations

import atexit
import os
import signal
import sys
import threading
import time

from dunetrace import Dunetrace
from tests.sdk.programs.work import some_runs

endpoint, count, way = sys.argv[1], int(sys.argv[2]), sys.argv[3]
dt = Dunetrace(endpoint, flush_interval_ms=60_000)


def work(agent: str = "agent") -> None:
    some_runs(dt, count, agent)


def fork() -> None:
    some_runs(dt, count // 2)
    pid = os.fork()
    some_runs(dt, count - count // 2 if pid == 0 else 0)
    if pid:
        assert os.waitpid(pid, 0)[1] == 0


def fork_again() -> None:
    """A daemon's double fork: the grandchild works, its parents are gone."""
    if os.fork() == 0 and os.fork() == 0:
        work()


def on_sigterm() -> None:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    work()
    os.kill(os.getpid(), signal.SIGTERM)
    threading.Event().wait()


def on_sigint() -> None:
    work()
    signal.raise_signal(signal.SIGINT)


def raising() -> None:
    work()
    raise ValueError("an agent's own")


def in_a_thread() -> None:
    """The main thread ends first; the interpreter waits for this one."""
    threading.Thread(target=lambda: (threading.main_thread().join(), work())).start()


def beside_a_daemon() -> None:
    """A daemon thread goes on emitting while the interpreter goes away."""
    begun = threading.Event()

    def chatter() -> None:
        while True:
            some_runs(dt, 1, "daemon")
            begun.set()
            time.sleep(0.001)

    threading.Thread(target=chatter, daemon=True).start()
    work()
    begun.wait()


WAYS = {
    "return": work,
    "sys.exit": lambda: (work(), sys.exit(3)),
    "raise": raising,
    "sigterm": on_sigterm,
    "sigint": on_sigint,
    "thread": in_a_thread,
    "daemon": beside_a_daemon,
    "atexit": lambda: atexit.register(work),
    "fork": fork,
    "double fork": fork_again,
}
WAYS[way]()
