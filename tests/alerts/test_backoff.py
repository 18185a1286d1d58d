"""The one schedule: bounds, growth, and no overflow."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from dunetrace.backoff import delay_s


@given(attempt=st.integers(-5, 10**9), seed=st.integers(0, 99))
def test_it_stays_between_half_and_all_of_the_doubled_wait(attempt: int, seed: int) -> None:
    waited = delay_s(attempt, base_s=0.5, cap_s=30.0, rng=random.Random(seed))
    full = min(30.0, 0.5 * 2 ** (min(max(attempt, 1), 60) - 1))
    assert full / 2 <= waited <= full


def test_it_doubles_up_to_its_cap() -> None:
    class Most(random.Random):
        def uniform(self, a: float, b: float) -> float:
            return b

    waits = [delay_s(attempt, base_s=0.5, cap_s=30.0, rng=Most()) for attempt in range(1, 9)]
    assert waits == [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0]


def test_two_that_fail_together_do_not_come_back_together() -> None:
    rng = random.Random(1)
    assert len({delay_s(3, base_s=0.5, cap_s=30.0, rng=rng) for _ in range(50)}) == 50
