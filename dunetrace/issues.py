"""An issue's life: open, resolved by clean runs or by a person, reopened. Pure; the store applies it to locked rows."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

CLEAN_RUNS_TO_RESOLVE = 5

IssueStatus = Literal["open", "resolved", "reopened"]


@dataclass(frozen=True, slots=True)
class IssueState:
    """One failure type of one agent. Times are Unix seconds; `resolved_at` is None unless `status` is resolved.

    `times_reopened` tells one life of the issue from the next.
    """

    status: IssueStatus
    first_seen: float
    last_seen: float
    resolved_at: float | None
    affected_runs: int
    clean_runs_since: int
    times_reopened: int = 0


def affected(state: IssueState | None, at: float) -> IssueState:
    """The issue after one more run was affected at `at`; None = there was no issue yet."""
    if state is None:
        return IssueState("open", at, at, None, 1, 0)
    reopens = state.status == "resolved"
    return IssueState(
        status="reopened" if reopens else state.status,
        first_seen=min(state.first_seen, at),
        last_seen=max(state.last_seen, at),
        resolved_at=None,
        affected_runs=state.affected_runs + 1,
        clean_runs_since=0,
        times_reopened=state.times_reopened + reopens,
    )


def clean(state: IssueState, at: float) -> IssueState:
    """The issue after one run of the agent ended without a live signal of its type at `at`.

    Clean runs of an issue that a person resolved are counted too; enough is enough, so none is counted beyond them.
    """
    runs = min(state.clean_runs_since + 1, CLEAN_RUNS_TO_RESOLVE)
    if runs < CLEAN_RUNS_TO_RESOLVE or state.status == "resolved":
        return replace(state, clean_runs_since=runs)
    return replace(state, status="resolved", resolved_at=at, clean_runs_since=runs)
