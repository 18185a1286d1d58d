"""Every detector, in the order in which a run is judged. Adding one means adding its file and its line here."""

from __future__ import annotations

from typing import Any

from dunetrace.detectors import prompt_injection_signal, reasoning_stall, step_count_inflation, tool_loop
from dunetrace.detectors.declaration import Detector

DETECTORS: tuple[Detector[Any], ...] = (
    tool_loop.DETECTOR,
    prompt_injection_signal.DETECTOR,
    step_count_inflation.DETECTOR,
    reasoning_stall.DETECTOR,
)

BY_NAME: dict[str, Detector[Any]] = {detector.name: detector for detector in DETECTORS}
