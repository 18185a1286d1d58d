"""Hints between processes: two bells on one Postgres."""

from __future__ import annotations

import time
from typing import Any

import trio

from dunetrace.actors.base import wait
from dunetrace.actors.wakeups import Wakeups
from dunetrace.store.gateway import Gateway
from tests.actors.world import World, context


async def _listening(world: World) -> None:
    with trio.fail_after(5):
        while not await world.rows("SELECT 1 FROM pg_stat_activity WHERE query LIKE 'LISTEN%' OFFSET 1"):
            await trio.sleep(0.02)


async def test_a_bell_rung_here_is_heard_there(gateway: Gateway) -> None:
    here, there = context(gateway), context(gateway)
    async with trio.open_nursery() as nursery:
        for ctx in (here, there):
            await nursery.start(Wakeups().run, ctx)
        await _listening(World(gateway))
        ear: Any = there.bell.listen("poller")
        for _ in range(3):
            asked = time.monotonic()
            here.bell.ring("poller")
            await wait(ear, there.stopping, 30)
            assert time.monotonic() - asked < 5
        for ctx in (here, there):
            ctx.stopping.set()
