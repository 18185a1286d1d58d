"""explain(): a signal in plain words, for the API, the alerts and the SDK's guard.

Deterministic templates that stand beside each detector's logic, no model call. Never raises, whatever the evidence.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from dunetrace.detectors.declaration import FixWords, Words
from dunetrace.detectors.registry import BY_NAME
from dunetrace.explain.wording import fill
from dunetrace.signals import FailureSignal


@dataclass(frozen=True, slots=True)
class Fix:
    """One suggested fix; `language` is ``python`` or ``text``."""

    description: str
    language: str
    code: str


@dataclass(frozen=True, slots=True)
class RateContext:
    """How common a failure is among an agent's runs of the last 7 days; `rate` is 0..1."""

    total_runs: int
    affected_runs: int
    rate: float
    is_systemic: bool

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Explanation:
    """What a person reads about one signal."""

    title: str
    what: str
    why_it_matters: str
    evidence_summary: str
    suggested_fixes: tuple[Fix, ...]

    def as_json(self) -> dict[str, Any]:
        return {**asdict(self), "suggested_fixes": [asdict(fix) for fix in self.suggested_fixes]}


def explain(signal: FailureSignal, rate_context: RateContext | None = None) -> Explanation:
    """The signal in words; with `rate_context` also how common it is. The same input gives the same words."""
    detector = BY_NAME.get(str(signal.failure_type).lower())
    evidence = {**signal.evidence, "signal_step": signal.step_index, "signal_type": str(signal.failure_type)}
    words = detector.words_for(evidence) if detector is not None else _WITHOUT_DETECTOR
    why = fill(words.why_it_matters, evidence)
    if rate_context is not None:
        why = f"{why} {_how_common(rate_context)}"
    return Explanation(
        title=fill(words.title, evidence),
        what=fill(words.what, evidence),
        why_it_matters=why,
        evidence_summary=fill(words.evidence_summary, evidence),
        suggested_fixes=tuple(
            Fix(fill(fix.description, evidence), fix.language, fill(fix.code, evidence)) for fix in words.fixes
        ),
    )


def _how_common(rate: RateContext) -> str:
    runs = f"{rate.affected_runs:,} of this agent's {rate.total_runs:,} runs in the last 7 days ({rate.rate:.0%})"
    return f"It is systemic: {runs} show it." if rate.is_systemic else f"It was seen in {runs}."


# A stored signal may come from another release, whose detector is not here.
_WITHOUT_DETECTOR = Words(
    title="{signal_type:name} at step {signal_step}",
    what="The run shows {signal_type:name} at step {signal_step}. This version has no description of that failure.",
    why_it_matters="It was found by another version of Dunetrace; the evidence stored with the signal still holds.",
    evidence_summary="See the evidence of the signal, from step {signal_step} of the run on.",
    fixes=(FixWords("Read the run's timeline around that step.", "text", "Open the run at step {signal_step}."),),
)
