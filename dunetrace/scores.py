"""An agent's health as one number, made of its last judged runs. Pure.

Called by the API's routes with what the store read. Each component loses its points in proportion to the share of runs
(or tokens) it is about, so that a number can be explained: 3 of 50 runs failed costs 3/50 of 40 points.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median
from typing import Final, NamedTuple

from dunetrace.signals import FailureType

MAX_RUNS: Final = 50
BASELINE_RUNS: Final = 10  # below it nobody can say which duration is usual
SLOW_FACTOR: Final = 2.0  # times the median duration
POINTS: Final = {"failures": 40, "loops": 25, "tokens": 20, "latency": 15}
LOOPS: Final = frozenset(
    {
        FailureType.TOOL_LOOP,
        FailureType.TOOL_THRASHING,
        FailureType.RETRY_STORM,
        FailureType.LLM_TRUNCATION_LOOP,
        FailureType.REASONING_STALL,
    }
)


class JudgedRun(NamedTuple):
    """One run as its health is counted. `failure_types` and `wasted_tokens` are of live signals only."""

    errored: bool
    failure_types: frozenset[str]
    total_tokens: int
    wasted_tokens: int
    duration_s: float | None  # None for a run that never ended


class Component(NamedTuple):
    """`value` is the share that costs points, 0..1; None when there is nothing to measure, which costs none."""

    score: float
    max: int
    label: str
    value: float | None


class HealthScore(NamedTuple):
    """`score` is None without any run."""

    score: int | None
    sample_runs: int
    baseline_ready: bool
    components: dict[str, Component]


def health_score(runs: Sequence[JudgedRun]) -> HealthScore:
    """The score of an agent's newest judged runs, at most MAX_RUNS."""
    failed = [run.errored or bool(run.failure_types) for run in runs]
    looped = [bool(run.failure_types & LOOPS) for run in runs]
    components = {
        "failures": _share_of_runs("failures", runs, failed, "failed"),
        "loops": _share_of_runs("loops", runs, looped, "went in circles"),
        "tokens": _tokens(runs),
        "latency": _share_of_runs("latency", runs, _slow(runs), "were slow"),
    }
    score = round(sum(component.score for component in components.values())) if runs else None
    return HealthScore(score, len(runs), len(runs) >= BASELINE_RUNS, components)


def _share_of_runs(name: str, runs: Sequence[JudgedRun], bad: Sequence[bool], words: str) -> Component:
    return _component(name, sum(bad) / len(runs) if runs else None, f"{sum(bad)} of {len(runs)} runs {words}")


def _tokens(runs: Sequence[JudgedRun]) -> Component:
    total, wasted = sum(run.total_tokens for run in runs), sum(run.wasted_tokens for run in runs)
    share = min(1.0, wasted / total) if total else None
    return _component("tokens", share, f"{wasted} of {total} tokens wasted")


def _slow(runs: Sequence[JudgedRun]) -> list[bool]:
    """Runs with a slow step and, once it is known what is usual, runs that took far longer."""
    durations = [run.duration_s for run in runs if run.duration_s is not None]
    limit_s = SLOW_FACTOR * median(durations) if len(durations) >= BASELINE_RUNS else None
    return [
        FailureType.SLOW_STEP in run.failure_types
        or (limit_s is not None and run.duration_s is not None and run.duration_s > limit_s)
        for run in runs
    ]


def _component(name: str, share: float | None, label: str) -> Component:
    points = POINTS[name]
    return Component(round(points * (1 - (share or 0.0)), 1), points, label, None if share is None else round(share, 4))
