"""Made-up content for a test of a destination, so that each form has the same to say."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dunetrace.deliveries import Alert, Kind
from dunetrace.explain import Explanation, Fix, RateContext
from dunetrace.signals import FailureSignal, FailureType, Severity

if TYPE_CHECKING:
    from uuid import UUID

WORDS = Explanation(
    title="Test alert from Dunetrace",
    what="Nothing happened. Somebody asked for a test of this destination.",
    why_it_matters="An alert that cannot arrive is no alert.",
    evidence_summary="None: this is a test.",
    suggested_fixes=(Fix("Nothing to fix: it arrived.", "text", ""),),
)


def alert(delivery_id: UUID, at: float) -> Alert:
    """An alert of a run that never was; `at` is Unix seconds."""
    signal = FailureSignal(
        failure_type=FailureType.TOOL_LOOP,
        severity=Severity.LOW,
        run_id="test-run",
        agent_id="test-agent",
        agent_version="00000000",
        step_index=0,
        confidence=0.5,
    )
    return Alert(delivery_id, Kind.FIRST, signal, detected_at=at, rate_context=RateContext(1, 1, 1.0, False))
