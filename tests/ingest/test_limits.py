from __future__ import annotations

import pytest

from dunetrace.serving.answers import RefusedError
from dunetrace.serving.limits import MAX_KEYS_WATCHED, BodyBudget, RateLimit


def _refusal(limit: RateLimit, key: str, now_s: float) -> RefusedError:
    with pytest.raises(RefusedError) as refused:
        limit.take(key, now_s)
    assert refused.value.status == 429
    return refused.value


def test_the_limit_is_a_keys_own() -> None:
    limit = RateLimit(3)
    for _ in range(3):
        limit.take("a", 100.0)
    _refusal(limit, "a", 100.0)
    limit.take("b", 100.0)


def test_a_request_fits_again_when_retry_after_says() -> None:
    limit = RateLimit(3)
    for now_s in (100.0, 110.0, 119.0):
        limit.take("a", now_s)
    wait_s = int(_refusal(limit, "a", 119.0).headers["retry-after"])
    limit.take("a", 119.0 + wait_s)
    _refusal(limit, "a", 119.0 + wait_s)


def test_a_minute_at_the_border_of_two_windows_holds_no_more() -> None:
    limit = RateLimit(10)
    taken = 0
    for tenth in range(1150, 1750):  # seconds 115 to 175, one try every tenth
        try:
            limit.take("a", tenth / 10)
        except RefusedError as refused:
            assert int(refused.headers["retry-after"]) >= 1
        else:
            taken += 1
    assert 10 <= taken <= 20
    limit.take("a", 400.0)


def test_zero_is_no_limit() -> None:
    limit = RateLimit(0)
    for _ in range(100):
        limit.take("a", 1.0)


def test_what_is_remembered_is_bounded() -> None:
    limit = RateLimit(1)
    for number in range(MAX_KEYS_WATCHED + 1):
        limit.take(str(number), 1.0)
    limit.take("0", 1.0)  # forgotten first
    _refusal(limit, str(MAX_KEYS_WATCHED), 1.0)


def test_bodies_share_one_budget_and_give_it_back() -> None:
    budget = BodyBudget(10)
    with budget.lease() as first:
        first.grow(6)
        with pytest.raises(RefusedError) as refused, budget.lease() as second:
            second.grow(4)
            second.grow(1)
        assert refused.value.status == 503
        assert refused.value.headers["retry-after"] == "1"
        assert budget.used_bytes == 6
    assert budget.used_bytes == 0
