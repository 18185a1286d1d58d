"""Turns at decoding: bounded, fair between flows, and not lost by who gives up."""

from __future__ import annotations

import trio
import trio.testing

from dunetrace.serving.turns import Turns


class Line:
    """Takers of turns, and the order in which they were served."""

    def __init__(self, capacity_bytes: int) -> None:
        self.turns = Turns(capacity_bytes)
        self.served: list[str] = []

    async def take(self, name: str, size_bytes: int) -> None:
        await self.turns.take(name[0], size_bytes)
        self.served.append(name)


async def test_there_is_room_for_as_much_as_the_capacity() -> None:
    line = Line(100)
    async with trio.open_nursery() as nursery:
        for name in ("a1", "b1", "c1"):
            await line.take(name, 40) if name != "c1" else nursery.start_soon(line.take, name, 40)
        await trio.testing.wait_all_tasks_blocked()
        assert line.served == ["a1", "b1"]
        line.turns.give_back(40)
        await trio.testing.wait_all_tasks_blocked()
        assert line.served == ["a1", "b1", "c1"]


async def test_a_noisy_flow_does_not_hold_up_a_quiet_one() -> None:
    line = Line(10)
    await line.take("first", 10)
    async with trio.open_nursery() as nursery:
        for n in range(50):
            nursery.start_soon(line.take, f"n{n}", 10)
            await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(line.take, "quiet", 10)
        await trio.testing.wait_all_tasks_blocked()
        for _ in range(3):
            line.turns.give_back(10)
            await trio.testing.wait_all_tasks_blocked()
        assert line.served == ["first", "n0", "quiet", "n1"]
        nursery.cancel_scope.cancel()


async def test_a_body_larger_than_everything_gets_a_turn_alone() -> None:
    line = Line(10)
    await line.take("a", 1)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(line.take, "big", 1000)
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(line.take, "c", 1)
        await trio.testing.wait_all_tasks_blocked()
        assert line.served == ["a"]
        line.turns.give_back(1)
        await trio.testing.wait_all_tasks_blocked()
        assert line.served == ["a", "big"]
        line.turns.give_back(1000)
        await trio.testing.wait_all_tasks_blocked()
        assert line.served == ["a", "big", "c"]


async def test_who_gives_up_leaves_the_line() -> None:
    line = Line(10)
    await line.take("a", 5)
    async with trio.open_nursery() as nursery:
        with trio.CancelScope() as scope:
            nursery.start_soon(line.take, "c", 5)
            scope.cancel()
            await line.take("big", 100)
        await trio.testing.wait_all_tasks_blocked()
        assert line.served == ["a", "c"]
