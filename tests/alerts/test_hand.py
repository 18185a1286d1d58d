"""What an actor has in hand: how much it may claim, what its lanes find, and what it gives back."""

from __future__ import annotations

from typing import Any, cast

import trio

from dunetrace.actors.hand import MOST, QUICK_S, Hand
from dunetrace.store.writes.deliveries import Claim

FEW, LANES = 4, 16


def _claims(count: int) -> list[Claim]:
    return [cast("Claim", f"claim {n}") for n in range(count)]


async def _taken(hand: Hand, count: int) -> list[Any]:
    return [await hand.claims.receive() for _ in range(count)]


async def test_at_first_there_is_room_for_a_few() -> None:
    hand = Hand(FEW, LANES)
    assert hand.room == FEW
    hand.put(_claims(3))
    assert hand.room == 1
    hand.put(_claims(1))
    assert hand.room == 0


async def test_a_lane_makes_room_when_it_is_finished_not_when_it_takes_up_a_claim() -> None:
    hand = Hand(FEW, LANES)
    hand.put(_claims(FEW))
    await _taken(hand, FEW)
    assert hand.room == 0
    hand.finished()
    assert hand.room == 1


async def test_a_receiver_that_takes_its_time_has_all_lanes_and_nothing_in_waiting() -> None:
    hand = Hand(FEW, LANES)
    hand.attempted(QUICK_S * 3, smoothly=True)
    assert hand.room == LANES
    hand.put(_claims(LANES))
    assert hand.room == 0
    hand.attempted(QUICK_S * 3, smoothly=False)
    for _ in range(LANES - FEW):
        hand.finished()
        assert hand.room == 0
    hand.finished()
    assert hand.room == 1


async def test_while_attempts_are_quick_many_are_claimed_at_once() -> None:
    hand = Hand(FEW, LANES)
    hand.attempted(QUICK_S / 2, smoothly=True)
    assert hand.room == MOST
    hand.put(_claims(MOST))
    assert await _taken(hand, 2) == _claims(2)
    for unfinished in range(MOST - 1, 2 * LANES - 1, -1):
        hand.finished()
        assert (hand.room, unfinished) == (0, unfinished)  # a handful would not be worth a claim
    hand.finished()
    assert hand.room == MOST - (2 * LANES - 1)


async def test_an_attempt_that_was_slow_or_failed_ends_that() -> None:
    for took_s, smoothly in ((QUICK_S, True), (0.0, False)):
        hand = Hand(FEW, LANES)
        hand.attempted(0.0, smoothly=True)
        hand.put(_claims(LANES + 2))
        hand.attempted(took_s, smoothly=smoothly)
        assert not hand.is_quick and hand.room == 0


async def test_what_no_lane_took_up_is_taken_back() -> None:
    hand = Hand(FEW, LANES)
    hand.attempted(0.0, smoothly=True)
    hand.put(_claims(20))
    await _taken(hand, LANES)
    assert hand.take_back() == _claims(20)[LANES:]
    assert hand.take_back() == []
    hand.attempted(1.0, smoothly=True)
    assert hand.room == 0
    hand.finished()
    assert hand.room == 1


async def test_the_lanes_end_when_it_is_closed() -> None:
    hand = Hand(FEW, LANES)
    hand.put(_claims(2))
    hand.close()
    with trio.fail_after(1):
        assert [claim async for claim in hand.claims] == _claims(2)
