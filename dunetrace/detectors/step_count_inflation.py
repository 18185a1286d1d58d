"""The run took far more steps than this agent's runs usually take.

Steps are LLM, tool and retrieval calls. The usual is the 75th percentile over the last completed runs of the same agent
and version (and task, where given) that had no live signal and lost no event; above `inflation_factor` times that, the
run is inflated. Below `min_runs` earlier runs nothing is said.

It is not: a hard limit on steps, a comparison between agents or versions, or a judgement on a run still going on.

Example: earlier runs took 6 to 9 steps, P75 is 8, this one took 21: 2.6 times the usual.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from dunetrace.detectors.declaration import Detector, Evidence, FixWords, Thresholds, Words, confidence, limit
from dunetrace.runs import RunState
from dunetrace.signals import FailureType, Finding, Severity


@dataclass(frozen=True, slots=True)
class StepCountInflationThresholds(Thresholds):
    inflation_factor: float = limit(
        2.0, unit="times the baseline's P75", low=1.1, high=100.0,
        source="200 airline runs: no successful run passes twice the P75 of the successful ones, 9 % of the failed do",
    )  # fmt: skip
    min_runs: int = limit(
        10, unit="earlier runs", low=3, high=50,
        source="below ten runs a 75th percentile rests on two or three of them; a baseline holds at most 50",
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class StepCountInflationEvidence(Evidence):
    step_count: int
    baseline_p75: float
    baseline_runs: int
    ratio: float
    inflation_factor: float
    first_step: int
    wasted_calls: int
    wasted_ms: int
    wasted_tokens: int


def detect(run: RunState, limits: StepCountInflationThresholds) -> Finding | None:
    baseline = run.baseline_steps
    if len(baseline) < limits.min_runs:
        return None
    usual = percentile_75(baseline)
    if not usual or run.step_count <= limits.inflation_factor * usual:
        return None
    excess = run.step_count - math.ceil(usual)
    crossed_at = _wire_step(run, math.floor(limits.inflation_factor * usual) + 1)
    evidence = StepCountInflationEvidence(
        step_count=run.step_count,
        baseline_p75=round(usual, 2),
        baseline_runs=len(baseline),
        ratio=round(run.step_count / usual, 2),
        inflation_factor=limits.inflation_factor,
        first_step=crossed_at,
        wasted_calls=excess,
        wasted_ms=round(sum(call.duration_ms or 0.0 for call in run.steps) * excess / len(run.steps)),
        wasted_tokens=run.total_tokens * excess // run.step_count,
    )
    sure = confidence(run.step_count / (limits.inflation_factor * usual), 0.6)
    return Finding(Severity.MEDIUM, sure, crossed_at, evidence.as_dict())


def percentile_75(values: tuple[int, ...]) -> float:
    """The 75th percentile, linear between neighbours, as Postgres' percentile_cont gives it."""
    ordered = sorted(values)
    place = 0.75 * (len(ordered) - 1)
    below = ordered[math.floor(place)]
    return below + (ordered[math.ceil(place)] - below) * (place - math.floor(place))


def _wire_step(run: RunState, number: int) -> int:
    """The wire's index of the run's `number`-th step; of the oldest step kept, where that one is kept no longer."""
    forgotten = run.step_count - len(run.steps)
    return run.steps[max(0, number - 1 - forgotten)].step_index


DETECTOR = Detector(
    doc=__doc__,
    failure_type=FailureType.STEP_COUNT_INFLATION,
    severity=Severity.MEDIUM,
    monotone=False,
    thresholds=StepCountInflationThresholds,
    evidence=StepCountInflationEvidence,
    detect=detect,
    words={
        "": Words(
            title="Step count inflation: {step_count:step|steps}, {ratio:.1f} times the usual",
            what="The run took {step_count:step|steps}. Three quarters of this agent's last {baseline_runs:count} "
            "good runs needed at most {baseline_p75:.1f}; from step {first_step} on it was beyond "
            "{inflation_factor:.1f} times that.",
            why_it_matters="More steps mean more money and a longer wait for the same task. A sudden rise usually "
            "follows a change: a new prompt or model, a tool that answers differently, or harder input.",
            evidence_summary="{step_count:step|steps} against a P75 of {baseline_p75:.1f} over {baseline_runs:count} "
            "runs: {ratio:.1f} times (limit {inflation_factor:.1f}); {wasted_calls:step|steps} more than "
            "usual, with {wasted_ms:ms} and {wasted_tokens:tokens}",
            fixes=(
                FixWords(
                    description="Give the run a step budget and have it answer with what it knows when that is spent.",
                    language="python",
                    code='''\
class StepBudget:
    """Counts the steps of one run; `spent` says when to ask the model for its final answer."""

    def __init__(self, usual={baseline_p75:literal}, factor={inflation_factor:literal}):
        self.left = int(usual * factor)

    def step(self):
        self.left -= 1

    @property
    def spent(self):
        return self.left <= 0


budget = StepBudget()
while not budget.spent:
    budget.step()  # one LLM or tool call of the agent's loop
''',
                ),
                FixWords(
                    description="Tell the model how much effort the task deserves.",
                    language="text",
                    code="This task usually takes about {baseline_p75:.0f} steps. Plan first, avoid checking the same "
                    "thing twice, and answer as soon as you have what you need.",
                ),
            ),
        )
    },
)  # fmt: skip
