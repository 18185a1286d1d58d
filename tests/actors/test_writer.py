"""The writer and its promise: what is kept is committed, once, and nothing that Postgres refuses blocks the rest."""

from __future__ import annotations

from typing import Any

import pytest
import trio
import trio.testing

from dunetrace.actors import writer as writer_module
from dunetrace.actors.writer import Writer
from dunetrace.batches import Batch, Loss
from dunetrace.committing import CommitPromise
from dunetrace.errors import QueueFullError, StoreUnavailableError
from dunetrace.store.gateway import Gateway, open_gateway
from dunetrace.store.packing import EventRow, pack
from tests.actors.world import World


def batch(rows: list[EventRow], loss: Loss | None = None) -> Batch:
    """What one request had accepted."""
    (packed,) = pack([row._replace(received_at=rows[0].received_at) for row in rows], "owner", loss)
    return packed


async def test_keep_returns_once_the_rows_are_committed(gateway: Gateway) -> None:
    world = World(gateway)
    async with trio.open_nursery() as nursery:
        await nursery.start(Writer().run, world.ctx)
        await world.ctx.promise.keep(batch(world.clean_run("r")))
        assert (await world.one("SELECT count(*) AS n FROM events"))["n"] == 4
        touch = await world.one("SELECT run_id, n FROM run_touches")
        assert touch == {"run_id": "r", "n": 4}
        world.ctx.stopping.set()


async def test_many_requests_share_a_transaction(gateway: Gateway) -> None:
    world = World(gateway)
    async with trio.open_nursery() as nursery:
        for n in range(20):
            nursery.start_soon(world.ctx.promise.keep, batch(world.clean_run(f"r{n}")))
        await trio.testing.wait_all_tasks_blocked()
        assert await Writer().run_once(world.ctx) == 80
    assert (await world.one("SELECT count(DISTINCT xmin::text) AS n FROM events"))["n"] == 1


async def test_a_resent_batch_is_stored_once_and_touches_nothing(gateway: Gateway) -> None:
    world = World(gateway)
    rows = world.clean_run("r")
    assert await world.append(*rows) == 4
    assert await world.append(*rows) == 0
    assert await world.append(*rows, *world.clean_run("other")) == 4
    assert (await world.one("SELECT count(*) AS n FROM events"))["n"] == 8
    assert (await world.one("SELECT sum(n)::int AS n FROM run_touches"))["n"] == 8


async def test_a_loss_is_counted_once(gateway: Gateway) -> None:
    world = World(gateway)
    row = world.started("r")
    lossy = batch([row], Loss("agent", "key", 7))
    async with trio.open_nursery() as nursery:
        await nursery.start(Writer().run, world.ctx)
        await world.ctx.promise.keep(lossy)
        await world.ctx.promise.keep(lossy)
        world.ctx.stopping.set()
    assert (await world.one("SELECT dropped FROM sender_losses"))["dropped"] == 7


async def test_a_refused_row_is_set_aside_and_the_rest_is_stored(gateway: Gateway) -> None:
    world = World(gateway)
    rows = world.clean_run("r")
    poison = rows[1]._replace(run_id="nul\0", payload={"tool_name": "x"})
    async with trio.open_nursery() as nursery:
        await nursery.start(Writer().run, world.ctx)
        async with trio.open_nursery() as requests:
            requests.start_soon(world.ctx.promise.keep, batch([rows[0], poison, *rows[1:]]))
            requests.start_soon(world.ctx.promise.keep, batch(world.clean_run("other")))
        world.ctx.stopping.set()
    assert (await world.one("SELECT count(*) AS n FROM events"))["n"] == 8
    aside = await world.one("SELECT event_key, error FROM set_aside_events")
    assert aside["event_key"] == poison.event_key


async def test_what_is_in_hand_at_a_crash_is_written_by_the_next_attempt(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(gateway)
    real = writer_module.event_writes.append

    async def commit_then_crash(conn: Any, batches: Any) -> int:
        monkeypatch.setattr(writer_module.event_writes, "append", real)
        await real(conn, batches)
        await conn.execute("COMMIT")  # the worst moment: stored, and nobody told
        raise ZeroDivisionError

    monkeypatch.setattr(writer_module.event_writes, "append", commit_then_crash)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(world.ctx.promise.keep, batch(world.clean_run("r")))
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(ZeroDivisionError):
            await Writer().run_once(world.ctx)
        await Writer().run_once(world.ctx)
    assert (await world.one("SELECT count(*) AS n FROM events"))["n"] == 4
    assert (await world.one("SELECT sum(n)::int AS n FROM run_touches"))["n"] == 4


async def test_an_outage_answers_at_once() -> None:
    async with open_gateway("postgresql://nobody@127.0.0.1:1/none") as away:
        world = World(away)
        async with trio.open_nursery() as nursery:
            await nursery.start(Writer().run, world.ctx)
            with trio.fail_after(2), pytest.raises(StoreUnavailableError):
                await world.ctx.promise.keep(batch(world.clean_run("r")))
            world.ctx.stopping.set()
        assert isinstance(world.ctx.promise, CommitPromise)
        assert world.ctx.promise.queued_events == 0


async def test_a_full_queue_refuses_instead_of_waiting(gateway: Gateway) -> None:
    world = World(gateway)
    promise = CommitPromise(max_events=5)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(promise.keep, batch(world.clean_run("r")))
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(QueueFullError):
            await promise.keep(batch(world.clean_run("r2")))
        (await promise.head()).finish()


async def test_a_stop_drains_the_queue_first(gateway: Gateway) -> None:
    world = World(gateway)
    async with trio.open_nursery() as nursery:
        for n in range(3):
            nursery.start_soon(world.ctx.promise.keep, batch(world.clean_run(f"r{n}")))
        await trio.testing.wait_all_tasks_blocked()
        world.ctx.stopping.set()
        await nursery.start(Writer().run, world.ctx)
    assert (await world.one("SELECT count(*) AS n FROM events"))["n"] == 12
    assert isinstance(world.ctx.promise, CommitPromise)
