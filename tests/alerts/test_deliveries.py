"""The schedule of attempts, rounds and probes, as a pure function: what holds for any receiver."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dunetrace.deliveries import (
    ATTEMPTS_A_ROUND,
    LIFETIME_S,
    RETRY_AFTER_CAP_S,
    ROUND_WAITS_S,
    Hold,
    Kind,
    Outcome,
    Standing,
    State,
    Subscription,
    Verdict,
    after,
    delivery_id,
    outcome_of,
    retry_after_s,
    thread_id,
)
from dunetrace.signals import Severity

FAILED = Outcome(Verdict.FAILED, error="ConnectError")
HOUR_S = 3600.0

outcomes = st.one_of(
    st.integers(100, 599).flatmap(
        lambda status: st.floats(0, RETRY_AFTER_CAP_S).map(lambda asked_s: outcome_of(status, asked_s))
    ),
    st.sampled_from(["ConnectError", "ReadTimeout", "TooSlowError"]).map(
        lambda name: Outcome(Verdict.FAILED, error=name)
    ),
    st.just(Outcome(Verdict.REFUSED, error="InternalAddressError")),
)
standings = st.builds(
    Standing,
    round=st.integers(0, 60),
    attempt=st.integers(0, ATTEMPTS_A_ROUND - 1),
    age_s=st.floats(0, LIFETIME_S),
    probe=st.booleans(),
    failed_rounds=st.integers(0, 60),
)


@given(standing=standings, outcome=outcomes, seed=st.integers(0, 99))
def test_any_outcome_anywhere(standing: Standing, outcome: Outcome, seed: int) -> None:
    following = after(standing, outcome, random.Random(seed))
    assert following == after(standing, outcome, random.Random(seed))
    assert 0 <= following.attempt <= ATTEMPTS_A_ROUND
    if outcome.verdict is Verdict.DELIVERED:
        assert following.state is State.DONE and following.closes_circuit and following.hold is None
    elif outcome.verdict is Verdict.REFUSED:
        assert following.state is State.REFUSED
        assert following.closes_circuit == (outcome.status is not None)
    else:
        assert following.state in {State.PENDING, State.EXPIRED}
        assert following.wait_s >= max(outcome.retry_after_s, 0.25)
        assert (following.state is State.EXPIRED) == (standing.age_s + following.wait_s >= LIFETIME_S)
        assert not following.closes_circuit


@given(standing=standings, outcome=outcomes, seed=st.integers(0, 99))
def test_what_failed_in_an_outage_is_due_when_its_next_probe_goes(
    standing: Standing, outcome: Outcome, seed: int
) -> None:
    """So closing the circuit releases all of it, without touching a delivery."""
    standing = standing._replace(probe=True, round=min(standing.round, standing.failed_rounds))
    following = after(standing, outcome, random.Random(seed))
    if following.state is State.PENDING:
        assert following.hold is not None
        assert following.hold.wait_s >= following.wait_s


def test_a_receiver_that_never_answers() -> None:
    standing = Standing(round=0, attempt=0, age_s=0.0)
    rng = random.Random(7)
    waits: list[list[float]] = [[]]
    while True:
        following = after(standing, FAILED, rng)
        if following.state is State.EXPIRED:
            break
        waits[-1].append(following.wait_s)
        if following.attempt == 0:
            waits.append([])
        standing = Standing(following.round, following.attempt, standing.age_s + following.wait_s)
    *rounds, last = waits
    assert len(last) == 2  # the failure that would wait beyond its lifetime ends it
    assert all(0.25 <= first <= 0.5 <= second <= 1.0 for first, second, _ in rounds)
    assert [made[-1] for made in rounds[:5]] == [60.0, 300.0, 1800.0, 7200.0, 7200.0]
    assert {made[-1] for made in rounds[3:]} == {ROUND_WAITS_S[-1]}
    assert LIFETIME_S - 2 * HOUR_S <= standing.age_s < LIFETIME_S


def test_only_a_failed_round_or_a_wish_to_wait_opens_the_circuit() -> None:
    rng = random.Random(7)
    assert after(Standing(0, 0, 0.0), FAILED, rng).hold is None
    assert after(Standing(0, 1, 0.0), FAILED, rng).hold is None
    assert after(Standing(0, 2, 0.0), FAILED, rng).hold == Hold(1, 60.0)
    assert after(Standing(4, 2, 0.0), FAILED, rng).hold == Hold(1, 60.0)
    assert after(Standing(0, 0, 0.0), outcome_of(429, 30.0), rng).hold == Hold(0, 30.0)


def test_a_probes_rounds_space_the_probes_out() -> None:
    rng = random.Random(7)
    held = [after(Standing(0, 2, 0.0, probe=True, failed_rounds=n), FAILED, rng).hold for n in range(1, 6)]
    assert held == [Hold(2, 300.0), Hold(3, 1800.0), Hold(4, 7200.0), Hold(5, 7200.0), Hold(6, 7200.0)]


def test_a_probe_that_never_left_makes_room_for_the_next_at_once() -> None:
    refused = Outcome(Verdict.REFUSED, error="InternalAddressError")
    following = after(Standing(0, 0, 0.0, probe=True, failed_rounds=3), refused, random.Random(7))
    assert following.hold == Hold(3, 0.0) and not following.closes_circuit


@pytest.mark.parametrize(
    ("status", "verdict"),
    [
        (200, Verdict.DELIVERED),
        (204, Verdict.DELIVERED),
        (299, Verdict.DELIVERED),
        (199, Verdict.REFUSED),
        (301, Verdict.REFUSED),
        (304, Verdict.REFUSED),
        (400, Verdict.REFUSED),
        (401, Verdict.REFUSED),
        (404, Verdict.REFUSED),
        (410, Verdict.REFUSED),
        (408, Verdict.FAILED),
        (429, Verdict.FAILED),
        (500, Verdict.FAILED),
        (503, Verdict.FAILED),
        (599, Verdict.FAILED),
    ],
)
def test_statuses(status: int, verdict: Verdict) -> None:
    assert outcome_of(status).verdict is verdict


NOW = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("header", "wait_s"),
    [
        (None, 0.0),
        ("", 0.0),
        ("0", 0.0),
        ("7", 7.0),
        (" 120 ", 120.0),
        ("-5", 0.0),
        ("1.5", 0.0),
        ("soon", 0.0),
        ("٣", 0.0),
        ("9" * 5000, RETRY_AFTER_CAP_S),
        (format_datetime(NOW + timedelta(seconds=90), usegmt=True), 90.0),
        (format_datetime(NOW - timedelta(seconds=90), usegmt=True), 0.0),
        ("Fri, 31 Dec 9999 23:59:59 GMT", RETRY_AFTER_CAP_S),
        ("Fri, 99 Foo 2026 00:00:00 GMT", 0.0),
    ],
)
def test_retry_after(header: str | None, wait_s: float) -> None:
    assert retry_after_s(header, NOW.timestamp()) == wait_s


@given(header=st.text(max_size=80))
def test_retry_after_takes_anything(header: str) -> None:
    assert 0.0 <= retry_after_s(header, NOW.timestamp()) <= RETRY_AFTER_CAP_S


def test_a_delivery_keeps_its_identity_and_shares_it_with_no_other() -> None:
    key = ("default", "run", "TOOL_LOOP", "webhook")
    assert delivery_id(*key) == delivery_id(*key)
    others = [
        delivery_id("defaultrun", "", "TOOL_LOOP", "webhook"),
        delivery_id("other", "run", "TOOL_LOOP", "webhook"),
        delivery_id("default", "run", "TOOL_LOOP", "slack"),
        delivery_id(*key, kind=Kind.UPDATE),
        delivery_id(*key, seq=1),
    ]
    assert len({delivery_id(*key), *others}) == 6


@pytest.mark.parametrize(
    ("agents", "agent_id", "wanted"),
    [
        ((), "anything", True),
        (("checkout",), "checkout", True),
        (("checkout",), "Checkout", False),
        (("checkout",), "checkout-eu", False),
        (("checkout-*", "support"), "support", True),
        (("checkout-*",), "checkout-", True),
        (("[ab]?",), "b1", True),
        (("*",), "a/b\nc", True),
        (("a[", "x"), "a[", True),
    ],
)
def test_agents_are_chosen_by_shell_patterns(agents: tuple[str, ...], agent_id: str, wanted: bool) -> None:
    subscription = Subscription("ops", "slack", Severity.MEDIUM, agents)
    assert subscription.wants(agent_id, Severity.MEDIUM) is wanted
    assert subscription.wants(agent_id, Severity.CRITICAL) is wanted
    assert not subscription.wants(agent_id, Severity.LOW)


def test_a_thread_has_one_identity() -> None:
    threads = {
        thread_id(*of)
        for of in [("c", "a", "TOOL_LOOP"), ("c", "b", "TOOL_LOOP"), ("d", "a", "TOOL_LOOP"), ("c", "a", "SLOW_STEP"),
                   ("ca", "", "TOOL_LOOP"), ("c", "a", "TOOL_LOOP")]
    }  # fmt: skip
    assert len(threads) == 5
