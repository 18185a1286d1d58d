"""Whether a failure has become more frequent: the test between two sets of an agent's runs, and the words for it.

A version or deploy is looked at when the number of its judged runs passes 20, 40, 80 … 10,240, against the agent's
other runs of the seven days before it; an hour once, when it is over, against the seven days before it. Used by the
store, which counts, by the `fleet` actor and by the alerts' forms. No clock and no I/O.
"""

from __future__ import annotations

import math
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Final, NamedTuple

from dunetrace.explain.wording import shown_name
from dunetrace.signals import FailureType

# On both sides: below this, a rate is known to ± 20 points at best, and one odd hour of tests passes for a fleet.
MIN_RUNS: Final = 20
# A difference nobody would act on is not told, however sure it is: with 10,000 runs, 4.1 % against 4 % would be.
MIN_RATIO: Final = 2.0
MIN_RISE: Final = 0.05
# Each look at a version spends an equal part of its error rate, so that all of them together keep it, however they
# depend on each other. At doubling counts ten looks reach from 20 to 10,240 runs: what did not show by then is no rise.
LOOKS: Final = 10
# An hour's error rate is the same number spread over the looks of a week.
HOURLY_LOOKS: Final = 7 * 24
REFERENCE_DAYS: Final = 7  # long enough to hold a week's rhythm, short enough to be what the agent was like


class Scope(StrEnum):
    """What a rise is since, or in."""

    VERSION = "version"
    DEPLOY = "deploy"
    HOUR = "hour"


class Side(NamedTuple):
    """Judged runs, and how many of them show the failure."""

    runs: int
    affected: int

    @property
    def rate(self) -> float:
        return self.affected / self.runs if self.runs else 0.0


class FleetShift(NamedTuple):
    """A rise that was found: `now` against `before`. `since` is Unix seconds, of an hour its beginning."""

    scope: Scope
    subject: str
    failure_type: FailureType
    since: float
    now: Side
    before: Side

    def title(self) -> str:
        """The rise in one line. The subject in it is somebody's name for something: escape it as such."""
        return f"{self._when()}: {self.failure_type} in {_percent(self.now)} of runs, was {_percent(self.before)}"

    def counts(self) -> str:
        """What the line rests on."""
        now, before = (f"{side.affected:,} of {side.runs:,} runs" for side in (self.now, self.before))
        return f"{now} show it; {before} did in the {REFERENCE_DAYS} days before"

    def as_json(self) -> dict[str, Any]:
        return {
            "scope": self.scope,
            "subject": self.subject,
            "since": self.since,
            "runs": self.now.runs,
            "affected_runs": self.now.affected,
            "rate": self.now.rate,
            "runs_before": self.before.runs,
            "affected_runs_before": self.before.affected,
            "rate_before": self.before.rate,
            "title": self.title(),
        }

    def _when(self) -> str:
        match self.scope:
            case Scope.VERSION:
                return f"Since version {shown_name(self.subject)}"
            case Scope.DEPLOY:
                return f"Since the deploy of {shown_name(self.subject)}"
            case Scope.HOUR:
                return f"In the hour from {datetime.fromtimestamp(self.since, UTC):%Y-%m-%d %H:%M} UTC"


def has_risen(now: Side, before: Side, scope: Scope, error_rate: float) -> bool:
    """Whether one look finds a rise. `error_rate` is that of all looks at a version or deploy, or at a week's hours."""
    looks = HOURLY_LOOKS if scope is Scope.HOUR else LOOKS
    return (
        min(now.runs, before.runs) >= MIN_RUNS and is_higher(now, before) and chance(now, before) <= error_rate / looks
    )


def is_higher(now: Side, before: Side) -> bool:
    """Whether the rate is as much higher as is worth telling, whatever the reason."""
    return now.rate >= MIN_RATIO * before.rate and now.rate - before.rate >= MIN_RISE


def following_look(runs: int) -> int | None:
    """The count of runs at which a version that has `runs` is looked at next; None after the last look."""
    step = 0 if runs < MIN_RUNS else (runs // MIN_RUNS).bit_length()
    return MIN_RUNS << step if step < LOOKS else None


def chance(now: Side, before: Side) -> float:
    """How likely at least as many of the affected runs would fall into `now` if both sides were alike.

    Fisher's exact test, one-sided: the upper tail of the hypergeometric distribution.
    """
    total, affected = now.runs + before.runs, now.affected + before.affected
    most = min(now.runs, affected)
    term = math.exp(
        _log_choose(affected, now.affected)
        + _log_choose(total - affected, now.runs - now.affected)
        - _log_choose(total, now.runs)
    )
    tail = term
    for k in range(now.affected, most):
        ratio = (affected - k) * (now.runs - k) / ((k + 1) * (total - affected - now.runs + k + 1))
        term *= ratio
        tail += term
        if ratio < 1.0 and term < tail * 1e-15:
            break
    return min(1.0, tail)


def _log_choose(n: int, k: int) -> float:
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)


def _percent(side: Side) -> str:
    return "under 1 %" if 0 < side.rate < 0.01 else f"{side.rate * 100:.0f} %"
