"""What the server has to say of each agent in `agents.py`, whichever client played it."""

from __future__ import annotations

from typing import NamedTuple


class Expected(NamedTuple):
    """What the server has to say of an agent: its one signal, and how often the agent did something in its last run."""

    failure_type: str
    severity: str
    step_count: int
    exit_reason: str = "run.completed"


WELL = ""
EXPECTED = {
    "healthy": Expected(WELL, "", 5),
    "bare": Expected(WELL, "", 5),
    "nearly": Expected(WELL, "", 15),
    "late_error": Expected(WELL, "", 4, "run.errored"),
    "late_healthy": Expected(WELL, "", 3),
    "nested_parent": Expected(WELL, "", 3),
    "tool_loop": Expected("TOOL_LOOP", "HIGH", 7),
    "nested_child": Expected("TOOL_LOOP", "HIGH", 7),
    "late_loop": Expected("TOOL_LOOP", "HIGH", 7),
    "tool_thrashing": Expected("TOOL_THRASHING", "HIGH", 13),
    "tool_avoidance": Expected("TOOL_AVOIDANCE", "MEDIUM", 3),
    "goal_abandonment": Expected("GOAL_ABANDONMENT", "MEDIUM", 8),
    "prompt_injection_signal": Expected("PROMPT_INJECTION_SIGNAL", "CRITICAL", 3),
    "rag_empty_retrieval": Expected("RAG_EMPTY_RETRIEVAL", "MEDIUM", 3),
    "rag_low_score": Expected("RAG_EMPTY_RETRIEVAL", "MEDIUM", 3),
    "llm_truncation_loop": Expected("LLM_TRUNCATION_LOOP", "HIGH", 5),
    "context_bloat": Expected("CONTEXT_BLOAT", "MEDIUM", 7),
    "slow_step": Expected("SLOW_STEP", "MEDIUM", 5),
    "very_slow_step": Expected("SLOW_STEP", "HIGH", 5),
    "slow_llm": Expected("SLOW_STEP", "MEDIUM", 3),
    "retry_storm": Expected("RETRY_STORM", "HIGH", 9),
    "empty_llm_response": Expected("EMPTY_LLM_RESPONSE", "HIGH", 5),
    "step_count_inflation": Expected("STEP_COUNT_INFLATION", "MEDIUM", 13),
    "cascading_tool_failure": Expected("CASCADING_TOOL_FAILURE", "HIGH", 9),
    "first_step_failure": Expected("FIRST_STEP_FAILURE", "MEDIUM", 2, "run.errored"),
    "first_tool_failure": Expected("FIRST_STEP_FAILURE", "MEDIUM", 2),
    "reasoning_stall": Expected("REASONING_STALL", "MEDIUM", 8),
}
# Clients scan the input by rules of their own, and only ours says a length of 0 just when it measured one.
SURER_WITH_SOME = ("PROMPT_INJECTION_SIGNAL", "EMPTY_LLM_RESPONSE")
SILENT = ("goal_abandonment", "late_loop", "late_healthy")
