"""The drain thread of one output: it takes what waits and delivers it, again and again until it is answered for.

Made by the client, one for each output. Agents only ever push into its ring and leave a message; everything slow
happens here. It wakes every flush interval, at each hundred events, and for a flush or a stop.
"""

from __future__ import annotations

import random
import threading
import time
from queue import Empty, SimpleQueue
from typing import NamedTuple

from dunetrace.backoff import delay_s
from dunetrace.sdk import lifecycle
from dunetrace.sdk.content import Backlog
from dunetrace.sdk.outputs import Flushing, Outcome, Output, Parcel, Verdict
from dunetrace.sdk.ring import Ring, Taken

ATTEMPT_TIMEOUT_S = 10.0
_BASE_S, _CAP_S = 0.2, 10.0  # backoff after a passing trouble; a full ring is a matter of a minute,
_URGENT_CAP_S = 0.5  # and while somebody waits for a flush or a stop
_MOST_CALLS = 100  # parcels that carry no events, such as deploy marks


class _Flush:
    """Somebody waits until `deadline` (monotonic seconds) for every event numbered up to `up_to` to be answered for."""

    def __init__(self, up_to: int, deadline: float) -> None:
        self.up_to = up_to
        self.deadline = deadline
        self.done = threading.Event()
        self.acknowledged = False


class _Stop(NamedTuple):
    """Ship every event numbered up to `up_to`, until `deadline` (monotonic seconds); `patient`: even when nobody has
    ever answered."""

    up_to: int
    deadline: float
    patient: bool


