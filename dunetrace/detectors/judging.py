"""Runs the detectors over one run. Called by the poller and by the SDK's guard."""

from __future__ import annotations

from collections.abc import Collection
from enum import StrEnum
from pathlib import PurePath
from typing import Any

from dunetrace.detectors.declaration import Detector
from dunetrace.detectors.registry import DETECTORS
from dunetrace.detectors.thresholds import AgentLimits
from dunetrace.errors import DetectorError
from dunetrace.runs import RunState
from dunetrace.signals import FailureSignal


class Phase(StrEnum):
    """Where a run stands: going on, silent for the stall timeout, or completed or errored."""

    RUNNING = "running"
    STALLED = "stalled"
    ENDED = "ended"


def judge(
    run: RunState,
    limits: AgentLimits,
    phase: Phase,
    known: Collection[str] = (),
    detectors: tuple[Detector[Any], ...] = DETECTORS,
) -> list[FailureSignal]:
    """At most one signal for each enabled detector that may speak in `phase`; raises DetectorError.

    `known` names the failure types of live signals the run has already. One fault is one signal: what yields to another
    signal of the run is left out. Signals of a run that lost events are shadow: what is missing may be what would have
    cleared it.
    """
    signals = _found(run, limits, phase, detectors)
    if not signals:
        return signals
    live = {signal.failure_type for signal in signals if not signal.shadow}.union(known)
    causes = {signal.failure_type for signal in signals}.union(known)
    yields_to = {detector.failure_type: detector.yields_to for detector in detectors}
    return [s for s in signals if (causes if s.shadow else live).isdisjoint(yields_to[s.failure_type])]


def _found(
    run: RunState, limits: AgentLimits, phase: Phase, detectors: tuple[Detector[Any], ...]
) -> list[FailureSignal]:
    signals = []
    for detector in detectors:
        section = limits[detector.name]
        if not section.enabled or (phase is Phase.RUNNING and not detector.monotone):
            continue
        try:
            finding = detector.detect(run, section.thresholds)
        except Exception as error:
            raise DetectorError(detector.failure_type, type(error).__name__, _code_line(error)) from None
        if finding is not None:
            signals.append(
                FailureSignal(
                    failure_type=detector.failure_type,
                    severity=finding.severity,
                    run_id=run.run_id,
                    agent_id=run.agent_id,
                    agent_version=run.agent_version,
                    step_index=finding.step_index,
                    confidence=finding.confidence,
                    evidence=finding.evidence,
                    shadow=section.shadow or run.dropped_events > 0,
                )
            )
    return signals


def next_look(run: RunState, limits: AgentLimits, detectors: tuple[Detector[Any], ...] = DETECTORS) -> float | None:
    """When a run that goes on should be judged again though nothing more is heard of it; None: not before it stalls.

    Server time, Unix seconds, later than `run.as_of`.
    """
    soonest: float | None = None
    for detector in detectors:
        if detector.look_at is None or not limits[detector.name].enabled:
            continue
        at = detector.look_at(run, limits[detector.name].thresholds)
        if at is not None and at > run.as_of and (soonest is None or at < soonest):
            soonest = at
    return soonest


def _code_line(error: Exception) -> str:
    """Where it was raised, as ``file.py:line``: never the message, which may quote what was folded."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return f"{PurePath(trace.tb_frame.f_code.co_filename).name}:{trace.tb_lineno}" if trace else "?"
