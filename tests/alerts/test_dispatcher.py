"""From signals to deliveries: who is told, once, and what is too late."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
import trio

from dunetrace.actors.base import hint
from dunetrace.actors.dispatcher import Dispatcher
from dunetrace.deliveries import delivery_id
from dunetrace.errors import StoreUnavailableError
from dunetrace.signals import Severity
from dunetrace.store.gateway import open_gateway
from dunetrace.store.writes.fanout import MOST_SIGNALS, fan_out
from tests.alerts.ground import Ground, dispatcher_for, ground_on, webhook

HOOK = webhook("http://127.0.0.1:1/")
PAGER = webhook("http://127.0.0.1:1/", min_severity=Severity.HIGH)
DAY_S = 86_400.0


async def _waiting(ground: Ground) -> int:
    rows = await ground.rows("SELECT count(*) AS n FROM failure_signals WHERE fanned_out_at IS NULL AND NOT shadow")
    return int(rows[0]["n"])


async def test_each_live_signal_gets_its_delivery_once(ground: Ground) -> None:
    dispatcher = dispatcher_for(HOOK)
    for run_id in ("one", "two"):
        await ground.add_signal(run_id)
    assert (await dispatcher.run_once(ground.ctx)) == (2, frozenset({"webhook"}))
    assert (await dispatcher.run_once(ground.ctx)).taken == 0
    made = await ground.deliveries()
    assert [row["id"] for row in made] == [
        delivery_id("default", run_id, "TOOL_LOOP", "webhook") for run_id in ("one", "two")
    ]
    assert {(row["state"], row["kind"], row["attempt"]) for row in made} == {("pending", "first", 0)}
    alerted = await ground.rows("SELECT DISTINCT alerted FROM failure_signals")
    assert alerted == [{"alerted": False}]


async def test_a_shadow_is_told_to_nobody(ground: Ground) -> None:
    await ground.add_signal(shadow=True)
    assert (await dispatcher_for(HOOK).run_once(ground.ctx)).taken == 0
    assert await ground.deliveries() == []


async def test_a_signal_no_destination_wants_blocks_nothing(ground: Ground) -> None:
    for destinations in ((), (PAGER,)):
        await ground.add_signal(f"quiet {len(destinations)}", severity="MEDIUM")
        assert (await dispatcher_for(*destinations).run_once(ground.ctx)) == (1, frozenset())
    assert await ground.deliveries() == []
    assert await _waiting(ground) == 0


async def test_a_raised_severity_is_a_first_to_one_and_worse_to_the_other(ground: Ground) -> None:
    dispatcher = dispatcher_for(HOOK, replace(PAGER, name="pager"))
    await ground.add_signal(severity="MEDIUM")
    assert (await dispatcher.run_once(ground.ctx)).told == {"webhook"}
    await ground.rows("UPDATE deliveries SET state = 'done'")
    await ground.rows("UPDATE failure_signals SET severity = 'HIGH', fanned_out_at = NULL")
    assert (await dispatcher.run_once(ground.ctx)).told == {"webhook", "pager"}
    assert {(row["destination"], row["kind"], row["seq"], row["state"]) for row in await ground.deliveries()} == {
        ("webhook", "first", 0, "done"),
        ("webhook", "escalated", Severity.HIGH.rank, "pending"),
        ("pager", "first", 0, "pending"),
    }


async def test_a_severity_that_rises_before_anybody_was_told_is_told_once(ground: Ground) -> None:
    dispatcher = dispatcher_for(HOOK)
    await ground.add_signal(severity="MEDIUM")
    await dispatcher.run_once(ground.ctx)
    await ground.rows("UPDATE failure_signals SET severity = 'HIGH', fanned_out_at = NULL")
    assert (await dispatcher.run_once(ground.ctx)).told == frozenset()
    await ground.rows("UPDATE deliveries SET lease_until = now() + interval '10 seconds'")  # it is being attempted
    await ground.rows("UPDATE failure_signals SET severity = 'CRITICAL', fanned_out_at = NULL")
    assert (await dispatcher.run_once(ground.ctx)).told == {"webhook"}
    assert [(row["kind"], row["severity"]) for row in await ground.deliveries()] == [
        ("first", "HIGH"),
        ("escalated", "CRITICAL"),
    ]


async def test_a_destination_gets_nothing_older_than_itself(ground: Ground) -> None:
    await ground.add_signal("before", age_s=1.0)
    dispatcher = dispatcher_for(HOOK)
    await ground.add_signal("after")
    assert (await dispatcher.run_once(ground.ctx)).taken == 2
    assert [row["run_id"] for row in await ground.deliveries()] == ["after"]


async def test_a_destination_counts_from_when_it_was_configured_not_from_its_first_pass(ground: Ground) -> None:
    dispatcher = dispatcher_for(HOOK)
    await trio.sleep(0.05)  # what is found in this time was found with the destination configured
    await ground.add_signal(age_s=0.02)
    assert (await dispatcher.run_once(ground.ctx)).told == {"webhook"}


async def test_a_first_pass_that_had_to_wait_costs_no_alert(ground: Ground) -> None:
    class Busy:
        async def unit(self, fn: Any, *args: Any) -> Any:
            await trio.sleep(0.2)
            return await ground.gateway.unit(fn, *args)

    dispatcher = dispatcher_for(HOOK)
    await ground.add_signal()
    done = await dispatcher.run_once(replace(ground, gateway=cast("Any", Busy())).ctx)
    assert done.told == {"webhook"}


async def test_what_was_found_a_day_ago_is_told_to_nobody(ground: Ground) -> None:
    dispatcher = dispatcher_for(HOOK)
    await dispatcher.run_once(ground.ctx)
    await ground.advance(2 * DAY_S)
    await ground.add_signal("old", age_s=DAY_S + 1)
    await ground.add_signal("young", age_s=DAY_S - 60)
    assert (await dispatcher.run_once(ground.ctx)).taken == 2
    assert [row["run_id"] for row in await ground.deliveries()] == ["young"]
    assert await _waiting(ground) == 0


async def test_a_severity_that_rises_after_a_day_is_still_told(ground: Ground) -> None:
    pager = replace(PAGER, name="pager")
    dispatcher = dispatcher_for(HOOK, pager)
    await ground.add_signal(severity="MEDIUM")
    await dispatcher.run_once(ground.ctx)
    await ground.advance(2 * DAY_S)
    await ground.rows("UPDATE failure_signals SET severity = 'HIGH', fanned_out_at = NULL")
    assert "pager" in (await dispatcher.run_once(ground.ctx)).told


async def test_customers_with_the_same_run_id_are_two(ground: Ground) -> None:
    dispatcher = dispatcher_for(HOOK)
    for customer_id in ("default", "other"):
        await ground.add_signal("run", customer_id=customer_id)
    await dispatcher.run_once(ground.ctx)
    assert len({row["id"] for row in await ground.deliveries()}) == 2


async def test_more_than_a_pass_holds(ground: Ground) -> None:
    dispatcher = dispatcher_for(HOOK)
    await ground.rows(
        """
        INSERT INTO failure_signals (failure_type, severity, run_id, agent_id, agent_version, step_index, confidence,
                                     evidence, shadow)
        SELECT 'TOOL_LOOP', 'HIGH', 'run ' || n, 'agent', 'v', 1, 0.9, '{}', FALSE FROM generate_series(1, $1) AS n
        """,
        MOST_SIGNALS + 1,
    )
    first, second = await dispatcher.run_once(ground.ctx), await dispatcher.run_once(ground.ctx)
    assert (first.taken, first.more, second.taken, second.more) == (MOST_SIGNALS, True, 1, False)
    assert len(await ground.deliveries()) == MOST_SIGNALS + 1


async def test_dispatchers_side_by_side_share_the_work(ground: Ground) -> None:
    dispatchers = [dispatcher_for(HOOK) for _ in range(4)]
    for n in range(40):
        await ground.add_signal(f"run {n}")
    taken: list[int] = []

    async def drain(dispatcher: Dispatcher) -> None:
        while done := (await dispatcher.run_once(ground.ctx)).taken:
            taken.append(done)

    async with trio.open_nursery() as nursery:
        for dispatcher in dispatchers:
            nursery.start_soon(drain, dispatcher)
    assert sum(taken) == 40
    assert len(await ground.deliveries()) == 40


async def test_a_pass_that_fails_leaves_nothing_behind(ground: Ground) -> None:
    await dispatcher_for(HOOK).run_once(ground.ctx)
    await ground.add_signal()
    with pytest.raises(LookupError):
        await ground.gateway.unit(_fan_out_then_fail)
    assert await ground.deliveries() == []
    assert await _waiting(ground) == 1


async def _fan_out_then_fail(conn: Any) -> None:
    assert (await fan_out(conn, [HOOK.subscription], 0.0)).taken == 1
    raise LookupError


async def test_a_hint_is_enough(ground: Ground) -> None:
    """With an interval of an hour the loop works on hints alone, and hints the destination on."""
    wake_in, wake = trio.open_memory_channel[None](1)
    hint_in, hinted = trio.open_memory_channel[None](1)
    dispatcher = Dispatcher([HOOK], wake, {"webhook": hint_in})
    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            await nursery.start(dispatcher.run, ground.ctx)
            for n in range(3):
                await ground.add_signal(f"run {n}")
                hint(wake_in)
                await hinted.receive()
                assert len(await ground.deliveries()) == n + 1
            ground.stopping.set()


async def test_it_outlasts_an_outage(tmp_path: Path) -> None:
    async with open_gateway("postgresql://nobody@127.0.0.1:1/none") as away:
        ground = ground_on(away, tmp_path)
        dispatcher = dispatcher_for(HOOK)
        with pytest.raises(StoreUnavailableError):
            await dispatcher.run_once(ground.ctx)
        async with trio.open_nursery() as nursery:
            await nursery.start(dispatcher.run, ground.ctx)
            ground.stopping.set()