class Shipper:
    """An output, its ring and its thread."""

    def __init__(self, output: Output, *, capacity: int, interval_s: float, backlog: Backlog) -> None:
        self.output = output
        self.ring = Ring(capacity, self.hint)
        self._interval_s = interval_s
        self._backlog = backlog
        self._batch = max(1, min(output.batch_size, capacity // 2))  # leaves room for what comes meanwhile
        self._largest_batch = max(1, min(output.largest_batch, capacity // 2))
        self._rng = random.Random()
        self._begin()
        lifecycle.know(self)

    def _begin(self) -> None:
        # SimpleQueue.put is reentrant: a signal handler may push an event while its thread is inside put.
        self._inbox: SimpleQueue[_Flush | _Stop | None] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._starting = threading.Lock()
        self._flushes: list[_Flush] = []
        self._calls: list[Parcel] = []
        self._stop: _Stop | None = None
        self._was_answered = False  # by anybody, ever
        self._calls_lost = 0
        self._flushes_failed = 0  # of the output's own
        self._lost_at_last_flush = 0
        self.attempts = 0

    # ---- called by agents and clients, from any thread

    def hint(self) -> None:
        """There is something to take."""
        if self._thread is None:
            self._start()  # and give the first events an interval to gather
        else:
            self._inbox.put(None)

    def _start(self) -> None:
        if not self._starting.acquire(blocking=False):
            return
        try:
            if self._thread is None and not self.ring.closed:
                lifecycle.note_start()
                thread = threading.Thread(target=self._run, name=f"dunetrace-{self.output.name}", daemon=True)
                thread.start()
                self._thread = thread
                self.ring.roused = True
        except RuntimeError:  # no more threads: at the end of the interpreter, whose exit hook ships what waits
            lifecycle.debug("no drain thread could be started", once="thread")
        finally:
            self._starting.release()

    def call(self, parcel: Parcel) -> None:
        """Deliver a parcel without events, before the events that wait."""
        if self.ring.closed or len(self._calls) >= _MOST_CALLS:
            self._calls_lost += 1
            return
        self._calls.append(parcel)
        self.hint()

    def flush(self, up_to: int, timeout_s: float) -> bool:
        """Wait for every event numbered up to `up_to`: True when all of them, and all since the last flush, were
        acknowledged."""
        if self.ring.closed or (self._thread is None and not self.ring.waiting and not self._calls):
            return self._all_acknowledged() and not self.ring.waiting
        flush = _Flush(up_to, time.monotonic() + timeout_s)
        self._inbox.put(flush)
        self.hint()
        return flush.done.wait(min(timeout_s, threading.TIMEOUT_MAX)) and flush.acknowledged

    def begin_stop(self, deadline: float, *, patient: bool) -> None:
        """Let the thread ship what waits and end."""
        if self._thread is not None and self._thread.is_alive():
            self._inbox.put(_Stop(self.ring.newest_number(), deadline, patient))
        elif self._stop is None and self._starting.acquire(blocking=False):  # and never let go: nothing starts any more
            self._stop = _Stop(self.ring.newest_number(), deadline, patient)
            self._guarded_drain()
            self._end()

    def retire(self, deadline: float) -> None:
        """Nobody will push any more: let the thread, if there is one, ship what waits and end."""
        if self._thread is not None:
            self._inbox.put(_Stop(self.ring.newest_number(), deadline, patient=False))

    def finish_stop(self, deadline: float) -> bool:
        """Wait for the end of the thread. Whatever it has not shipped by then is lost."""
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(min(max(0.0, deadline - time.monotonic()) + 0.05, threading.TIMEOUT_MAX))
            if thread.is_alive():
                self.ring.closed = True
                return False
        return self._all_acknowledged()

    def start_afresh(self) -> None:
        """In a forked child: no events, no thread, no connection; the parent keeps its own."""
        self.ring.reset()
        self._backlog.clear()
        self._let_go()
        self._begin()

    def _lost(self) -> int:
        return self.ring.dropped + self.ring.rejected + self._calls_lost + self._flushes_failed

    def _all_acknowledged(self) -> bool:
        before, self._lost_at_last_flush = self._lost_at_last_flush, self._lost()
        return before == self._lost_at_last_flush

    def _has_shipped(self, up_to: int) -> bool:
        oldest = self.ring.oldest_number()
        return oldest is None or oldest > up_to

    # ---- the drain thread

    def _run(self) -> None:
        lifecycle.load(("dunetrace.injection", *self.output.slow_modules))
        while self._stop is None:
            self._listen(self._interval_s)
            self._guarded_drain()
        self._end()

    def _end(self) -> None:
        if self._stop is not None:
            self._hand_on(self._stop.deadline, final=True)
        self.ring.closed = True
        self.ring.drop_waiting()
        self._calls_lost += len(self._calls)
        self._calls.clear()
        self._listen(0)
        self._answer_flushes()
        self._let_go()

    def _hand_on(self, deadline: float, *, final: bool = False) -> None:
        """Have the output hand on what it holds."""
        if isinstance(self.output, Flushing):
            try:
                arrived = self.output.flush(max(0.0, deadline - time.monotonic()), final=final)
            except Exception as error:
                lifecycle.debug(f"{self.output.name}: a flush failed: {type(error).__name__}")
                arrived = False
            self._flushes_failed += not arrived

    def _let_go(self) -> None:
        try:
            self.output.reset()
        except Exception as error:
            lifecycle.debug(f"{self.output.name}: {type(error).__name__} while letting go")

    def _listen(self, timeout_s: float) -> None:
        """Wait for a message, then read all of them."""
        try:
            message = self._inbox.get(timeout=max(0.0, timeout_s)) if timeout_s > 0 else self._inbox.get_nowait()
            while True:
                if isinstance(message, _Flush):
                    self._flushes.append(message)
                elif isinstance(message, _Stop):
                    self._stop = message
                message = self._inbox.get_nowait()
        except Empty:
            return

    def _guarded_drain(self) -> None:
        try:
            self._drain()
        except Exception as error:  # the thread must outlive whatever this was
            lifecycle.debug(f"the drain thread met {type(error).__name__}")

    def _drain(self) -> None:
        while True:
            self._backlog.resolve()
            if self._calls:
                parcel = self._calls.pop(0)
                if not self._deliver(parcel):
                    self._calls_lost += 1
            elif not self._drain_batch():
                break
            self._listen(0)
            self._answer_flushes()
        self._answer_flushes()

    def _drain_batch(self) -> bool:
        if self._stop is not None and (time.monotonic() >= self._stop.deadline or self._has_shipped(self._stop.up_to)):
            return False
        size = self._batch if self.ring.waiting <= self._batch else self._largest_batch
        with lifecycle.unforked():  # a child empties what waits, and would not find what is half taken
            taken = self.ring.take(size)
        if taken:
            self._ship(taken)
        return bool(taken)

    def _ship(self, taken: list[Taken]) -> None:
        """Deliver these events, in halves where they are too large together."""
        lost = self.ring.report_lost()
        parcel, unwritable = self._packed(taken, lost)
        self.ring.lose(unwritable)
        if not parcel.taken:
            self.ring.unreport(lost)
            return
        outcome = self._deliver_all(parcel)
        if outcome.verdict is Verdict.DONE:
            self.ring.settle(parcel.taken, rejected=min(outcome.rejected, len(parcel.taken)))
            return
        self.ring.unreport(lost)
        if outcome.verdict is Verdict.TOO_LARGE and len(parcel.taken) > 1:
            half = len(parcel.taken) // 2
            self._ship(parcel.taken[:half])
            self._ship(parcel.taken[half:])
            return
        self.ring.lose(parcel.taken)
        if outcome.verdict is Verdict.TOO_LARGE:
            lifecycle.warn_once(
                "too large", "an event is larger than the server takes; raise DUNETRACE_MAX_BODY_BYTES on the server"
            )

    def _packed(self, taken: list[Taken], lost: int) -> tuple[Parcel, list[Taken]]:
        try:
            return self.output.pack(taken, lost)
        except Exception as error:  # an output's fault, or no memory: what was taken is accounted for all the same
            lifecycle.debug(f"{self.output.name}: a batch could not be written: {type(error).__name__}")
            return Parcel(b"", []), taken

    def _attempt(self, parcel: Parcel) -> Outcome:
        self.attempts += 1
        try:
            return self.output.attempt(parcel, self._attempt_timeout_s())
        except Exception as error:
            lifecycle.debug(f"{self.output.name}: an attempt failed: {type(error).__name__}")
            return Outcome(Verdict.REFUSED)

    def _deliver(self, parcel: Parcel) -> bool:
        return self._deliver_all(parcel).verdict is Verdict.DONE

    def _deliver_all(self, parcel: Parcel) -> Outcome:
        """Attempt until there is a final outcome, or the time for a stop is over."""
        failures = 0
        while True:
            outcome = self._attempt(parcel)
            self._was_answered |= outcome.answered
            if outcome.verdict is not Verdict.AGAIN:
                return outcome
            failures += 1
            if not self._wait_to_retry(failures, outcome):
                return Outcome(Verdict.REFUSED)

    def _attempt_timeout_s(self) -> float:
        if self._stop is None:
            return ATTEMPT_TIMEOUT_S
        return min(ATTEMPT_TIMEOUT_S, max(0.1, self._stop.deadline - time.monotonic()))

    def _wait_to_retry(self, failures: int, outcome: Outcome) -> bool:
        """Wait out the backoff, reading messages and hashing what waits. False when there is no time to try again."""
        delay = delay_s(failures, base_s=_BASE_S, cap_s=_CAP_S, rng=self._rng)
        began = time.monotonic()
        while True:
            self._backlog.resolve()
            urgent = self._stop is not None or any(flush.deadline > time.monotonic() for flush in self._flushes)
            wait_s = outcome.retry_after_s or (min(delay, _URGENT_CAP_S) if urgent else delay)
            until = began + wait_s
            if self._stop is not None:
                hopeless = not (self._was_answered or self._stop.patient)
                if hopeless or until >= self._stop.deadline:
                    return False
            left = until - time.monotonic()
            if left <= 0:
                return True
            self._listen(left)

    def _answer_flushes(self) -> None:
        if not self._flushes:
            return
        ready = [flush for flush in self._flushes if not self._calls and self._has_shipped(flush.up_to)]
        if not ready:
            return
        self._hand_on(max(flush.deadline for flush in ready))
        acknowledged = self._all_acknowledged()
        for flush in ready:
            self._flushes.remove(flush)
            flush.acknowledged = acknowledged
            flush.done.set()
