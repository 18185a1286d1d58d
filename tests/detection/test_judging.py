from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from dunetrace.detectors.judging import Phase, judge
from dunetrace.detectors.thresholds import DEFAULT, check
from dunetrace.detectors.tool_loop import DETECTOR, ToolLoopThresholds
from dunetrace.errors import DetectorError
from dunetrace.runs import RunState
from dunetrace.signals import FailureType, Finding
from tests.detection.building import Script, folded

LOOP = folded(Script(agent_id="looper").started().tool("s", 1).tool("s", 1).tool("s", 1).completed())


def test_a_signal_carries_its_run() -> None:
    (signal,) = judge(LOOP, DEFAULT.default, Phase.ENDED)
    assert (signal.run_id, signal.agent_id, signal.agent_version) == ("run-1", "looper", "6ddeb0c4")
    assert (signal.failure_type, signal.step_index, signal.shadow) == (FailureType.TOOL_LOOP, 3, False)


def test_a_detector_switched_off_says_nothing() -> None:
    assert judge(LOOP, check({"default": {"tool_loop": {"enabled": False}}}).default, Phase.ENDED) == []


def test_a_shadow_detector_speaks_in_the_shadow() -> None:
    (signal,) = judge(LOOP, check({"looper": {"tool_loop": {"shadow": True}}}).for_agent("looper"), Phase.ENDED)
    assert signal.shadow


def test_the_signals_of_a_run_that_lost_events_are_shadow() -> None:
    script = Script().started().tool("s", 1).tool("s", 1).tool("s", 1).completed(dropped_events=1)
    (signal,) = judge(folded(script), DEFAULT.default, Phase.ENDED)
    assert signal.shadow


def test_an_agents_thresholds_are_its_own() -> None:
    limits = check({"patient": {"tool_loop": {"threshold": 4}}})
    assert judge(LOOP, limits.for_agent("patient"), Phase.ENDED) == []
    assert judge(LOOP, limits.for_agent("looper"), Phase.ENDED)


def test_a_detector_that_raises_is_named_without_its_message() -> None:
    def broken(run: RunState, limits: ToolLoopThresholds) -> Finding | None:
        raise ValueError(f"secret of {run.run_id}")

    detectors: tuple[Any, ...] = (replace(DETECTOR, detect=broken),)
    with pytest.raises(DetectorError) as caught:
        judge(LOOP, DEFAULT.default, Phase.ENDED, detectors=detectors)
    error = caught.value
    assert (error.detector, error.exception_type) == ("TOOL_LOOP", "ValueError")
    assert error.code_line == f"test_judging.py:{broken.__code__.co_firstlineno + 1}"
    assert "secret" not in str(error)
    assert error.__suppress_context__ and error.__cause__ is None
