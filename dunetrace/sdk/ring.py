"""The ring: a bounded number of events that wait for one output, kept run by run.

Written by the agent's threads (`Segment.push`, without a lock) and read by one drain thread (`take`, `settle`). When it
is full the oldest whole run goes first, because half a run tells a detector something that never happened; a run that
is alone loses its oldest events, never its start or its end. What is on its way counts until it is settled.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import count
from typing import Any, Literal, NamedTuple

from dunetrace.events import Event
from dunetrace.sdk.content import Late

_LONGEST_WAIT_S = 0.1  # a signal handler that asks for counts may have interrupted whoever holds the lock
HINT_EVERY = 100  # events; the drain thread is woken when so many came, and waits for its interval otherwise


class RunKey(NamedTuple):
    """What every event of a run says of it."""

    run_id: str
    agent_id: str
    agent_version: str
    parent_run_id: str | None


class Record(NamedTuple):
    """One event as it waits: `late` is what is still to be hashed, `number` its place among this process's events."""

    event_type: str
    key: RunKey
    step_index: int
    timestamp: float
    number: int
    payload: dict[str, Any]
    late: tuple[Late, ...]
    edge: Literal["", "start", "end"]  # of its run

    def content(self) -> dict[str, Any]:
        """The whole payload, hashed. What the caller measured himself wins over what was measured here."""
        if not self.late:
            return self.payload
        made: dict[str, Any] = {}
        for late in self.late:
            made |= late.resolve()
        return made | self.payload

    def event(self, payload: dict[str, Any]) -> Event:
        """The event with this payload, as the fold takes it; here received when it was made."""
        run_id, agent_id, agent_version, parent_run_id = self.key
        at = self.timestamp
        return Event(self.event_type, run_id, agent_id, agent_version, self.step_index, at, payload, parent_run_id, at)


class Segment:
    """The waiting events of one run."""

    __slots__ = ("_ring", "lost", "queued", "records")

    def __init__(self, ring: Ring) -> None:
        self._ring = ring
        self.records: deque[Record] = deque()
        self.queued = False
        self.lost = 0

    def push(self, record: Record) -> None:
        """Let `record` wait. Called from any thread; takes no lock, so that a signal handler may call it as well.

        Two threads may both queue the segment; whoever takes the second entry finds it empty and goes on.
        """
        self.records.append(record)
        if not self.queued:
            self.queued = True
            self._ring.order.append(self)
        self._ring.pushed()


class Taken(NamedTuple):
    """A record on its way, and the run it will be counted to if it is lost."""

    segment: Segment
    record: Record


