"""What a detector says of a run: the failure type, how severe, where, and the structural evidence. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class FailureType(StrEnum):
    """The fifteen failures that show in a run's structure."""

    TOOL_LOOP = "TOOL_LOOP"
    TOOL_THRASHING = "TOOL_THRASHING"
    TOOL_AVOIDANCE = "TOOL_AVOIDANCE"
    GOAL_ABANDONMENT = "GOAL_ABANDONMENT"
    PROMPT_INJECTION_SIGNAL = "PROMPT_INJECTION_SIGNAL"
    RAG_EMPTY_RETRIEVAL = "RAG_EMPTY_RETRIEVAL"
    LLM_TRUNCATION_LOOP = "LLM_TRUNCATION_LOOP"
    CONTEXT_BLOAT = "CONTEXT_BLOAT"
    SLOW_STEP = "SLOW_STEP"
    RETRY_STORM = "RETRY_STORM"
    EMPTY_LLM_RESPONSE = "EMPTY_LLM_RESPONSE"
    STEP_COUNT_INFLATION = "STEP_COUNT_INFLATION"
    CASCADING_TOOL_FAILURE = "CASCADING_TOOL_FAILURE"
    FIRST_STEP_FAILURE = "FIRST_STEP_FAILURE"
    REASONING_STALL = "REASONING_STALL"


class Severity(StrEnum):
    LOW = "LOW"
    MEDIUM = "MEDIUM"
    HIGH = "HIGH"
    CRITICAL = "CRITICAL"

    @property
    def rank(self) -> int:
        """0 for LOW up to 3 for CRITICAL; a stored signal's severity only ever rises."""
        return _RANKS[self]


_DIGEST_SUFFIXES = ("_hash", "_hashes")
_RANKS = {severity: rank for rank, severity in enumerate(Severity)}


@dataclass(frozen=True, slots=True)
class Finding:
    """What one detector found in one run.

    step_index is the wire's number of the event it points at; confidence is 0.5..0.99 with two decimals;
    evidence holds counts, indices, ratios and hashes, never content.
    """

    severity: Severity
    confidence: float
    step_index: int
    evidence: dict[str, Any]


@dataclass(frozen=True, slots=True)
class FailureSignal:
    """A finding tied to its run: what is stored, explained and told."""

    failure_type: FailureType
    severity: Severity
    run_id: str
    agent_id: str
    agent_version: str
    step_index: int
    confidence: float
    evidence: dict[str, Any] = field(default_factory=dict)
    shadow: bool = False


def without_digests(value: Any) -> Any:
    """`value` with every key that holds a digest left out, at any depth: no digest leaves the server."""
    if isinstance(value, dict):
        return {key: without_digests(item) for key, item in value.items() if not key.endswith(_DIGEST_SUFFIXES)}
    if isinstance(value, list | tuple):
        return [without_digests(item) for item in value]
    return value
