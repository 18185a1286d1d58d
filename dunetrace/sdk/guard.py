"""The guard: the detectors that may speak early, over the shared fold, inside the agent and without a server.

Loaded by `client` when `on_signal` is given; `context` shows each event to the run's `RunGuard` right after it was
recorded, on the agent's thread. What is found is told there and then, so that the agent can stop.
"""

from __future__ import annotations

import sys
import threading
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import replace
from types import CoroutineType
from typing import TYPE_CHECKING, Any

import dunetrace.injection  # noqa: F401 - so that no run waits for it
from dunetrace.detectors.declaration import Detector
from dunetrace.detectors.judging import Phase, judge
from dunetrace.detectors.registry import DETECTORS
from dunetrace.events import Event
from dunetrace.explain import explain
from dunetrace.hashing import Hasher
from dunetrace.runs import RunState
from dunetrace.sdk import lifecycle
from dunetrace.sdk.content import LARGE_CHARS, Backlog, Content, Entries, Late, text_of
from dunetrace.sdk.limits import checked
from dunetrace.sdk.signal import DunetraceSignal
from dunetrace.signals import FailureSignal, FailureType, Severity, without_digests

if TYPE_CHECKING:
    from dunetrace.sdk.ring import Record

Tell = Callable[[DunetraceSignal], object]
Watched = Mapping[str, tuple[tuple[Detector[Any], Any], ...]]
"""The detectors to run after an event, each with its thresholds, by the event's type."""

_MOST_LEFT = 100  # events after which no detector speaks, left for the next look
_MOST_WAITING = 10_000  # events of one run; more wait only where a thread was killed in the middle of a look


class Guard:
    """What a client's runs are watched for, and who is told. `on_signal` and `limits` are as `Dunetrace` takes them."""

    def __init__(self, on_signal: object, limits: object) -> None:
        self.tell = _teller(on_signal)
        self.limits = checked(limits, "the guard")
        speaking = [d for d in DETECTORS if d.monotone and self._says(d)]
        # a call's arguments are evidence of what its answer shows, so they are compared in any case
        types = dict.fromkeys(("tool.called", *(event_type for d in speaking for event_type in d.fires_on)))
        self.watched: Watched = {
            t: tuple((d, self.limits[d.name].thresholds) for d in speaking if t in d.fires_on) for t in types
        }

    def _says(self, detector: Detector[Any]) -> bool:
        section = self.limits[detector.name]
        return section.enabled and not section.shadow

    def content(self, hasher: Hasher, backlog: Backlog) -> Content:
        """The content of the client's runs."""
        return ComparableContent(hasher, backlog)

    def watch(self, run_id: str) -> RunGuard:
        """The guard of one run."""
        return RunGuard(self, run_id)


class RunGuard:
    """Folds a run's events and judges it after each. `saw` may be called from any thread, and from a signal handler.

    Whoever has the turn looks at what all threads have reported; nobody waits for it, and whoever comes meanwhile
    leaves his event and goes on. So what one thread reports may be told to another one of the same run.
    """

    __slots__ = ("_guard", "_state", "_told", "_turn", "_waiting", "_watched")

    def __init__(self, guard: Guard, run_id: str) -> None:
        self._guard = guard
        self._watched = guard.watched
        self._state = RunState(run_id)
        self._told: dict[FailureType, int] = {}  # the rank of the severity it was told with
        self._waiting: deque[Record] = deque(maxlen=_MOST_WAITING)
        self._turn = threading.Lock()

    def saw(self, record: Record) -> None:
        """Take in an event and tell what it brought to light. Raises DunetraceSignal where that was asked for."""
        self._waiting.append(record)
        if record.event_type not in self._watched and len(self._waiting) < _MOST_LEFT:
            return  # nobody would speak: the next event takes it along
        found: list[FailureSignal] = []
        while self._waiting and self._turn.acquire(False):
            try:
                while self._waiting:
                    self._look(self._waiting.popleft(), found)
            except Exception as error:
                lifecycle.debug(f"guard: {type(error).__name__}", once=f"guard {type(error).__name__}")
            finally:
                self._turn.release()
        if found:
            self._tell(found)

    def _look(self, record: Record, found: list[FailureSignal]) -> None:
        """Fold an event. Each finding is new here: another type, or more severe than it was told."""
        state = self._state
        watched = self._watched.get(record.event_type)
        state.fold(_event(record, compared=watched is not None))
        state.as_of = record.timestamp
        if watched and (fires := [d for d, limits in watched if d.detect(state, limits) is not None]):
            self._judge(tuple(fires), found)

    def _judge(self, detectors: tuple[Detector[Any], ...], found: list[FailureSignal]) -> None:
        for signal in judge(self._state, self._guard.limits, Phase.RUNNING, detectors=detectors):
            kind, rank = signal.failure_type, signal.severity.rank
            if rank > self._told.get(kind, -1):
                self._told[kind] = rank
                found.append(signal)
                self._watched = {
                    event_type: tuple(w for w in watched if w[0].failure_type is not kind or w[0].severity.rank > rank)
                    for event_type, watched in self._watched.items()
                }

    def _tell(self, found: list[FailureSignal]) -> None:
        """The worst first. Where telling it raises, the others are found again at the next event that shows them."""
        found.sort(key=lambda signal: -signal.severity.rank)
        while found:
            signal = found.pop(0)
            kept = replace(signal, evidence=without_digests(signal.evidence))
            try:
                self._guard.tell(DunetraceSignal(kept, explain(kept)))
            except BaseException:
                for untold in found:
                    self._told.pop(untold.failure_type, None)
                self._watched = self._guard.watched
                raise


