"""What kind of fix a failure takes, and whether a fix worked, judged by the agent's runs since. Pure.

Called by the API's routes with counts the store read.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal, NamedTuple

from dunetrace.signals import FailureType

Verdict = Literal["verified", "likely_fixed", "still_occurring", "insufficient_data"]
FixType = Literal["prompt_addition", "code_change", "no_auto_apply"]

RUNS_TO_VERIFY: Final = 10
RUNS_TO_TELL: Final = 5
CHANCE: Final = 0.05  # that the failure only happened not to recur; at most this for `verified`

_FIX_TYPES: Final[Mapping[str, FixType]] = {
    FailureType.CONTEXT_BLOAT: "code_change",
    FailureType.RAG_EMPTY_RETRIEVAL: "code_change",
    FailureType.SLOW_STEP: "code_change",
    FailureType.CASCADING_TOOL_FAILURE: "code_change",
    FailureType.LLM_TRUNCATION_LOOP: "code_change",
    FailureType.FIRST_STEP_FAILURE: "code_change",
    FailureType.PROMPT_INJECTION_SIGNAL: "no_auto_apply",
}


class Recurrence(NamedTuple):
    """The agent's runs before and after a fix, and how many of each show the failure."""

    runs_before: int
    recurrence_before: int
    runs_after: int
    recurrence_after: int


def fix_type(failure_type: str) -> FixType:
    """What a fix of this failure is; a type that only a later release knows takes a prompt addition too."""
    return _FIX_TYPES.get(failure_type, "prompt_addition")


def verdict(seen: Recurrence) -> Verdict:
    """Any recurrence says no; otherwise it takes enough runs, and for `verified` a failure that was frequent enough."""
    if seen.recurrence_after:
        return "still_occurring"
    if seen.runs_after < RUNS_TO_TELL:
        return "insufficient_data"
    if seen.runs_after >= RUNS_TO_VERIFY and _by_chance(seen) <= CHANCE:
        return "verified"
    return "likely_fixed"


def _by_chance(seen: Recurrence) -> float:
    """How likely as many runs without the failure would be if nothing had changed."""
    rate = seen.recurrence_before / seen.runs_before if seen.runs_before else 0.0
    return float((1 - rate) ** seen.runs_after)
