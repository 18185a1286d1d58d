"""The price table: what it takes, which entry fits a model, and what a failure cost."""

from __future__ import annotations

from typing import Any

import pytest

from dunetrace.errors import SettingError
from dunetrace.prices import NO_PRICES, Cost, Price, check, cost_of

TABLE = {
    "models": {
        "gpt-4o": {"input": 2.50, "cached_input": 1.25, "output": 10.00},
        "gpt-*": {"input": 1, "output": 4},
        "gpt-4*": {"input": 2, "output": 8},
        "a[1]?": {"input": 3, "output": 3},
    }
}


def test_the_most_specific_entry_wins_whatever_the_order() -> None:
    prices = check(TABLE)
    assert prices.of("gpt-4o") == Price(2.50, 1.25, 10.00)
    assert prices.of("gpt-4o-mini") == Price(2, 2, 8)
    assert prices.of("gpt-5") == Price(1, 1, 4)
    assert prices.of("claude") is None
    assert prices.of("a[1]?") == Price(3, 3, 3)
    assert prices.of("a1x") is None


def test_cached_tokens_cost_what_cached_tokens_cost() -> None:
    prices = check(TABLE)
    assert prices.cost_usd({"gpt-4o": [1_000_000, 0, 0]}) == pytest.approx(2.50)
    assert prices.cost_usd({"gpt-4o": [1_000_000, 1_000_000, 0]}) == pytest.approx(1.25)
    assert prices.cost_usd({"gpt-4o": [1_000_000, 400_000, 100_000]}) == pytest.approx(0.6 * 2.5 + 0.4 * 1.25 + 1.0)
    assert prices.cost_usd({"gpt-4o": [1_000_000, 0, 0], "gpt-5": [0, 0, 1_000_000]}) == pytest.approx(6.50)


@pytest.mark.parametrize("mix", [None, {}, {"claude": [1, 0, 1]}, {"gpt-4o": [1, 0, 1], "claude": [1, 0, 1]}])
def test_what_is_not_known_has_no_cost(mix: Any) -> None:
    assert check(TABLE).cost_usd(mix) is None
    assert check(TABLE).wasted_usd(10, mix) is None
    assert NO_PRICES.cost_usd({"gpt-4o": [1, 0, 1]}) is None


def test_wasted_tokens_are_priced_as_the_run_s_own() -> None:
    cost = cost_of({"wasted_tokens": 550_000, "wasted_ms": 48_000}, {"gpt-5": [1_000_000, 0, 100_000]}, check(TABLE))
    assert cost == Cost(550_000, 48_000, pytest.approx(0.70))


@pytest.mark.parametrize("odd", [None, "12", True, -3, float("nan"), float("inf"), [], {}])
def test_odd_evidence_wastes_nothing(odd: object) -> None:
    assert cost_of({"wasted_tokens": odd, "wasted_ms": odd}, None, NO_PRICES) == Cost(0, 0, None)


@pytest.mark.parametrize(
    ("cost", "words"),
    [
        (Cost(12_300, 48_000, 0.114), "Wasted 12,300 tokens and 48 s (about $0.11)"),
        (Cost(1, 0, None), "Wasted 1 token"),
        (Cost(0, 700, 0.0), "Wasted 700 ms"),
        (Cost(100, 0, 0.0001), "Wasted 100 tokens (under $0.01)"),
        (Cost(10**9, 0, 2_500.0), "Wasted 1,000,000,000 tokens (about $2,500.00)"),
        (Cost(0, 0, None), None),
    ],
)
def test_its_words(cost: Cost, words: str | None) -> None:
    assert cost.words() == words


def test_an_empty_file_knows_no_price() -> None:
    assert not check(None)
    assert not check({"models": {}})
    assert check(TABLE)


@pytest.mark.parametrize(
    ("document", "fault"),
    [
        ([], "must be a mapping of models"),
        ({"model": {}}, "must be a mapping of models"),
        ({"models": []}, "must be a mapping of models"),
        ({"models": {1: {}}}, "models: 1 is not a model's name; write it in quotes"),
        ({"models": {"m": 2}}, "'m': must be a mapping of input, cached_input, output, and is 2"),
        ({"models": {"m": {"input": 1}}}, "'m': output is missing"),
        ({"models": {"m": {"input": 1, "output": 1, "in": 1}}}, "'m': unknown key 'in'; known: input, cached_input"),
        ({"models": {"m": {"input": -1, "output": 1}}}, "'m': input: -1 is not a number; allowed is USD a million"),
        ({"models": {"m": {"input": "1", "output": 1}}}, "'m': input: '1' is not a number"),
        ({"models": {"m": {"input": True, "output": 1}}}, "'m': input: True is not a number"),
        ({"models": {"m": {"input": float("nan"), "output": 1}}}, "'m': input: nan is not a number"),
        ({"models": {"m\n": {"input": 1, "output": [1] * 99}}}, "'m\\n': output: [1, 1"),
    ],
)
def test_a_fault_is_one_line_that_names_it(document: Any, fault: str) -> None:
    with pytest.raises(SettingError) as raised:
        check(document)
    message = str(raised.value)
    assert message.startswith("prices.yml: ")
    assert fault in message
    assert "\n" not in message
    assert len(message) < 250
