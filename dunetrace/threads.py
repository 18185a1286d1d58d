"""What one destination is told of one failure of one agent: at once, later together with others, or not at all.

A thread is what the destination was told so far. A destination that gathers (for people) is told of the first signal at
once; what follows is gathered and told in updates, at growing distances. After a whole window in which nothing came,
the next signal is a first again. One that gathers nothing (for machines) is told of each signal. What is worse than
what was told is told at once, to both. The store applies this to locked rows. Pure: times are Unix seconds.
"""

from __future__ import annotations

from enum import Enum, auto
from typing import TYPE_CHECKING, NamedTuple

from dunetrace.deliveries import Kind

if TYPE_CHECKING:
    from dunetrace.signals import Severity

# Shares of the window between one message and the next update: a minute, 5, 15 and then each whole hour of an hour.
SPACING = (1 / 60, 1 / 12, 1 / 4, 1.0)


class Hush(Enum):
    """What a person asked for an issue: gather, and do not tell."""

    ACKNOWLEDGED = auto()  # until it is resolved, or something is worse
    SNOOZED = auto()  # whatever comes


class Thread(NamedTuple):
    """What a destination was told. `severity` is the highest it was told of in this `life` of the issue, None while it
    was told of nothing that still goes on; `run_id` is what it was told of last. `due_at` None: nothing is gathered.
    """

    run_id: str = ""
    severity: Severity | None = None
    life: int = 0  # how often the issue had been reopened
    told_at: float = 0.0
    updates: int = 0  # since the first
    due_at: float | None = None


class Sight(NamedTuple):
    """A signal, as it comes to a thread."""

    run_id: str
    severity: Severity
    life: int = 0
    told: Severity | None = None  # what the destination was told of this very signal
    gathered: bool = False  # whether this very signal was gathered before
    hush: Hush | None = None


class Telling(NamedTuple):
    """A delivery to be made now. `reopened`: the first of an issue that had been resolved."""

    kind: Kind
    seq: int = 0
    reopened: bool = False


class Step(NamedTuple):
    """What a signal leads to: it is told, or gathered, or, known already, neither."""

    thread: Thread
    telling: Telling | None = None
    gathers: bool = False


def meet(thread: Thread, sight: Sight, gather_s: float, now: float) -> Step:
    """What comes of `sight`; `gather_s` is the destination's window, 0 = it is told of each signal."""
    if gather_s <= 0:
        return _each(thread, sight, now)
    new = sight.told is None and not sight.gathered
    if new and sight.hush is None and not _goes_on(thread, sight.life, gather_s, now):
        return _first(thread, sight, gather_s, now)
    heard = [severity.rank for severity in (_told_in(thread, sight.life), sight.told) if severity is not None]
    worse = bool(heard) and sight.severity.rank > max(heard)
    if worse and sight.hush is not Hush.SNOOZED:
        return _escalated(thread, sight, now)
    return _gathered(thread, sight, gather_s, now) if new or worse else Step(thread)


def updated(thread: Thread, run_id: str, severity: Severity, life: int, now: float) -> Thread:
    """After an update that tells all that was gathered: at most of `severity`, the newest being `run_id`."""
    highest = _higher(_told_in(thread, life), severity)
    return Thread(run_id, highest, life, now, thread.updates + 1)


def is_owed_note(thread: Thread, life: int) -> bool:
    """Whether the destination knows, or was about to be told, of this life of the issue, and so hears of its end."""
    return thread.life == life and (thread.severity is not None or thread.due_at is not None)


def ended(thread: Thread) -> Thread:
    """After the issue was resolved and all that was gathered was counted."""
    return thread._replace(severity=None, due_at=None)


def _each(thread: Thread, sight: Sight, now: float) -> Step:
    if sight.told is None:
        return _first(thread, sight, 0.0, now)
    return _escalated(thread, sight, now) if sight.severity.rank > sight.told.rank else Step(thread)


def _first(thread: Thread, sight: Sight, gather_s: float, now: float) -> Step:
    # What was gathered before and never told is still owed: it comes with the first update.
    due_at = None if thread.due_at is None else now + SPACING[0] * gather_s
    telling = Telling(Kind.FIRST, reopened=thread.life < sight.life)
    return Step(Thread(sight.run_id, sight.severity, sight.life, now, due_at=due_at), telling)


def _escalated(thread: Thread, sight: Sight, now: float) -> Step:
    severity = _higher(_told_in(thread, sight.life), sight.severity)
    worse = thread._replace(run_id=sight.run_id, severity=severity, life=sight.life, told_at=now)
    return Step(worse, Telling(Kind.ESCALATED, seq=sight.severity.rank))


def _gathered(thread: Thread, sight: Sight, gather_s: float, now: float) -> Step:
    if _told_in(thread, sight.life) is None:  # hushed before it could be told of
        thread = Thread(sight.run_id, None, sight.life, now, due_at=now if thread.due_at is None else thread.due_at)
    elif thread.due_at is None:
        wait_s = SPACING[min(thread.updates, len(SPACING) - 1)] * gather_s
        thread = thread._replace(due_at=max(now, thread.told_at + wait_s))
    return Step(thread, gathers=True)


def _goes_on(thread: Thread, life: int, gather_s: float, now: float) -> bool:
    told = _told_in(thread, life) is not None
    return told and (thread.due_at is not None or now < thread.told_at + gather_s)


def _told_in(thread: Thread, life: int) -> Severity | None:
    return thread.severity if thread.life == life else None


def _higher(one: Severity | None, other: Severity) -> Severity:
    return other if one is None or other.rank > one.rank else one
