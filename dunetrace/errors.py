"""Every error Dunetrace raises on purpose, one root.

A `SettingError` or `StartError` ends a start; the command line prints its message as the one line a person reads.
The SDK never raises any of these into an agent, except `DunetraceSignal` when its guard was asked to.
"""

from __future__ import annotations


class DunetraceError(Exception):
    """Root of every error of this project."""


class SettingError(DunetraceError):
    """A setting or a configuration file is wrong. The message names it, its fault and what is allowed."""


class StartError(DunetraceError):
    """The process cannot start: a taken port, a data directory that cannot be written, a second process on it."""


class StoreUnavailableError(DunetraceError):
    """Postgres cannot be reached right now. A state, not a crash: work waits and is tried again."""

    def __init__(self, state: str = "unreachable") -> None:
        super().__init__(f"the database is {state}")
        self.state = state  # "unreachable" | "timeout" | "schema", as /health shows it


class RowRefusedError(DunetraceError):
    """Postgres refuses what a unit would store. Carries the error's class, never its message, which quotes values."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"the database refused a row ({reason})")
        self.reason = reason


class LeaseLostError(DunetraceError):
    """Another poller took over a bucket since this batch was read; what was judged is thrown away and read anew."""


class QueueFullError(DunetraceError):
    """What was sent cannot be kept right now: a bound of the queue, or a full disk. The client is told to come back."""

    def __init__(self, why: str = "The queue is full; try again") -> None:
        super().__init__(why)


class DetectorError(DunetraceError):
    """A detector raised on a run. Carries where, never the message, which may quote content."""

    def __init__(self, detector: str, exception_type: str, code_line: str) -> None:
        super().__init__(f"{detector}: {exception_type} at {code_line}")
        self.detector, self.exception_type, self.code_line = detector, exception_type, code_line
