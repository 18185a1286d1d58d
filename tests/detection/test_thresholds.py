from __future__ import annotations

from dataclasses import asdict
from typing import Any

import pytest

from dunetrace.detectors.thresholds import DEFAULT, check
from dunetrace.detectors.tool_loop import ToolLoopThresholds
from dunetrace.errors import SettingError


def section(body: Any, name: str = "tool_loop") -> dict[str, Any]:
    return {"default": {name: body}}


@pytest.mark.parametrize("document", [None, {}, {"default": None}, {"default": {}}, section(None), section({})])
def test_what_is_left_empty_leaves_the_defaults(document: Any) -> None:
    limits = check(document).default["tool_loop"]
    assert limits == DEFAULT.default["tool_loop"]
    assert (limits.enabled, limits.shadow, limits.thresholds) == (True, False, ToolLoopThresholds(3, 5))


def test_an_agent_overrides_only_what_it_names() -> None:
    limits = check({"default": {"tool_loop": {"threshold": 4, "window": 8}, "reasoning_stall": {"enabled": False}},
                    "a/b": {"tool_loop": {"window": 6, "shadow": True}}, "quiet": None})  # fmt: skip
    agent = limits.for_agent("a/b")
    assert agent["tool_loop"].thresholds == ToolLoopThresholds(4, 6)
    assert (agent["tool_loop"].shadow, agent["reasoning_stall"].enabled) == (True, False)
    assert limits.for_agent("never seen") is limits.default
    assert limits.for_agent("quiet") == limits.default
    assert limits.agents == ("a/b", "quiet")


def test_the_defaults_are_what_is_promised() -> None:
    assert {name: asdict(section.thresholds) for name, section in DEFAULT.default.items()} == {
        "tool_loop": {"threshold": 3, "window": 5, "again": 2},
        "tool_thrashing": {"window": 6},
        "tool_avoidance": {"min_llm_calls": 2},
        "goal_abandonment": {"stall_steps": 4},
        "prompt_injection_signal": {},
        "rag_empty_retrieval": {"min_results": 1, "min_score": 0.3},
        "llm_truncation_loop": {"threshold": 2},
        "context_bloat": {"growth_factor": 3.0, "min_calls": 3, "min_last_tokens": 2000},
        "slow_step": {"tool_ms": 15000, "llm_ms": 30000},
        "retry_storm": {"threshold": 3},
        "empty_llm_response": {},
        "step_count_inflation": {"inflation_factor": 2.0, "min_runs": 10},
        "cascading_tool_failure": {"threshold": 3},
        "first_step_failure": {"max_step": 2},
        "reasoning_stall": {"ratio_threshold": 4.0, "min_llm_calls": 5},
    }


def test_a_whole_number_is_fine_for_a_ratio() -> None:
    limits: Any = check(section({"ratio_threshold": 3}, "reasoning_stall")).default["reasoning_stall"].thresholds
    assert limits.ratio_threshold == 3.0 and isinstance(limits.ratio_threshold, float)


@pytest.mark.parametrize(("written", "held"), [(None, None), (0, 0.0), (0.5, 0.5)])
def test_null_switches_off_what_is_optional(written: Any, held: float | None) -> None:
    name = "rag_empty_retrieval"
    document = {"default": {name: {"min_score": 0.9}}, "agent": {name: {"min_score": written, "min_results": 2}}}
    limits: Any = check(document).for_agent("agent")[name].thresholds
    assert (limits.min_score, limits.min_results) == (held, 2)
    assert limits.min_score is None or isinstance(limits.min_score, float)


