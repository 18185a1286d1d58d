"""What other thresholds would have found in runs that are stored already: compared run by run, nothing is written.

Both sides are judged anew, from the same events and by the code that judges for real, so that the difference is due to
the thresholds alone. No I/O: `store/reads/stored.py` brings the runs, the command ``backtest`` shows what came of them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from dunetrace.detectors.judging import Phase, judge
from dunetrace.detectors.registry import DETECTORS
from dunetrace.errors import DetectorError
from dunetrace.runs import RunState
from dunetrace.signals import FailureSignal, Severity

if TYPE_CHECKING:
    from dunetrace.detectors.thresholds import AgentLimits
    from dunetrace.events import Event

MOST_NAMED = 10  # run ids that the text names of each change


class StoredRun(NamedTuple):
    """A run as it is stored: its events in order, the step counts it is compared with, and whether it fell silent."""

    run_id: str
    events: Iterable[Event]
    baseline_steps: tuple[int, ...]
    silent: bool
    as_of: float


@dataclass
class Change:
    """Of one failure type, how many runs show it (by severity, shadows apart) now and then, and which would change."""

    now: Counter[str] = field(default_factory=Counter)
    then: Counter[str] = field(default_factory=Counter)
    appear: list[str] = field(default_factory=list)
    disappear: list[str] = field(default_factory=list)
    severity: list[str] = field(default_factory=list)  # shown by both, as another severity or as a shadow


@dataclass
class Backtest:
    """What was compared so far. `failed` are runs that no detector could judge."""

    runs: int = 0
    failed: list[str] = field(default_factory=list)
    changes: dict[str, Change] = field(default_factory=lambda: {d.failure_type.value: Change() for d in DETECTORS})

    def add_all(self, stored: Iterable[StoredRun], now: AgentLimits, then: AgentLimits) -> None:
        """Judge runs under both limits."""
        for run in stored:
            self.add(run, now, then)

    def add(self, stored: StoredRun, now: AgentLimits, then: AgentLimits) -> None:
        """Judge a run under both limits."""
        self.runs += 1
        try:
            before, after = (_labels(signals) for signals in _judged(stored, now, then))
        except DetectorError:
            self.failed.append(stored.run_id)
            return
        for failure_type in before.keys() | after.keys():
            change = self.changes[failure_type]
            was, will = before.get(failure_type), after.get(failure_type)
            if was is not None:
                change.now[was] += 1
            if will is not None:
                change.then[will] += 1
            if was is None:
                change.appear.append(stored.run_id)
            elif will is None:
                change.disappear.append(stored.run_id)
            elif was != will:
                change.severity.append(stored.run_id)

    def as_dict(self) -> dict[str, Any]:
        """For machines: every type that fired on either side, with all run ids."""
        return {
            "runs": self.runs,
            "failed": self.failed,
            "changes": {
                failure_type: {
                    "now": dict(change.now),
                    "then": dict(change.then),
                    "appear": change.appear,
                    "disappear": change.disappear,
                    "severity": change.severity,
                }
                for failure_type, change in self.changes.items()
                if change.now or change.then
            },
        }

    def lines(self) -> Iterator[str]:
        """For people."""
        yield f"{self.runs:,} runs judged twice"
        if self.failed:
            yield f"{len(self.failed)} of them could not be judged: {_named(self.failed)}"
        fired = {name: change for name, change in self.changes.items() if change.now or change.then}
        if not fired:
            yield "no detector fires, neither now nor then"
        for name, change in fired.items():
            yield f"{name:<26}now {_counts(change.now):<28} then {_counts(change.then)}"
            for words, run_ids in (
                ("would appear", change.appear),
                ("would disappear", change.disappear),
                ("would be told otherwise", change.severity),
            ):
                if run_ids:
                    yield f"    {words} in {len(run_ids):,}: {_named(run_ids)}"


def _judged(stored: StoredRun, *sides: AgentLimits) -> list[list[FailureSignal]]:
    state = RunState(stored.run_id)
    try:
        for event in stored.events:
            state.fold(event)
    except Exception as error:
        raise DetectorError("fold", type(error).__name__, "?") from None
    state.as_of, state.silent = stored.as_of, stored.silent and not state.terminal
    if state.terminal == "run.completed":
        state.baseline_steps = stored.baseline_steps
    phase = Phase.ENDED if state.terminal else Phase.STALLED if stored.silent else Phase.RUNNING
    return [judge(state, limits, phase) for limits in sides]


def _labels(signals: Iterable[FailureSignal]) -> dict[str, str]:
    return {s.failure_type.value: "shadow" if s.shadow else s.severity.value for s in signals}


def _counts(counts: Counter[str]) -> str:
    order = [*(severity.value for severity in reversed(Severity)), "shadow"]
    return ", ".join(f"{counts[label]:,} {label}" for label in order if counts[label]) or "none"


def _named(run_ids: list[str]) -> str:
    more = len(run_ids) - MOST_NAMED
    return ", ".join(run_ids[:MOST_NAMED]) + (f" and {more:,} more" if more > 0 else "")
