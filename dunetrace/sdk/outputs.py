"""Where events may go, as one seam: an output packs what was taken from the ring and attempts to deliver it.

Called by a `Shipper`'s drain thread, one thread for each output, so that no output waits for another. HTTP is in
`posting`, NDJSON on stdout in `ndjson`. An OpenTelemetry exporter is one more `Output`, given to the client as
`otel_exporter`.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from enum import Enum
from typing import Any, NamedTuple, Protocol, TypeGuard, runtime_checkable

from dunetrace.sdk.ring import Taken


class Verdict(Enum):
    """What came of an attempt."""

    DONE = "done"
    AGAIN = "again"  # a passing trouble: the same parcel is attempted again
    REFUSED = "refused"  # final: the parcel is lost
    TOO_LARGE = "too large"  # to be halved; a single event is refused


class Outcome(NamedTuple):
    """`rejected` of the parcel's events were turned down; `retry_after_s` is the wait that was asked for.

    `answered` is False where nobody was there at all.
    """

    verdict: Verdict
    rejected: int = 0
    retry_after_s: float | None = None
    answered: bool = True


class Parcel(NamedTuple):
    """One delivery, made once and sent unchanged at every attempt. `lost` is the losses it reports."""

    body: bytes
    taken: list[Taken]
    agent_id: str = ""
    key: str = ""
    path: str = ""
    lost: int = 0


@runtime_checkable
class Output(Protocol):
    """What a shipper needs of a destination. Called from its drain thread only; neither method may raise."""

    name: str
    batch_size: int  # events in a parcel while few wait
    largest_batch: int  # and when more wait
    slow_modules: tuple[str, ...]  # what it imports on its drain thread

    def pack(self, taken: list[Taken], lost: int) -> tuple[Parcel, list[Taken]]:
        """The parcel, and those events that cannot be written at all."""

    def attempt(self, parcel: Parcel, timeout_s: float) -> Outcome:
        """Try once, for at most `timeout_s`."""

    def reset(self) -> None:
        """Let go of every connection: this is the end, or a forked child and they are the parent's."""


@runtime_checkable
class Flushing(Protocol):
    """An output that hands on what it was given later, if it is not asked to do so now."""

    def flush(self, timeout_s: float, *, final: bool) -> bool:
        """Hand on what is held, for at most `timeout_s`; `final`: nothing more will come. Whether all of it arrived."""


def is_output(value: object) -> TypeGuard[Output]:
    """Whether a shipper can work with `value`, whatever it is."""
    try:
        return isinstance(value, Output) and min(int(value.batch_size), int(value.largest_batch)) > 0
    except Exception:
        return False


def written(taken: list[Taken], line: Callable[[Taken], dict[str, Any]]) -> tuple[list[str], list[Taken], list[Taken]]:
    """Each event as a line of JSON: the lines, the events in them, and the events that have no JSON."""
    lines: list[str] = []
    good: list[Taken] = []
    bad: list[Taken] = []
    for one in taken:
        try:
            lines.append(json.dumps(line(one), separators=(",", ":"), allow_nan=False))
        except (ValueError, TypeError, RecursionError):
            bad.append(one)
        else:
            good.append(one)
    return lines, good, bad


def payload(one: Taken) -> dict[str, Any]:
    """An event's payload as it leaves: hashed, and on the run's last event with what the run has lost."""
    content = one.record.content()
    if one.segment.lost and one.record.edge == "end":
        content = content | {"dropped_events": one.segment.lost}
    return content
