"""Runs as they come in, judged by the poller: the fleet's watch finds what rose, and each run keeps what it spent."""

from __future__ import annotations

from dunetrace.actors.fleet import Fleet
from dunetrace.alerts import Destination
from dunetrace.signals import FailureType
from dunetrace.store.gateway import Gateway
from dunetrace.store.packing import EventRow
from tests.actors.world import World

HOOK = Destination("webhook", "webhook", "http://127.0.0.1:1/")


def _of(version: str, rows: list[EventRow]) -> list[EventRow]:
    return [row._replace(agent_version=version) for row in rows]


async def test_a_version_whose_runs_loop_is_found_among_real_runs(gateway: Gateway) -> None:
    world = World(gateway)
    watching = Fleet([HOOK], {})
    for n in range(40):
        await world.append(*_of("old", world.clean_run(f"old-{n}")))
    await world.judge()
    await world.execute("UPDATE runs SET processed_at = processed_at - interval '1 day'")
    await world.execute("UPDATE agent_hours SET hour = hour - interval '1 day'")
    assert await watching.run_once(world.ctx) == []
    for n in range(24):
        run = world.looping_run(f"new-{n}") if n % 2 else world.clean_run(f"new-{n}")
        await world.append(*_of("new", run))
    await world.judge()
    assert await watching.run_once(world.ctx) == [FailureType.TOOL_LOOP]
    found = await world.one("SELECT * FROM fleet_signals")
    assert (found["subject"], found["runs"], found["affected"], found["runs_before"]) == ("new", 24, 12, 40)
    delivery = await world.one("SELECT * FROM deliveries WHERE kind = 'fleet'")
    assert (delivery["run_id"], delivery["destination"]) == (found["run_id"], "webhook")
    assert await watching.run_once(world.ctx) == []


async def test_a_run_keeps_its_tokens_by_model_while_it_goes_on_and_after(gateway: Gateway) -> None:
    world = World(gateway)
    called = {"model": "gpt-4o", "prompt_tokens": 100, "cached_prompt_tokens": 60}
    await world.append(world.started("run"), world.row("run", "llm.called", 1, 1, **called))
    await world.judge()
    mix = "SELECT token_mix FROM runs WHERE run_id = 'run'"
    assert (await world.one(mix))["token_mix"] == {"gpt-4o": [100, 60, 0]}
    await world.append(world.row("run", "llm.responded", 2, 1, completion_tokens=7), world.completed("run", 3))
    await world.append(*world.clean_run("no tokens"))
    await world.judge()
    assert (await world.one(mix))["token_mix"] == {"gpt-4o": [100, 60, 7]}
    assert (await world.one("SELECT token_mix FROM runs WHERE run_id = 'no tokens'"))["token_mix"] is None