def _event(record: Record, *, compared: bool) -> Event:
    payload = record.payload
    if compared:
        for late in record.late:
            made = late.comparable() if isinstance(late, ComparableLate) else late.resolve()
            payload = made | payload  # as in Record.content
    return record.event(payload)


# ---- who is told


def _teller(on_signal: object) -> Tell:
    if isinstance(on_signal, str) and on_signal in _MODES:
        return _MODES[on_signal]
    if callable(on_signal):
        return _calling(on_signal)
    lifecycle.warn_once(
        "on_signal", 'on_signal is neither "warn", "raise" nor a function: signals are written to stderr, as by "warn"'
    )
    return _warn


def _warn(signal: DunetraceSignal) -> None:
    line = f"{signal.severity} {signal.failure_type} in run {signal.run_id!r} of {signal.agent_id!r}, "
    fix = signal.suggested_fixes[0].description
    try:
        sys.stderr.write(f"dunetrace: {line}step {signal.step_index}: {signal.title}. {fix}\n")
        sys.stderr.flush()
    except (OSError, ValueError, AttributeError):
        lifecycle.debug("stderr is closed")


def _raise(signal: DunetraceSignal) -> None:
    if signal.severity.rank >= Severity.HIGH.rank:  # what is often harmless must not stop a run
        raise signal


_MODES: dict[str, Tell] = {"warn": _warn, "raise": _raise}


def _calling(callback: Tell) -> Tell:
    def tell(signal: DunetraceSignal) -> None:
        try:
            answer = callback(signal)
        except DunetraceSignal:
            raise  # the callback wants the run stopped
        except Exception as error:
            lifecycle.debug(f"on_signal: {type(error).__name__}")
            return
        if isinstance(answer, CoroutineType):
            answer.close()
            lifecycle.warn_once("async on_signal", "on_signal must be a plain function; an async one is not awaited")

    return tell


# ---- comparable at once


class ComparableContent(Content):
    """Content that can be compared on the agent's thread, while its digest is still to be made."""

    def __init__(self, hasher: Hasher, backlog: Backlog) -> None:
        super().__init__(hasher, backlog)
        self.late_type = ComparableLate


class ComparableLate(Late):
    """Arguments, errors and user input are compared by their digest, made at once and once; an output, and any large
    text, by a stand-in that costs less. It is taken here, before the drain thread can let the text go."""

    __slots__ = ("_stand_in",)

    def __init__(self, entries: Callable[[Any], Entries], raw: Any, chars: int) -> None:
        Late.__init__(self, entries, raw, chars)  # super() would double what it costs
        self._stand_in: Entries | None = None
        name = entries.__name__
        if chars >= LARGE_CHARS or name == "_output":
            try:
                self._stand_in = getattr(_STAND_INS, name)(raw)
            except Exception:  # as in `resolve`
                self._stand_in = {}

    def comparable(self) -> Entries:
        """Payload entries of which the digests tell texts apart within this process."""
        return self.resolve() if self._stand_in is None else self._stand_in


class _ProcessHasher(Hasher):
    """Python's own keyed hash of text, another in each process: good to compare by here, and never sent."""

    def text(self, s: str) -> str:
        return str(hash(s)) if s else ""

    def shape(self, s: str) -> str:
        return self.text(s)  # masking ids in a large text would take longer than a call may


class _StandIns(Content):
    """What the entries of large content would be, as far as detectors that speak early look at them."""

    def _args(self, raw: Any) -> Entries:
        return {"args_hash": self._hasher.text(text_of(raw))}

    def _retrieved(self, raw: Any) -> Entries:  # noqa: ARG002 - compared by nobody
        return {}


_STAND_INS = _StandIns(_ProcessHasher(), Backlog(0))
