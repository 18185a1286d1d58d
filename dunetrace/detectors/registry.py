"""Every detector, in the order in which a run is judged. Adding one means adding its file and its line here."""

from __future__ import annotations

from typing import Any

from dunetrace.detectors import (
    cascading_tool_failure,
    context_bloat,
    empty_llm_response,
    first_step_failure,
    goal_abandonment,
    llm_truncation_loop,
    prompt_injection_signal,
    rag_empty_retrieval,
    reasoning_stall,
    retry_storm,
    slow_step,
    step_count_inflation,
    tool_avoidance,
    tool_loop,
    tool_thrashing,
)
from dunetrace.detectors.declaration import Detector

DETECTORS: tuple[Detector[Any], ...] = (
    tool_loop.DETECTOR,
    tool_thrashing.DETECTOR,
    tool_avoidance.DETECTOR,
    goal_abandonment.DETECTOR,
    prompt_injection_signal.DETECTOR,
    rag_empty_retrieval.DETECTOR,
    llm_truncation_loop.DETECTOR,
    context_bloat.DETECTOR,
    slow_step.DETECTOR,
    retry_storm.DETECTOR,
    empty_llm_response.DETECTOR,
    step_count_inflation.DETECTOR,
    cascading_tool_failure.DETECTOR,
    first_step_failure.DETECTOR,
    reasoning_stall.DETECTOR,
)

BY_NAME: dict[str, Detector[Any]] = {detector.name: detector for detector in DETECTORS}