class Ring:
    """At most `capacity` events. `on_hint` is called, from any thread, when the drain thread should look."""

    def __init__(self, capacity: int, on_hint: Callable[[], None]) -> None:
        self.capacity = capacity
        self._on_hint = on_hint
        self.reset()

    def reset(self) -> None:
        """Start empty: at first, and in a forked child, where everything that waits is the parent's."""
        for segment in getattr(self, "order", ()):
            segment.records.clear()
            segment.queued = False
            segment.lost = 0
        self.order: deque[Segment] = deque()
        self.closed = False
        self.roused = False  # whether a drain thread has been asked for
        self._lock = threading.Lock()  # between the drain thread and whoever makes room; never waited for by an agent
        self._pushes = count(1)
        self._settled = 0  # events no longer held, for whatever reason
        self._in_flight = 0
        self.acknowledged = 0
        self.rejected = 0
        self.dropped = 0
        self._unreported = 0  # losses the server has not been told of

    # ---- the agent's side

    def pushed(self) -> None:
        """Count an event just pushed; make room when there are too many."""
        pushes = next(self._pushes)
        if pushes - self._settled > self.capacity:
            self._make_room(pushes)
        if self.closed:
            self.drop_waiting()
        elif pushes % HINT_EVERY == 0 or not self.roused:
            self._on_hint()

    def _make_room(self, pushes: int) -> None:
        # Whoever holds the lock is taking or making room: the next push looks again.
        if not self._lock.acquire(blocking=False):
            return
        try:
            while pushes - self._settled > self.capacity:
                lost = self._evict()
                if not lost:
                    break
        finally:
            self._lock.release()

    def _evict(self) -> int:
        oldest = self._next_segment()
        if oldest is None:
            return 0
        other = self._next_segment()
        if other is None:
            lost = _drop_oldest_inner(oldest.records)
            self._requeue(oldest)
        else:
            self._requeue(other)
            lost = _drop_all(oldest.records)
        self._settled += lost
        self._count_lost(oldest, lost)
        return lost

    # ---- the drain thread's side

    def take(self, limit: int) -> list[Taken]:
        """Up to `limit` events, oldest run first; they count as held until they are settled."""
        taken: list[Taken] = []
        with self._lock:
            while len(taken) < limit:
                segment = self._next_segment()
                if segment is None:
                    break
                while segment.records and len(taken) < limit:
                    taken.append(Taken(segment, segment.records.popleft()))
                if segment.records:
                    self._requeue(segment)
            self._in_flight += len(taken)
        return taken

    def settle(self, taken: list[Taken], *, rejected: int = 0) -> None:
        """These were answered for: acknowledged, all but `rejected` of them."""
        with self._lock:
            self._leave(len(taken))
            self.rejected += rejected
            self.acknowledged += len(taken) - rejected

    def lose(self, taken: list[Taken]) -> None:
        """These will never arrive."""
        with self._lock:
            self._leave(len(taken))
            for segment, _ in taken:
                self._count_lost(segment, 1)

    def drop_waiting(self) -> None:
        """Nothing more will be sent: what waits is lost."""
        if not self._lock.acquire(blocking=False):
            return
        try:
            while (segment := self._next_segment()) is not None:
                lost = _drop_all(segment.records)
                self._settled += lost
                self._count_lost(segment, lost)
        finally:
            self._lock.release()

    def report_lost(self) -> int:
        """How many events were lost since this was last asked."""
        with self._lock:
            lost, self._unreported = self._unreported, 0
        return lost

    def unreport(self, lost: int) -> None:
        """The report of `lost` events did not arrive: it is to be made again."""
        with self._lock:
            self._unreported += lost

    def oldest_number(self) -> int | None:
        """The smallest number among the waiting events, None when none waits."""
        return min(self._numbers(0), default=None)

    def newest_number(self) -> int:
        """The largest number among the waiting events, 0 when none waits."""
        return max(self._numbers(-1), default=0)

    def _numbers(self, end: int) -> Iterator[int]:
        for segment in list(self.order):
            with suppress(IndexError):
                yield segment.records[end].number

    @property
    def waiting(self) -> int:
        """Events held, on their way or not."""
        return self._in_flight + sum(len(segment.records) for segment in set(self.order))

    def stats(self) -> dict[str, int]:
        """Counts of events since the start of this process; they add up to `emitted`."""
        held = self._lock.acquire(timeout=_LONGEST_WAIT_S)
        try:
            waiting = self.waiting
            return {
                "emitted": self._settled + waiting,
                "acknowledged": self.acknowledged,
                "rejected": self.rejected,
                "dropped": self.dropped,
                "waiting": waiting,
            }
        finally:
            if held:
                self._lock.release()

    # ---- under the lock

    def _next_segment(self) -> Segment | None:
        while True:
            try:
                segment = self.order.popleft()
            except IndexError:
                return None
            segment.queued = False  # before its records are looked at: a push from now on queues it again
            if segment.records:
                return segment

    def _requeue(self, segment: Segment) -> None:
        segment.queued = True
        self.order.appendleft(segment)

    def _leave(self, events: int) -> None:
        self._in_flight -= events
        self._settled += events

    def _count_lost(self, segment: Segment, lost: int) -> None:
        segment.lost += lost
        self.dropped += lost
        self._unreported += lost


def _drop_all(records: deque[Record]) -> int:
    lost = 0
    while True:
        try:
            records.popleft()
        except IndexError:
            return lost
        lost += 1


def _drop_oldest_inner(records: deque[Record]) -> int:
    for index in range(len(records)):
        if not records[index].edge:
            del records[index]
            return 1
    return 0
