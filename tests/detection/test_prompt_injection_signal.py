from __future__ import annotations

from typing import Any

from dunetrace.detectors.declaration import Thresholds
from dunetrace.detectors.prompt_injection_signal import DETECTOR
from dunetrace.signals import Finding, Severity
from tests.detection.building import Script, folded


def found(script: Script) -> Finding | None:
    return DETECTOR.detect(folded(script), Thresholds())


def matched(count: int) -> dict[str, Any]:
    labels = [f"rule_{i}" for i in range(min(count, 5))]
    return {"injection_signal": {"matched_pattern_count": count, "matched_patterns": labels, "input_length": 48}}


def test_it_speaks_at_the_first_event() -> None:
    finding = found(Script().started(**matched(2)))
    assert finding is not None
    assert (finding.severity, finding.step_index) == (Severity.CRITICAL, 0)
    assert finding.evidence == {
        "matched_pattern_count": 2, "matched_patterns": ["rule_0", "rule_1"], "flagged_inputs": 1, "input_length": 48,
        "scan_truncated": False, "first_step": 0, "steps_since": 0,
    }  # fmt: skip


def test_a_later_message_of_the_user_is_looked_at_too() -> None:
    finding = found(Script().started().llm().user(**matched(1)).llm().tool())
    assert finding is not None
    assert (finding.step_index, finding.evidence["first_step"], finding.evidence["steps_since"]) == (1, 1, 2)


def test_more_matches_are_surer() -> None:
    sure = [finding.confidence for n in (1, 2, 3, 9) if (finding := found(Script().started(**matched(n))))]
    assert sure == sorted(set(sure)) and len(sure) == 4


def test_no_match_says_nothing() -> None:
    assert found(Script().started()) is None
    assert found(Script().started(injection_signal={})) is None
    assert found(Script().started(injection_signal=None)) is None
