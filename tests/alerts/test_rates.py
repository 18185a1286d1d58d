"""The rates an actor keeps: fresh when counting is cheap, kept for a while when it is dear."""

from __future__ import annotations

from typing import Any

import trio
from trio.testing import MockClock

from dunetrace.actors.rates import DEAR_S, KEPT_FOR, MOST_KEPT, USED_FOR_S, Rates
from dunetrace.explain import RateContext
from dunetrace.signals import FailureType
from dunetrace.store.reads.rate import RateKey


class SlowStore:
    """Counts up instead of counting rows, and takes `cost_s` for it by trio's clock."""

    def __init__(self, cost_s: float) -> None:
        self.cost_s = cost_s
        self.asked = 0

    async def unit(self, _fn: Any, keys: list[RateKey]) -> list[RateContext]:
        self.asked += 1
        answer = RateContext(self.asked, 1, 1 / self.asked, is_systemic=False)
        await trio.sleep(self.cost_s)
        return [answer] * len(keys)


def _key(agent_id: str = "agent", customer_id: str = "default") -> RateKey:
    return RateKey(customer_id, agent_id, FailureType.TOOL_LOOP)


async def test_a_cheap_rate_is_counted_anew(autojump_clock: MockClock) -> None:
    store: Any = SlowStore(cost_s=DEAR_S / 2)
    rates = Rates()
    first = await rates.of(store, [_key()])
    assert await rates.of(store, [_key()]) == first
    await trio.sleep(KEPT_FOR * store.cost_s)
    assert await rates.of(store, [_key()]) != first


async def test_a_dear_rate_is_kept_in_proportion_to_its_cost_and_counted_anew_beside_the_alert(
    autojump_clock: MockClock,
) -> None:
    store: Any = SlowStore(cost_s=0.5)
    rates = Rates()
    stopping = trio.Event()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(rates.keep_fresh, store, stopping)
        first = await rates.of(store, [_key()])
        await trio.sleep(0.5 * KEPT_FOR)
        asked_at = trio.current_time()
        assert await rates.of(store, [_key()]) == first
        assert trio.current_time() == asked_at  # nobody waited
        await trio.sleep(0.6)
        second = await rates.of(store, [_key()])
        assert second != first and store.asked == 2
        stopping.set()
    await trio.sleep(0.5 * KEPT_FOR + USED_FOR_S)
    assert await rates.of(store, [_key()]) != second


async def test_agents_and_customers_are_apart(autojump_clock: MockClock) -> None:
    store: Any = SlowStore(cost_s=0.5)
    rates = Rates()
    for key in (_key("a"), _key("b"), _key("a", customer_id="other")):
        await rates.of(store, [key])
    assert store.asked == 3


async def test_what_is_missing_is_counted_in_one_go(autojump_clock: MockClock) -> None:
    store: Any = SlowStore(cost_s=0.5)
    rates = Rates()
    (first,) = await rates.of(store, [_key("a")])
    both = await rates.of(store, [_key("b"), _key("a"), _key("b"), _key("c")])
    assert store.asked == 2
    assert both[1] == first and both[0] == both[2] == both[3] != first


async def test_it_does_not_grow_without_bound(autojump_clock: MockClock) -> None:
    store: Any = SlowStore(cost_s=0.1)
    rates = Rates()
    for n in range(MOST_KEPT + 1):
        await rates.of(store, [_key(f"agent {n}")])
    assert len(rates._counted) == 1
