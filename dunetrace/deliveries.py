"""When a delivery is attempted, and when it is over: the schedule and the circuit as one pure function.

Three attempts are a round. A failed round leaves the delivery pending for a later round and opens its destination's
circuit: while that is open one delivery at a time goes out as a probe and the others wait, their attempts unspent.
`actors/destination.py` brings the outcome of an attempt, `store/writes/deliveries.py` keeps what `after` answers.
No clock and no I/O: ages and waits are seconds, and only Postgres' clock turns them into times.
"""

from __future__ import annotations

import json
import math
from email.utils import parsedate_to_datetime
from enum import StrEnum
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, NamedTuple
from uuid import UUID, uuid5

from dunetrace.backoff import delay_s

if TYPE_CHECKING:
    import random

    from dunetrace.explain import RateContext
    from dunetrace.fleet import FleetShift
    from dunetrace.prices import Cost
    from dunetrace.signals import FailureSignal, Severity

ATTEMPTS_A_ROUND = 3
ATTEMPT_BASE_S, ATTEMPT_CAP_S = 0.5, 8.0  # between the attempts of a round
ROUND_WAITS_S = (60.0, 300.0, 1800.0, 7200.0)  # after the first, second, third, every later failed round
LIFETIME_S = 72 * 3600.0
RETRY_AFTER_CAP_S = 24 * 3600.0  # a delivery lives 72 h: a receiver's odd date must not use that up

_RETRYABLE_4XX = (408, 429)
_DELIVERY_IDS = UUID("6f0c7d0a-3a55-5d7f-9a70-0d6f2f0f8d11")
_THREAD_IDS = UUID("f1b9c1f6-5d0e-4b6e-9d0b-3c1c5b9b8e52")


class Kind(StrEnum):
    """Why a destination is told."""

    FIRST = "first"
    UPDATE = "update"
    RESOLVED = "resolved"
    ESCALATED = "escalated"
    FLEET = "fleet"


class State(StrEnum):
    """Where a delivery stands in its life. All but `PENDING` are final."""

    PENDING = "pending"
    DONE = "done"
    REFUSED = "refused"
    EXPIRED = "expired"


class Verdict(StrEnum):
    """What one attempt came to."""

    DELIVERED = "delivered"
    REFUSED = "refused"
    FAILED = "failed"


class Subscription(NamedTuple):
    """What a destination wants to be told: signals of at least `min_severity`, of these `agents`.

    `agents` are shell patterns; none = all. Repeats are gathered within a window of `gather_s` seconds, 0 = it is told
    of each signal (`threads.py`). `resolved`: it is told when what it was told of is resolved.
    """

    destination: str
    kind: str
    min_severity: Severity
    agents: tuple[str, ...] = ()
    gather_s: float = 0.0
    resolved: bool = True

    def wants(self, agent_id: str, severity: Severity) -> bool:
        """Whether it is to be told of such a signal."""
        if severity.rank < self.min_severity.rank:
            return False
        return not self.agents or any(fnmatchcase(agent_id, pattern) for pattern in self.agents)


class Gathered(NamedTuple):
    """What an update, or the note of an issue's end, counts: runs not told of before, since a Unix second."""

    runs: int
    since: float


class ResolvedIssue(NamedTuple):
    """What the note of an issue's end says of it. Times are Unix seconds; `by_hand`: a person resolved it."""

    affected_runs: int
    first_seen: float
    resolved_at: float
    by_hand: bool


class Alert(NamedTuple):
    """What a delivery tells, whatever form its destination wants it in. Times are float Unix seconds.

    `run_url` is where the run is looked at; None where nobody knows where the page is. `reopened`: the first of an
    issue that had been resolved. Of kind `FLEET`, `fleet` is what is told, and the signal is that of the newest run
    that shows it.
    """

    delivery_id: UUID
    kind: Kind
    signal: FailureSignal
    detected_at: float
    rate_context: RateContext | None = None
    run_url: str | None = None
    customer_id: str = "default"
    reopened: bool = False
    gathered: Gathered | None = None
    issue: ResolvedIssue | None = None
    fleet: FleetShift | None = None
    cost: Cost | None = None


class Outcome(NamedTuple):
    """One attempt's end. `error` is an error class's name; a `status` is there only when the destination answered."""

    verdict: Verdict
    status: int | None = None
    error: str | None = None
    retry_after_s: float = 0.0


