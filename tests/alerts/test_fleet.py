"""The test for a rise: exact, true to its error rate over repeated looks, and able to find what matters."""

from __future__ import annotations

import random
from fractions import Fraction
from math import comb

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dunetrace.fleet import (
    LOOKS,
    MIN_RUNS,
    FleetShift,
    Scope,
    Side,
    chance,
    following_look,
    has_risen,
    is_higher,
)
from dunetrace.signals import FailureType

proof = pytest.param(60_000, id="proof", marks=pytest.mark.prove)


@st.composite
def _sides(draw: st.DrawFn) -> tuple[Side, Side]:
    runs = draw(st.tuples(st.integers(1, 60), st.integers(1, 60)))
    return Side(runs[0], draw(st.integers(0, runs[0]))), Side(runs[1], draw(st.integers(0, runs[1])))


@given(_sides())
def test_the_chance_is_that_of_fishers_exact_test(sides: tuple[Side, Side]) -> None:
    now, before = sides
    total, affected = now.runs + before.runs, now.affected + before.affected
    ways = sum(
        comb(affected, k) * comb(total - affected, now.runs - k)
        for k in range(now.affected, min(now.runs, affected) + 1)
        if now.runs - k <= total - affected
    )
    assert chance(now, before) == pytest.approx(float(Fraction(ways, comb(total, now.runs))), rel=1e-9)


def test_the_chance_among_many_runs_is_a_number_and_soon_there() -> None:
    assert chance(Side(10_240, 0), Side(1_000_000, 0)) == 1.0
    assert chance(Side(10_240, 1_000), Side(1_000_000, 100_000)) == pytest.approx(0.78, abs=0.02)
    assert chance(Side(10_240, 4_000), Side(1_000_000, 100_000)) < 1e-200


def test_looks_come_at_doubling_counts_and_end() -> None:
    looks, at = [], following_look(0)
    while at is not None:
        looks.append(at)
        at = following_look(at)
    assert looks == [MIN_RUNS * 2**n for n in range(LOOKS)]
    assert [following_look(runs) for runs in (19, 20, 39, 40, 85, 10_239, 10_240)] == [
        20,
        40,
        40,
        80,
        160,
        10_240,
        None,
    ]


@pytest.mark.parametrize("fleets", [1_500, proof])
@pytest.mark.parametrize("rate", [0.04, 0.3])
def test_a_version_that_changed_nothing_is_told_of_no_more_often_than_stated(fleets: int, rate: float) -> None:
    # Also without the smallest difference, which by itself keeps most chance findings away.
    stated = 0.1 if fleets < 10_000 else 0.01
    rng = random.Random(f"{rate}")
    told = by_chance = 0
    for _ in range(fleets):
        before = _runs(rng, rate, rng.choice((20, 60, 250)))
        looks = list(_looks(rng, rate, before_last=320))
        told += any(has_risen(now, before, Scope.VERSION, stated) for now in looks)
        by_chance += any(chance(now, before) <= stated / LOOKS for now in looks)
    assert told <= by_chance <= stated * fleets + 4 * (stated * fleets) ** 0.5


@pytest.mark.parametrize("fleets", [300, pytest.param(5_000, id="proof", marks=pytest.mark.prove)])
def test_thirty_one_per_cent_instead_of_four_are_found_within_eighty_runs(fleets: int) -> None:
    rng = random.Random(31)
    found = 0
    for _ in range(fleets):
        before = _runs(rng, 0.04, 200)
        looks = _looks(rng, 0.31, before_last=80)
        found += any(has_risen(now, before, Scope.VERSION, 0.001) for now in looks)
    assert found / fleets >= 0.95


def test_few_runs_on_either_side_say_nothing() -> None:
    assert has_risen(Side(20, 20), Side(20, 0), Scope.VERSION, 0.001)
    assert not has_risen(Side(19, 19), Side(1_000, 0), Scope.VERSION, 0.001)
    assert not has_risen(Side(1_000, 1_000), Side(19, 0), Scope.VERSION, 0.001)


def test_a_small_difference_is_not_told_however_sure_it_is() -> None:
    assert not has_risen(Side(10_000, 500), Side(100_000, 500), Scope.VERSION, 0.001)  # 5 % after 0.5 %: 4.5 points
    assert not has_risen(Side(10_000, 7_900), Side(100_000, 40_000), Scope.VERSION, 0.001)  # not doubled
    assert has_risen(Side(10_000, 600), Side(100_000, 500), Scope.VERSION, 0.001)


def test_an_hour_must_be_surer_than_one_look_at_a_version() -> None:
    now, before = Side(40, 9), Side(500, 20)
    assert has_risen(now, before, Scope.VERSION, 0.001)
    assert not has_risen(now, before, Scope.HOUR, 0.001)
    assert has_risen(Side(100, 31), before, Scope.HOUR, 0.001)


def test_none_before_and_none_now_is_no_rise() -> None:
    assert not is_higher(Side(100, 0), Side(100, 0))
    assert not is_higher(Side(0, 0), Side(0, 0))


def test_its_words() -> None:
    shift = FleetShift(
        Scope.VERSION, "8c1f2a3b", FailureType.REASONING_STALL, 1_795_348_800.0, Side(80, 25), Side(200, 8)
    )
    assert shift.title() == "Since version 8c1f2a3b: REASONING_STALL in 31 % of runs, was 4 %"
    assert shift.counts() == "25 of 80 runs show it; 8 of 200 runs did in the 7 days before"
    hour = shift._replace(scope=Scope.HOUR, subject="2026-11-22T12:00Z", before=Side(2_000, 8))
    assert hour.title() == "In the hour from 2026-11-22 12:00 UTC: REASONING_STALL in 31 % of runs, was under 1 %"
    deploy = shift._replace(scope=Scope.DEPLOY, subject="v2\n`x`", before=Side(200, 0))
    assert deploy.title() == "Since the deploy of v2 'x': REASONING_STALL in 31 % of runs, was 0 %"


def _looks(rng: random.Random, rate: float, before_last: int) -> list[Side]:
    """What a version with this rate shows at each look up to `before_last` runs."""
    looks, side = [], Side(0, 0)
    while (at := following_look(side.runs)) is not None and at <= before_last:
        more = _runs(rng, rate, at - side.runs)
        side = Side(at, side.affected + more.affected)
        looks.append(side)
    return looks


def _runs(rng: random.Random, rate: float, runs: int) -> Side:
    draw = rng.random
    return Side(runs, sum(draw() < rate for _ in range(runs)))
