"""Restart policy, start and stop order, health: with actors that do as they are told."""

from __future__ import annotations

from typing import Any

import pytest
import trio
import trio.testing

from dunetrace import nursery as nursery_module
from dunetrace.actors.base import hint, wait
from dunetrace.errors import StartError
from dunetrace.health import Health
from dunetrace.nursery import Stage, Supervisor
from dunetrace.store.gateway import Gateway
from tests.actors.world import context

pytestmark = pytest.mark.usefixtures("fast_restarts")


@pytest.fixture
def fast_restarts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nursery_module, "RESTART_BASE_S", 0.01)


class Puppet:
    """An actor that writes down when it starts and stops, and crashes when told to."""

    def __init__(self, name: str, story: list[str]) -> None:
        self.name = name
        self.story = story
        self.crash = trio.Event()
        self.fail_starts = 0

    async def run(self, ctx: Any, *, task_status: Any) -> None:
        if self.fail_starts:
            self.fail_starts -= 1
            raise StartError(f"{self.name} cannot start")
        self.story.append(f"start {self.name}")
        task_status.started()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._crash)
            await ctx.stopping.wait()
            nursery.cancel_scope.cancel()
        self.story.append(f"stop {self.name}")

    async def _crash(self) -> None:
        await self.crash.wait()
        self.crash = trio.Event()
        raise ZeroDivisionError


def supervise(gateway: Gateway, *stages: tuple[int, list[Any]]) -> tuple[Supervisor, Health]:
    base = context(gateway)
    health = Health("1", lambda: "ok")

    def lend(stage: Stage) -> Any:
        object.__setattr__(base, "stopping", stage.stopping)
        return nursery_module.Context(**{**base.__dict__, "stopping": stage.stopping})

    return Supervisor([Stage(actors, stops) for stops, actors in stages], lend, health), health


async def test_stages_start_in_order_and_stop_in_theirs(gateway: Gateway) -> None:
    story: list[str] = []
    supervisor, health = supervise(
        gateway, (2, [Puppet("database", story)]), (1, [Puppet("writer", story)]), (0, [Puppet("ingest", story)])
    )
    async with trio.open_nursery() as nursery:
        await nursery.start(supervisor.run)
        assert health.report("ingest")[0] == 200
        supervisor.stop()
    assert story == [
        "start database", "start writer", "start ingest", "stop ingest", "stop writer", "stop database"
    ]  # fmt: skip
    assert {actor.state for actor in health.actors.values()} == {"stopped"}


async def test_a_crash_is_contained_and_shown(gateway: Gateway) -> None:
    story: list[str] = []
    fragile, other = Puppet("poller", story), Puppet("api", story)
    supervisor, health = supervise(gateway, (0, [fragile, other]))
    async with trio.open_nursery() as nursery:
        await nursery.start(supervisor.run)
        for crashes in range(1, 4):
            fragile.crash.set()
            with trio.fail_after(5):
                while story.count("start poller") <= crashes:
                    await trio.sleep(0.005)
        status, body = health.report("api")
        assert (status, body["actors"]["poller"]["restarts"]) == (200, 3)
        assert story.count("start api") == 1
        supervisor.stop()


async def test_a_later_failing_start_is_contained_too(gateway: Gateway) -> None:
    story: list[str] = []
    fragile = Puppet("poller", story)
    supervisor, health = supervise(gateway, (0, [fragile]))
    async with trio.open_nursery() as nursery:
        await nursery.start(supervisor.run)
        fragile.fail_starts = 2
        fragile.crash.set()
        with trio.fail_after(5):
            while health.actors["poller"].restarts < 3 or health.actors["poller"].state != "running":
                await trio.sleep(0.005)
        supervisor.stop()


async def test_a_first_start_that_fails_ends_everything(gateway: Gateway) -> None:
    story: list[str] = []
    broken = Puppet("ingest", story)
    broken.fail_starts = 1
    supervisor, _ = supervise(gateway, (1, [Puppet("writer", story)]), (0, [broken]))
    with pytest.raises(ExceptionGroup) as caught:
        async with trio.open_nursery() as nursery:
            await nursery.start(supervisor.run)
    assert caught.group_contains(StartError, match="ingest cannot start")


async def test_an_actor_that_hangs_at_a_stop_is_cut_off(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nursery_module, "STAGE_LIMIT_S", 0.05)

    class Deaf:
        name = "deaf"

        async def run(self, ctx: Any, *, task_status: Any) -> None:
            task_status.started()
            await trio.sleep_forever()

    supervisor, _ = supervise(gateway, (0, [Deaf()]))
    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            await nursery.start(supervisor.run)
            supervisor.stop()


def test_health_tells_what_a_port_needs_from_what_it_does_not() -> None:
    state = "ok"
    health = Health("1", lambda: state)
    for name in ("ingest", "writer", "poller", "api"):
        health.actor(name).state = "running"
    assert health.report("ingest")[0] == health.report("api")[0] == 200
    health.actor("poller").state = "restarting"
    assert [health.report(port)[0] for port in ("ingest", "api")] == [200, 200]
    assert health.report("api")[1]["status"] == "degraded"
    health.actor("writer").state = "restarting"
    assert [health.report(port)[0] for port in ("ingest", "api")] == [503, 200]
    state = "unreachable"
    assert [health.report(port)[0] for port in ("ingest", "api")] == [503, 503]
    assert health.report("api")[1]["db"] == "unreachable"


async def test_a_wait_ends_by_hint_stop_or_time() -> None:
    send, receive = trio.open_memory_channel[None](1)
    stopping = trio.Event()
    hint(send)
    hint(send)  # as good as one
    with trio.fail_after(2):
        await wait(receive, stopping, 60)
        await wait(receive, stopping, 0.01)
        await wait(receive, stopping, -1)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait, receive, stopping, 60)
            await trio.testing.wait_all_tasks_blocked()
            stopping.set()
