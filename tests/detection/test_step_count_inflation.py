from __future__ import annotations

import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dunetrace.detectors.step_count_inflation import DETECTOR, StepCountInflationThresholds, percentile_75
from dunetrace.runs import MAX_STEPS
from dunetrace.signals import Finding
from tests.detection.building import Script, folded
from tests.detection.cases import BASELINE
from tests.detection.generated import unhurried


def found(steps: int, baseline: tuple[int, ...], *, responses_advance: bool = False) -> Finding | None:
    script = Script(responses_advance=responses_advance).started()
    for i in range(steps):
        script.tool(f"tool-{i}", i)
    run = folded(script)
    run.baseline_steps = baseline
    run.total_tokens = 2_000
    return DETECTOR.detect(run, StepCountInflationThresholds())


def test_evidence_says_where_how_much_and_what_it_cost() -> None:
    finding = found(20, BASELINE)
    assert finding is not None
    assert finding.evidence == {
        "step_count": 20, "baseline_p75": 8.0, "baseline_runs": 10, "ratio": 2.5, "inflation_factor": 2.0,
        "first_step": 17, "wasted_calls": 12, "wasted_ms": 2_400, "wasted_tokens": 1_200,
    }  # fmt: skip
    assert (finding.step_index, finding.confidence) == (17, 0.68)


def test_both_step_layouts_count_the_same_and_point_at_their_own_event() -> None:
    old = found(20, BASELINE, responses_advance=True)
    assert old is not None
    assert (old.evidence["step_count"], old.step_index) == (20, 33)


def test_too_few_earlier_runs_say_nothing() -> None:
    assert found(100, BASELINE[:9]) is None
    assert found(100, ()) is None
    assert found(100, (0,) * 10) is None, "a baseline of runs without a step"


def test_a_step_no_longer_kept_is_pointed_at_as_near_as_can_be() -> None:
    finding = found(MAX_STEPS + 500, BASELINE)
    assert finding is not None
    assert finding.step_index == 501


@unhurried
@given(st.lists(st.integers(0, 10_000), min_size=2, max_size=50))
def test_the_percentile_is_the_linear_one(values: list[int]) -> None:
    assert percentile_75(tuple(values)) == pytest.approx(statistics.quantiles(values, n=4, method="inclusive")[2])
