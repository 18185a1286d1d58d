"""From a run in hand to what is to be written of it. No I/O: the poller calls this in a thread, the store writes it."""

from __future__ import annotations

import random
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NamedTuple

from dunetrace.backoff import delay_s
from dunetrace.detectors.judging import Phase, judge, next_look
from dunetrace.errors import DetectorError
from dunetrace.runs import RunState
from dunetrace.signals import FailureSignal, Severity
from dunetrace.telemetry import kind, where

if TYPE_CHECKING:
    from dunetrace.detectors.thresholds import AgentLimits
    from dunetrace.store.reads.work import Case

MAX_ATTEMPTS = 3  # then the run is parked
RETRY_BASE_S, RETRY_CAP_S = 1.0, 30.0
CLOCKS_AGREE_S = 24 * 3600.0  # a client's clock further off than this doesn't decide the day a run counts for


class Judgement(NamedTuple):
    """What one judging transaction writes of one run.

    `run` holds the columns of ``runs``; `signals` the signals that are new or changed; `counts` whether this is the
    first time the run is judged as ended, so that it counts as a clean or an affected run of its agent's issues.
    """

    case: Case
    run: dict[str, Any]
    signals: tuple[FailureSignal, ...]
    in_flight: bool
    counts: bool

    @property
    def live_types(self) -> set[str]:
        """Failure types of all live signals of the run, stored ones and those to be written."""
        stored = self.case.signals
        if not stored and not self.signals:
            return set()
        live = {name for name, signal in stored.items() if not signal.shadow}
        return live | {s.failure_type.value for s in self.signals if s.failure_type not in stored and not s.shadow}


def judge_case(case: Case, state: RunState, limits: AgentLimits, *, now: float, stall_timeout_s: float) -> Judgement:
    """Judge a run as it stands at `now` (server's clock). Raises DetectorError."""
    state.as_of = now
    state.silent = now - state.last_received_at >= stall_timeout_s
    phase = Phase.ENDED if state.terminal else Phase.STALLED if state.silent else Phase.RUNNING
    found = judge(state, limits, phase, {name for name, stored in case.signals.items() if not stored.shadow})
    trigger = {Phase.ENDED: state.terminal, Phase.STALLED: "stalled", Phase.RUNNING: None}[phase]
    before = case.row
    counts = phase is Phase.ENDED and not state.dropped_events and (before is None or before["issue_effect"] is None)
    run = _facts(case, state)
    run.update(
        judged_event_count=state.event_count,
        trigger=trigger,
        due_at=_due_at(case, state, limits, stall_timeout_s) if phase is Phase.RUNNING else None,
        processed_at=_moment(now) if trigger else (before["processed_at"] if before else None),
        attempts=0,
        parked_error=None,
    )
    judgement = Judgement(case, run, _changed(case, found), phase is Phase.RUNNING, counts)
    live = judgement.live_types
    run["signal_count"] = len(live)
    if counts:
        run["issue_effect"] = "affected" if live else "clean"
    return judgement


def _due_at(case: Case, state: RunState, limits: AgentLimits, stall_timeout_s: float) -> datetime:
    """When a run that goes on is looked at without news: as it turns silent, or earlier where a detector asks for it.

    A time set before stays while it is to come and early enough: looking once for nothing is cheaper than moving the
    run in the index of times at each of its events.
    """
    silent_at = state.last_received_at + stall_timeout_s
    due_at = _moment(min(silent_at, next_look(state, limits) or silent_at))
    held: datetime | None = case.row["due_at"] if case.row else None
    return held if held is not None and _moment(state.as_of) < held <= due_at else due_at


def failed_case(case: Case, state: RunState, error: DetectorError, *, now: float, rng: random.Random) -> Judgement:
    """What is written of a run whose detection raised: tried again later, after three times parked; never clean."""
    attempts = (case.row["attempts"] if case.row else 0) + 1
    parked = attempts >= MAX_ATTEMPTS
    retry_at = _moment(now + delay_s(attempts, base_s=RETRY_BASE_S, cap_s=RETRY_CAP_S, rng=rng))
    run = _facts(case, state)
    run.update(
        attempts=min(attempts, MAX_ATTEMPTS),
        parked_error=str(error) if parked else None,
        due_at=None if parked else retry_at,
    )
    return Judgement(case, run, (), in_flight=False, counts=False)


def identity_of(state: RunState) -> RunState:
    """A state that knows who the run is and when it was heard of, and nothing else."""
    bare = RunState(state.run_id)
    bare.agent_id, bare.agent_version = state.agent_id, state.agent_version
    bare.started_at, bare.started_received_at = state.started_at, state.started_received_at
    bare.last_received_at, bare.event_count = state.last_received_at, state.event_count
    return bare


def as_detector_error(error: Exception, place: str) -> DetectorError:
    """An error outside a detector (in the fold, in the database), as one that parks the run."""
    return error if isinstance(error, DetectorError) else DetectorError(place, kind(error), where(error))


def _facts(case: Case, state: RunState) -> dict[str, Any]:
    """The columns that say what the run is; those that say how it was judged keep what the row has."""
    before: Mapping[str, Any] = case.row or {}
    agree = abs(state.started_at - state.started_received_at) <= CLOCKS_AGREE_S
    start = _moment(state.started_at if agree else state.started_received_at)
    return {
        "run_id": case.key[1],
        "customer_id": case.key[0],
        "bucket": case.bucket,
        "agent_id": state.agent_id,
        "agent_version": state.agent_version,
        "task_hash": state.task_hash,
        "parent_run_id": state.parent_run_id,
        "input_hash": state.input_hash or None,
        "started_at": state.started_at,
        "ended_at": state.ended_at,
        "first_day": case.first_day,
        "last_day": case.last_day,
        "start_day": start.date(),
        "start_hour": start.replace(minute=0, second=0, microsecond=0),
        "last_received_at": _moment(state.last_received_at),
        # Rows deleted by hand: what was announced can no longer be folded, and must not keep the run unjudged for ever.
        "event_count": min(case.announced, state.event_count) if case.rebuilt else case.announced,
        "judged_event_count": before.get("judged_event_count", 0),
        "step_count": state.step_count,
        "llm_calls": state.llm_calls,
        "tool_calls": state.tool_calls,
        "first_tool_step": state.first_tool_step,
        "total_tokens": state.total_tokens,
        "token_mix": state.spending.mix,
        "dropped_events": state.dropped_events,
        "signal_count": before.get("signal_count", 0),
        "trigger": before.get("trigger"),
        "due_at": None,
        "processed_at": before.get("processed_at"),
        "attempts": before.get("attempts", 0),
        "parked_error": before.get("parked_error"),
        "issue_effect": before.get("issue_effect"),
        "effect_seq": before.get("effect_seq"),
    }


def _changed(case: Case, found: list[FailureSignal]) -> tuple[FailureSignal, ...]:
    """Findings that are not stored yet, or that say something else than what is stored."""
    changed = []
    for signal in found:
        stored = case.signals.get(signal.failure_type)
        if stored is None or (
            signal.evidence != stored.evidence
            or abs(signal.confidence - stored.confidence) > 0.001
            or signal.severity.rank > Severity(stored.severity).rank
        ):
            changed.append(signal)
    return tuple(changed)


def _moment(at: float) -> datetime:
    return datetime.fromtimestamp(at, UTC)
