"""One run that fires and one that just does not, for every detector; the conformance test asks for both."""

from __future__ import annotations

from dataclasses import dataclass

from dunetrace.runs import RunState
from tests.detection.building import Script, folded

BASELINE = (6, 6, 7, 7, 8, 8, 8, 8, 9, 9)  # P75 is 8


@dataclass(frozen=True)
class Case:
    fires: Script
    near_miss: Script
    baseline_steps: tuple[int, ...] = ()

    def runs(self) -> tuple[RunState, RunState]:
        pair = folded(self.fires), folded(self.near_miss)
        for run in pair:
            run.baseline_steps = self.baseline_steps
        return pair


def _calls(*args: int) -> Script:
    script = Script().started()
    for i, value in enumerate(args):
        script.llm("tool_calls").tool("search", value, f"found {i}")
    return script.llm().completed()


def _thoughts(count: int) -> Script:
    script = Script().started().tool("search", 1, "found")
    for _ in range(count):
        script.llm()
    return script.completed()


def _steps(count: int) -> Script:
    script = Script().started()
    for i in range(count):
        script.tool(f"tool-{i}", i, f"found {i}")
    return script.completed()


CASES = {
    "tool_loop": Case(_calls(1, 1, 1), _calls(1, 1, 2)),
    "prompt_injection_signal": Case(
        Script().started(injection_signal={"matched_pattern_count": 2, "matched_patterns": ["act_as", "jailbreak"]}),
        Script().started(injection_signal={"matched_pattern_count": 0, "matched_patterns": []}),
    ),
    "step_count_inflation": Case(_steps(17), _steps(16), BASELINE),
    "reasoning_stall": Case(_thoughts(5), _thoughts(4)),
}