class Standing(NamedTuple):
    """A delivery as it was claimed. `failed_rounds` is the circuit's count, 0 while that is closed."""

    round: int  # rounds that failed so far
    attempt: int  # attempts spent in this round
    age_s: float
    probe: bool = False
    failed_rounds: int = 0


class Hold(NamedTuple):
    """The circuit is open, after `failed_rounds` failed probes, and the next probe may go in `wait_s`."""

    failed_rounds: int
    wait_s: float


class Next(NamedTuple):
    """What an attempt leads to. `wait_s` matters to a pending delivery only; without a `hold` the circuit stays."""

    state: State
    round: int
    attempt: int
    wait_s: float = 0.0
    closes_circuit: bool = False
    hold: Hold | None = None


def delivery_id(
    customer_id: str, run_id: str, failure_type: str, destination: str, *, kind: Kind = Kind.FIRST, seq: int = 0
) -> UUID:
    """The identity of a delivery: the same for every attempt, whoever makes it."""
    return uuid5(_DELIVERY_IDS, json.dumps([customer_id, run_id, failure_type, destination, kind, seq]))


def thread_id(customer_id: str, agent_id: str, failure_type: str) -> UUID:
    """The identity of all that is told of one failure of one agent, for destinations that keep it together."""
    return uuid5(_THREAD_IDS, json.dumps([customer_id, agent_id, failure_type]))


def outcome_of(status: int, retry_after_s: float = 0.0) -> Outcome:
    """What a status means: 2xx is delivered, 5xx, 408 and 429 may pass, everything else is refused for good."""
    if 200 <= status < 300:
        return Outcome(Verdict.DELIVERED, status)
    if status >= 500 or status in _RETRYABLE_4XX:
        return Outcome(Verdict.FAILED, status, retry_after_s=retry_after_s)
    return Outcome(Verdict.REFUSED, status)


def after(standing: Standing, outcome: Outcome, rng: random.Random) -> Next:
    """What an attempt's outcome leads to."""
    match outcome.verdict:
        case Verdict.DELIVERED:
            return Next(State.DONE, standing.round, standing.attempt + 1, closes_circuit=True)
        case Verdict.REFUSED:
            return _refused(standing, answered=outcome.status is not None)
        case Verdict.FAILED:
            return _failed(standing, outcome.retry_after_s, rng)


def retry_after_s(header: str | None, now: float) -> float:
    """The wait a ``Retry-After`` asks for, as seconds or as an HTTP date; 0 without one or when it says nothing.

    `now` is Unix seconds. The answer lies in 0..`RETRY_AFTER_CAP_S`.
    """
    value = (header or "").strip()[:64]
    if not value.isascii():
        return 0.0
    if value.isdigit():
        return min(float(value), RETRY_AFTER_CAP_S)
    try:
        asked = parsedate_to_datetime(value).timestamp() - now
    except (ValueError, OverflowError):
        return 0.0
    return max(0.0, min(asked, RETRY_AFTER_CAP_S)) if math.isfinite(asked) else 0.0


def _refused(standing: Standing, *, answered: bool) -> Next:
    # A destination that answers is up, whatever it thinks of this delivery. A probe that never left proved nothing:
    # the next one may go at once.
    hold = Hold(standing.failed_rounds, 0.0) if standing.probe and not answered else None
    return Next(State.REFUSED, standing.round, standing.attempt + 1, closes_circuit=answered, hold=hold)


def _failed(standing: Standing, asked_s: float, rng: random.Random) -> Next:
    spent = standing.attempt + 1
    if spent < ATTEMPTS_A_ROUND:
        wait_s = max(asked_s, delay_s(spent, base_s=ATTEMPT_BASE_S, cap_s=ATTEMPT_CAP_S, rng=rng))
        # Retry-After is the destination's word, not the delivery's: all of them wait for it.
        hold = Hold(standing.failed_rounds, wait_s) if standing.probe or asked_s > 0 else None
        following = Next(State.PENDING, standing.round, spent, wait_s, hold=hold)
    else:
        wait_s = max(asked_s, _round_wait_s(standing.round))
        hold = Hold(standing.failed_rounds + 1, max(asked_s, _round_wait_s(standing.failed_rounds)))
        following = Next(State.PENDING, standing.round + 1, 0, wait_s, hold=hold)
    if standing.age_s + following.wait_s >= LIFETIME_S:
        return following._replace(state=State.EXPIRED, attempt=spent)
    return following


def _round_wait_s(failed_before: int) -> float:
    return ROUND_WAITS_S[min(failed_before, len(ROUND_WAITS_S) - 1)]
