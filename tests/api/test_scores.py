"""The health score: what costs points, how many, and what does not."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from dunetrace.scores import BASELINE_RUNS, POINTS, JudgedRun, health_score

GOOD = JudgedRun(errored=False, failure_types=frozenset(), total_tokens=100, wasted_tokens=0, duration_s=1.0)


def scored(*runs: JudgedRun) -> dict[str, float]:
    return {name: component.score for name, component in health_score(runs).components.items()}


def failing(*types: str, **others: Any) -> JudgedRun:
    return GOOD._replace(failure_types=frozenset(types), **others)


def test_healthy_runs_have_all_the_points() -> None:
    found = health_score([GOOD] * BASELINE_RUNS)
    assert (found.score, found.sample_runs, found.baseline_ready) == (100, 10, True)
    assert {name: component.max for name, component in found.components.items()} == POINTS
    assert {component.value for component in found.components.values()} == {0.0}
    assert not health_score([GOOD] * (BASELINE_RUNS - 1)).baseline_ready


def test_without_runs_there_is_no_score() -> None:
    found = health_score([])
    assert (found.score, found.sample_runs, found.baseline_ready) == (None, 0, False)
    assert {component.value for component in found.components.values()} == {None}


def test_each_component_pays_for_its_own_share() -> None:
    assert scored(GOOD, failing("RAG_EMPTY_RETRIEVAL")) == {
        "failures": 20.0, "loops": 25.0, "tokens": 20.0, "latency": 15.0,
    }  # fmt: skip
    assert scored(GOOD, GOOD._replace(errored=True))["failures"] == 20.0
    assert scored(GOOD, failing("TOOL_LOOP", "RETRY_STORM"))["loops"] == 12.5
    assert scored(GOOD, GOOD._replace(wasted_tokens=50))["tokens"] == 15.0
    assert scored(GOOD._replace(total_tokens=0))["tokens"] == 20.0
    assert scored(GOOD, failing("SLOW_STEP"))["latency"] == 7.5


def test_a_long_run_is_slow_once_it_is_known_what_is_usual() -> None:
    long = GOOD._replace(duration_s=2.1)
    assert scored(*[GOOD] * 8, long)["latency"] == 15.0
    assert scored(*[GOOD] * 9, long)["latency"] == 13.5
    assert scored(*[GOOD] * 9, GOOD._replace(duration_s=2.0))["latency"] == 15.0
    assert scored(*[GOOD] * 9, GOOD._replace(duration_s=None), long)["latency"] == 13.6


runs = st.builds(
    JudgedRun,
    st.booleans(),
    st.frozensets(st.sampled_from(["TOOL_LOOP", "SLOW_STEP", "OTHER"])),
    st.integers(0, 10**12),
    st.integers(0, 10**13),
    st.none() | st.floats(-10, 1e9),
)


@given(st.lists(runs, min_size=1, max_size=50))
def test_it_stays_within_bounds_and_is_the_sum(sample: list[JudgedRun]) -> None:
    found = health_score(sample)
    assert found.score is not None
    assert 0 <= found.score <= 100
    assert abs(found.score - sum(component.score for component in found.components.values())) <= 0.5
    for component in found.components.values():
        assert 0 <= component.score <= component.max
        assert component.value is None or 0 <= component.value <= 1
