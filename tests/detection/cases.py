"""One run that fires and one that just does not, for every detector; the conformance test asks for both."""

from __future__ import annotations

from dataclasses import dataclass, field

from dunetrace.detectors.judging import Phase, judge
from dunetrace.detectors.thresholds import DEFAULT
from dunetrace.runs import RunState
from dunetrace.signals import FailureSignal
from tests.detection.building import Script, folded

BASELINE = (6, 6, 7, 7, 8, 8, 8, 8, 9, 9)  # P75 is 8


@dataclass(frozen=True)
class Case:
    """`kinds`: for each further `kind` of the evidence a run that gives it. `silent` and `as_of_s`, seconds after its
    last event, are what the caller says of each of these runs."""

    fires: Script
    near_miss: Script
    baseline_steps: tuple[int, ...] = ()
    silent: bool = False
    as_of_s: float = 0.0
    kinds: dict[str, Script] = field(default_factory=dict)

    def runs(self) -> tuple[RunState, RunState]:
        return self.run(self.fires), self.run(self.near_miss)

    def run(self, script: Script) -> RunState:
        run = folded(script)
        run.baseline_steps, run.silent, run.as_of = self.baseline_steps, self.silent, script.now + self.as_of_s
        return run


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


def _answers(*finish_reasons: str, **payload: object) -> Script:
    script = Script().started(sdk="1.0.0")
    for finish_reason in finish_reasons:
        script.llm(finish_reason, **payload)
    return script.tool("search", 1, "found").llm().completed()


def _prompts(*tokens: int) -> Script:
    script = Script().started()
    for i, prompt_tokens in enumerate(tokens):
        script.llm("tool_calls", prompt_tokens=prompt_tokens).tool("search", i, f"found {i}")
    return script.completed()


def _retrieved(count: int | None, top_score: float | None) -> Script:
    return Script().started().retrieval("policies", count, top_score=top_score).llm().completed()


def _swings(calls: int) -> Script:
    script = Script().started()
    for i in range(calls):
        script.tool(("read", "write")[i % 2], i % 2)
    return script.llm().completed()


def _failures(names: str, errors: str = "") -> Script:
    """One failed call for each letter of `names`, each of another error where `errors` has a letter for it."""
    script = Script().started()
    for i, name in enumerate(names):
        script.llm("tool_calls").called(f"tool-{name}", i)
        script.responded(f"tool-{name}", ok=False, error=errors[i : i + 1] or "boom")
    return script.tool("search", 1, "found").llm().completed()


CASES = {
    "tool_loop": Case(
        _calls(1, 1, 1),
        _calls(1, 1, 2),
        kinds={
            "weak": Script().started().tool("search", 1, "same").tool("search", 1, "same").completed(),
            "scattered": _calls(1, 2, 3, 1, 2),
        },
    ),
    "prompt_injection_signal": Case(
        Script().started(injection_signal={"matched_pattern_count": 2, "matched_patterns": ["act_as", "jailbreak"]}),
        Script().started(injection_signal={"matched_pattern_count": 0, "matched_patterns": []}),
    ),
    "tool_thrashing": Case(_swings(6), _swings(5)),
    "tool_avoidance": Case(Script().started().llm().llm().completed(), Script().started().llm().completed()),
    "goal_abandonment": Case(
        Script().started().tool().llm().llm().llm().llm(), Script().started().tool().llm().llm().llm(), silent=True
    ),
    "retry_storm": Case(_failures("aaa"), _failures("aa"), kinds={"errors": _failures("aaaa", "wxyz")}),
    "cascading_tool_failure": Case(_failures("aba"), _failures("ab"), kinds={"errors": _failures("abca", "wxyz")}),
    "first_step_failure": Case(
        Script().started().llm("tool_calls").called().errored(),
        Script().started().llm("tool_calls").tool().llm_called().errored(),
        kinds={"failed_call": Script().started().llm("tool_calls").tool("book", 1, ok=False).completed()},
    ),
    "step_count_inflation": Case(_steps(17), _steps(16), BASELINE),
    "reasoning_stall": Case(_thoughts(5), _thoughts(4)),
    "rag_empty_retrieval": Case(_retrieved(0, None), _retrieved(1, 0.3), kinds={"low_score": _retrieved(4, 0.12)}),
    "llm_truncation_loop": Case(_answers("length", "length"), _answers("length", "stop")),
    "context_bloat": Case(_prompts(1_000, 2_000, 4_000), _prompts(1_000, 2_000, 2_999)),
    "slow_step": Case(
        Script().started().called("book").responded("book", latency_ms=15_001).completed(),
        Script().started().called("book").responded("book", latency_ms=15_000).llm(latency_ms=30_000).completed(),
        as_of_s=200.0,
        kinds={
            "llm": Script().started().llm(latency_ms=150_000).completed(),
            "retrieval": Script().started().retrieval("policies", latency_ms=40_000).completed(),
            "hanging_tool": Script().started().called("book", 1),
            "hanging_llm": Script().started().llm_called(),
            "hanging_retrieval": Script().started().emit("retrieval.called", index_name="policies"),
        },
    ),
    "empty_llm_response": Case(
        _answers("stop", output_length=0),
        _answers("tool_calls", output_length=0),
        kinds={"repeated": _answers("stop", "stop", output_length=0)},
    ),
}


def signals() -> dict[str, FailureSignal]:
    """What each case gives, under its type, and its further kinds under "TYPE kind"."""
    found: dict[str, FailureSignal] = {}
    for name, case in CASES.items():
        for kind, script in {"": case.fires, **case.kinds}.items():
            (signal,) = judge(case.run(script), DEFAULT.default, Phase.ENDED)
            assert not kind or signal.evidence["kind"] == kind
            found[f"{name.upper()} {kind}".strip()] = signal
    return found