@pytest.mark.parametrize(
    ("document", "fault"),
    [
        ([], "detectors.yml must be a mapping of `default` and agents, and is []"),
        ("text", "detectors.yml must be a mapping"),
        ({"defualt": {}}, "'defualt' is one letter away from `default`; write `default`"),
        ({"defaults": {}}, "one letter away from `default`"),
        ({"Default": {}}, "one letter away from `default`"),
        ({"efault": {}}, "one letter away from `default`"),
        ({7: {}}, "the agent's name 7 is not text; write it in quotes"),
        ({None: {}}, "the agent's name None is not text"),
        ({"": {}}, "the agent's name '' is not text"),
        ({"tool_loop": {"threshold": 3}}, "the detector `tool_loop` belongs under `default:`"),
        ({"default": 3}, "default must be a mapping of detectors, and is 3"),
        ({"agent": [1]}, "agent must be a mapping of detectors"),
        ({"default": {"tool_lop": {}}}, "default: unknown detector 'tool_lop'; did you mean `tool_loop`?"),
        ({"agent": {"TOOL_LOOP": {}}}, "agent: unknown detector 'TOOL_LOOP'; did you mean"),
        ({"default": {3: {}}}, "unknown detector 3; did you mean"),
        (section(True), "default.tool_loop must be a mapping of thresholds, and is True"),
        (section({"treshold": 3}), "default.tool_loop: unknown key 'treshold'; did you mean `threshold`?"),
        (section({"enable": True}), "unknown key 'enable'; did you mean `enabled`?"),
        (section({"threshold": 1}), "default.tool_loop.threshold: 1 is out of bounds; allowed is a whole number of "
                                    "equal calls from 2 to 20, the nearest is 2"),
        (section({"window": 10**9}), "default.tool_loop.window: 1000000000 is out of bounds"),
        (section({"threshold": 3.0}), "default.tool_loop.threshold: 3.0 is not a whole number"),
        (section({"threshold": True}), "default.tool_loop.threshold: True is not a whole number"),
        (section({"threshold": "3"}), "default.tool_loop.threshold: '3' is not a whole number"),
        (section({"threshold": None}), "default.tool_loop.threshold: None is not a whole number"),
        (section({"threshold": 6}), "default.tool_loop: threshold (6) is above window (5), so it could never fire"),
        ({"agent": {"tool_loop": {"window": 2}}}, "agent.tool_loop: threshold (3) is above window (2)"),
        (section({"ratio_threshold": float("nan")}, "reasoning_stall"), "ratio_threshold: nan is not a number"),
        (section({"ratio_threshold": float("inf")}, "reasoning_stall"), "ratio_threshold: inf is not a number"),
        (section({"ratio_threshold": 1}, "reasoning_stall"), "reasoning_stall.ratio_threshold: 1 is out of bounds"),
        (section({"min_results": None}, "rag_empty_retrieval"), "min_results: None is not a whole number"),
        (section({"min_score": 1.5}, "rag_empty_retrieval"), "min_score: 1.5 is out of bounds; allowed is a number "
                                    "of the best score from 0 to 1, or null to switch it off"),
        (section({"min_score": False}, "rag_empty_retrieval"), "min_score: False is not a number; allowed is"),
        (section({"window": 3}, "tool_thrashing"), "tool_thrashing.window: 3 is out of bounds; allowed is a whole "
                                    "number of tool calls from 4 to 100, the nearest is 4"),
        (section({"window": 101}, "tool_thrashing"), "the nearest is 100"),
        (section({"threshold": 1}, "retry_storm"), "failures in a row from 2 to 20, the nearest is 2"),
        (section({"threshold": 21}, "cascading_tool_failure"), "failures in a row from 2 to 20, the nearest is 20"),
        (section({"max_step": 11}, "first_step_failure"), "steps from 1 to 10, the nearest is 10"),
        (section({"min_llm_calls": 0}, "tool_avoidance"), "LLM calls in one turn from 1 to 100, the nearest is 1"),
        (section({"stall_steps": 1}, "goal_abandonment"), "LLM calls after the last act from 2 to 100"),
        (section({"shadow": 1}), "default.tool_loop.shadow: 1 is not true or false"),
        (section({"enabled": "no"}), "default.tool_loop.enabled: 'no' is not true or false"),
        (section({"threshold": "x" * 500}), "..."),
    ],
)  # fmt: skip
def test_every_fault_is_named_with_what_is_allowed(document: Any, fault: str) -> None:
    with pytest.raises(SettingError) as caught:
        check(document)
    message = str(caught.value)
    assert fault in message
    assert message.startswith("detectors.yml")
    assert "\n" not in message and len(message) < 400


def test_an_agent_may_bear_a_detectors_name() -> None:
    assert check({"tool_loop": {"tool_loop": {"threshold": 4}}}).agents == ("tool_loop",)


def test_an_agent_two_letters_from_default_is_an_agent() -> None:
    assert check({"defunct": {}}).agents == ("defunct",)
