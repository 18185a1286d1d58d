"""What kind of fix a failure takes, and when it counts as one that worked."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dunetrace.signals import FailureType
from dunetrace.verdicts import Recurrence, fix_type, verdict

# (runs before, recurrences before, runs after, recurrences after) → verdict
EDGES = {
    (10, 5, 0, 0): "insufficient_data",
    (10, 5, 4, 0): "insufficient_data",
    (10, 5, 5, 0): "likely_fixed",
    (10, 5, 9, 0): "likely_fixed",
    (10, 5, 10, 0): "verified",  # 0.5^10
    (100, 25, 10, 0): "likely_fixed",  # 0.75^10 = 0.056
    (100, 26, 10, 0): "verified",  # 0.74^10 = 0.049
    (100, 25, 11, 0): "verified",  # 0.75^11 = 0.042
    (100, 1, 298, 0): "likely_fixed",  # 0.99^298 = 0.0500…
    (100, 1, 299, 0): "verified",
    (0, 0, 1000, 0): "likely_fixed",  # nothing is known of before
    (10, 10, 10, 0): "verified",
    (10, 10, 1, 1): "still_occurring",
    (10, 5, 1000, 1): "still_occurring",
}


@pytest.mark.parametrize(("seen", "expected"), EDGES.items(), ids=str)
def test_the_verdict_at_its_edges(seen: tuple[int, int, int, int], expected: str) -> None:
    assert verdict(Recurrence(*seen)) == expected


counts = st.integers(0, 2000)


@given(counts, counts, counts)
def test_more_clean_runs_never_make_it_worse(before: int, affected: int, after: int) -> None:
    order = ("insufficient_data", "likely_fixed", "verified")
    affected = min(affected, before)
    now, later = (verdict(Recurrence(before, affected, runs, 0)) for runs in (after, after + 1))
    assert order.index(later) >= order.index(now)


def test_each_failure_has_its_kind_of_fix() -> None:
    kinds = {failure: fix_type(failure) for failure in FailureType}
    assert {failure for failure, kind in kinds.items() if kind == "code_change"} == {
        "CONTEXT_BLOAT", "RAG_EMPTY_RETRIEVAL", "SLOW_STEP", "CASCADING_TOOL_FAILURE", "LLM_TRUNCATION_LOOP",
        "FIRST_STEP_FAILURE",
    }  # fmt: skip
    assert {failure for failure, kind in kinds.items() if kind == "no_auto_apply"} == {"PROMPT_INJECTION_SIGNAL"}
    assert fix_type("TOOL_LOOP") == fix_type("NOT_YET_KNOWN") == "prompt_addition"
