"""The fleet's watch on a real database: what is counted, what is told, and that it is told once."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from dunetrace.actors.fleet import Fleet
from dunetrace.alerts import Destination
from dunetrace.deliveries import Kind, delivery_id
from dunetrace.errors import StoreUnavailableError
from dunetrace.signals import FailureType, Severity
from dunetrace.store.gateway import open_gateway
from tests.alerts.ground import Ground, ground_on, webhook

HOOK = webhook("http://127.0.0.1:1/")
LOOP = FailureType.TOOL_LOOP
HOURS_S = 3600.0
RUN = """
INSERT INTO runs (run_id, customer_id, bucket, agent_id, agent_version, started_at, first_day, last_day, start_day,
                  start_hour, last_received_at, processed_at, trigger, signal_count, dropped_events, parked_error)
SELECT $1 || n, $2, 0, $3, $4, 0, current_date, current_date, current_date, date_trunc('hour', at, 'UTC'), at, at, $5,
       (n <= $6)::int, $7, $8
FROM generate_series(1, $9::int) AS n, LATERAL (SELECT $10::timestamptz AS at) a
"""
SIGNAL = """
INSERT INTO failure_signals (customer_id, failure_type, severity, run_id, agent_id, agent_version, step_index,
                             confidence, evidence, detected_at, shadow, fanned_out_at)
SELECT $2, $5, CASE WHEN n % 3 = 1 THEN 'HIGH' ELSE 'MEDIUM' END, $1 || n, $3, $4, 1, 0.9, '{}',
       $6::timestamptz + n * interval '1 second', $8, now()
FROM generate_series(1, $7::int) AS n
"""


class Fleets:
    """Judged runs of an agent, and the actor's passes."""

    def __init__(self, ground: Ground) -> None:
        self.ground = ground
        self._batches = 0

    async def judged(
        self, runs: int, affected: int, version: str = "old", *, hours_ago: float = 0.0, **columns: Any
    ) -> str:
        """`runs` runs judged `hours_ago` before the beginning of this hour, 0 = now; the prefix of their ids."""
        ground, agent, customer = self.ground, columns.get("agent", "agent"), columns.get("customer", "default")
        self._batches += 1
        prefix = f"{version}-{self._batches}-"
        at = await self.at(hours_ago)
        shadow = columns.get("shadow", False)
        await ground.rows(
            RUN, prefix, customer, agent, version, columns.get("trigger", "run.completed"), 0 if shadow else affected,
            columns.get("dropped", 0), columns.get("parked"), runs, at,
        )  # fmt: skip
        type_ = columns.get("failure_type", LOOP)
        await ground.rows(SIGNAL, prefix, customer, agent, version, type_, at, affected, shadow)
        await ground.rows(
            "INSERT INTO agent_hours VALUES ($1, $2, $3, date_trunc('hour', $4::timestamptz, 'UTC'), $5) "
            "ON CONFLICT (customer_id, agent_id, hour, agent_version) "
            "DO UPDATE SET run_count = agent_hours.run_count + excluded.run_count",
            customer, agent, version, at, runs,
        )  # fmt: skip
        await ground.rows(
            "INSERT INTO agents VALUES ($1, $2, now(), now()) ON CONFLICT (customer_id, agent_id) DO NOTHING",
            customer, agent,
        )  # fmt: skip
        return prefix

    async def at(self, hours_ago: float) -> Any:
        (row,) = await self.ground.rows(
            "SELECT CASE WHEN $1::float8 = 0 THEN now() "
            "ELSE date_trunc('hour', now() - interval '1 minute', 'UTC') - make_interval(secs => $1) END AS at",
            hours_ago * HOURS_S,
        )
        return row["at"]

    async def look(self, *destinations: Destination) -> list[FailureType]:
        return await Fleet(destinations, {}).run_once(self.ground.ctx)

    async def told(self) -> list[dict[str, Any]]:
        return await self.ground.rows("SELECT * FROM fleet_signals ORDER BY id")

    async def next_hour(self) -> None:
        """Everything moves an hour into the past, to the second."""
        await self.ground.rows("UPDATE runs SET processed_at = processed_at - interval '1 hour'")
        await self.ground.rows("UPDATE failure_signals SET detected_at = detected_at - interval '1 hour'")
        await self.ground.rows("UPDATE fleet_watches SET since = since - interval '1 hour'")
        await self.ground.rows(
            "UPDATE fleet_signals SET since = since - interval '1 hour', found_at = found_at - interval '1 hour', "
            "subject = CASE WHEN scope = 'hour' THEN subject || '-' ELSE subject END"
        )


@pytest.fixture
def fleets(ground: Ground) -> Fleets:
    return Fleets(ground)


async def test_a_version_that_fails_more_often_is_told_once(fleets: Fleets) -> None:
    await fleets.judged(200, 8, hours_ago=30)
    await fleets.judged(3, 1)
    new = await fleets.judged(40, 13, "new")
    assert await fleets.look(HOOK) == [LOOP]
    (told,) = await fleets.told()
    assert (told["scope"], told["subject"], told["severity"], told["run_id"]) == (
        "version",
        "new",
        "MEDIUM",
        f"{new}13",
    )
    assert (told["runs"], told["affected"], told["runs_before"], told["affected_before"]) == (40, 13, 200, 8)
    assert told["over_at"] is None
    await fleets.judged(400, 300, "new")
    assert await fleets.look(HOOK) == []
    assert len(await fleets.told()) == 1


async def test_its_delivery_is_one_of_the_newest_run_that_shows_it(fleets: Fleets) -> None:
    await fleets.judged(200, 8, hours_ago=30)
    new = await fleets.judged(40, 13, "new")
    await fleets.look(HOOK)
    (told,) = await fleets.told()
    made = await fleets.ground.delivery()
    key = ("default", f"{new}13", "TOOL_LOOP", "webhook")
    assert made["id"] == delivery_id(*key, kind=Kind.FLEET, seq=told["id"])
    assert (made["kind"], made["seq"], made["run_id"], made["state"]) == ("fleet", told["id"], f"{new}13", "pending")


async def test_only_those_are_told_who_want_to_know(fleets: Fleets) -> None:
    await fleets.judged(200, 8, hours_ago=30)
    await fleets.judged(40, 13, "new")
    await fleets.look(HOOK, replace(HOOK, name="pager", min_severity=Severity.HIGH))
    assert [row["destination"] for row in await fleets.ground.deliveries()] == ["webhook"]


@pytest.mark.parametrize(
    "left_out", [{"dropped": 1}, {"parked": "somewhere"}, {"trigger": None}, {"shadow": True}, {"agent": "other"},
                 {"customer": "other"}]
)  # fmt: skip
async def test_runs_of_which_nobody_knows_whether_they_fail_are_left_out(
    fleets: Fleets, left_out: dict[str, Any]
) -> None:
    await fleets.judged(200, 8, hours_ago=30)
    await fleets.judged(20, 0, "new")
    await fleets.judged(40, 40, "new", **left_out)
    await fleets.look(HOOK)
    assert await fleets.told() == []


async def test_the_first_version_has_nothing_to_be_compared_with(fleets: Fleets) -> None:
    await fleets.judged(100, 90, "first")
    await fleets.judged(19, 0, "tried", hours_ago=30)
    await fleets.look(HOOK)
    assert await fleets.told() == []
    watches = await fleets.ground.rows("SELECT subject, next_runs FROM fleet_watches WHERE scope = 'version'")
    assert {(row["subject"], row["next_runs"]) for row in watches} == {("first", None)}


async def test_a_look_is_made_at_doubling_counts_only(fleets: Fleets) -> None:
    await fleets.judged(200, 8, hours_ago=30)

    async def next_runs() -> int:
        await fleets.look(HOOK)
        rows = await fleets.ground.rows("SELECT next_runs FROM fleet_watches WHERE subject = 'new'")
        return int(rows[0]["next_runs"])

    for runs, following in ((19, 20), (4, 40), (10, 40), (70, 160)):
        await fleets.judged(runs, 0, "new")
        assert await next_runs() == following


async def test_a_version_from_before_is_not_told_of_after_an_upgrade(fleets: Fleets) -> None:
    await fleets.judged(200, 8, hours_ago=12 * 24)
    await fleets.judged(40, 30, "new", hours_ago=9 * 24)
    await fleets.judged(40, 30, "new")
    await fleets.look(HOOK)
    assert await fleets.told() == []


async def test_a_deploy_whose_version_the_runs_do_not_name(fleets: Fleets) -> None:
    await fleets.judged(200, 8, hours_ago=30)
    await fleets.ground.rows(
        "INSERT INTO deploys (agent_id, version, deployed_at) VALUES ('agent', 'v2', $1)", await fleets.at(5.0)
    )
    await fleets.judged(40, 30, hours_ago=4.5)
    assert await fleets.look(HOOK) == [LOOP]
    (told,) = await fleets.told()
    assert (told["scope"], told["subject"], told["runs"], told["affected"]) == ("deploy", "v2", 40, 30)


async def test_a_deploy_and_its_version_are_told_of_once(fleets: Fleets) -> None:
    await fleets.judged(200, 8, hours_ago=30)
    await fleets.ground.rows(
        "INSERT INTO deploys (agent_id, version, deployed_at) VALUES ('agent', 'v2', $1)", await fleets.at(5.5)
    )
    await fleets.judged(80, 60, "new", hours_ago=5.4)
    assert await fleets.look(HOOK) == [LOOP]


async def test_an_hour_is_told_once_and_again_when_it_was_back_below(fleets: Fleets) -> None:
    await fleets.judged(500, 20, hours_ago=30)
    await fleets.judged(100, 40, hours_ago=0.5)
    assert await fleets.look(HOOK) == [LOOP]
    (told,) = await fleets.told()
    assert (told["scope"], told["runs"], told["affected"], told["runs_before"]) == ("hour", 100, 40, 500)
    assert told["subject"] == f"{told['since']:%Y-%m-%dT%H:00Z}"
    assert await fleets.look(HOOK) == []

    hours = ((40, []), (5, []), (70, [LOOP]))  # goes on, is over, rises again
    for affected, found in hours:
        await fleets.next_hour()
        await fleets.judged(100, affected, hours_ago=0.5)
        assert await fleets.look(HOOK) == found
    first, second = await fleets.told()
    assert first["over_at"] is not None
    assert second["over_at"] is None


async def test_a_version_s_rise_keeps_its_hours_quiet(fleets: Fleets) -> None:
    await fleets.judged(500, 20, hours_ago=30)
    await fleets.judged(100, 40, "new", hours_ago=0.5)
    assert await fleets.look(HOOK) == [LOOP]
    assert [told["scope"] for told in await fleets.told()] == ["version"]
    await fleets.next_hour()
    await fleets.judged(100, 40, "new", hours_ago=0.5)
    assert await fleets.look(HOOK) == []
    await fleets.next_hour()
    await fleets.judged(100, 0, "old", hours_ago=0.5)  # it was taken back
    assert await fleets.look(HOOK) == []
    (told,) = await fleets.told()
    assert told["over_at"] is not None


async def test_two_processes_tell_it_once(fleets: Fleets) -> None:
    await fleets.judged(500, 20, hours_ago=30)
    await fleets.judged(100, 40, "new", hours_ago=0.5)
    await fleets.judged(100, 70, hours_ago=0.5, failure_type=FailureType.RETRY_STORM)
    found: list[FailureType] = []

    async def one() -> None:
        found.extend(await fleets.look(HOOK))

    async with trio.open_nursery() as nursery:
        for _ in range(4):
            nursery.start_soon(one)
    assert sorted(found) == [FailureType.RETRY_STORM, LOOP]
    assert len(await fleets.ground.deliveries()) == 2


async def test_a_failure_type_of_another_release_stops_nothing(fleets: Fleets) -> None:
    await fleets.judged(200, 8, hours_ago=30)
    await fleets.judged(40, 40, "new", failure_type="FROM_LATER")
    await fleets.judged(40, 30, "new")
    assert await fleets.look(HOOK) == [LOOP]


async def test_switched_off_it_looks_at_nothing(fleets: Fleets, tmp_path: Path) -> None:
    off = ground_on(fleets.ground.gateway, tmp_path, DUNETRACE_FLEET_ALERTS="false")
    await fleets.judged(200, 8, hours_ago=30)
    await fleets.judged(40, 30, "new")
    async with trio.open_nursery() as nursery:
        await nursery.start(Fleet([HOOK], {}).run, off.ctx)
        await trio.testing.wait_all_tasks_blocked(0.05)
        off.stopping.set()
    assert await fleets.told() == []


async def test_it_outlasts_an_outage(tmp_path: Path) -> None:
    async with open_gateway("postgresql://nobody@127.0.0.1:1/none") as away:
        ground = ground_on(away, tmp_path)
        watching = Fleet([HOOK], {})
        with pytest.raises(StoreUnavailableError):
            await watching.run_once(ground.ctx)
        async with trio.open_nursery() as nursery:
            await nursery.start(watching.run, ground.ctx)
            ground.stopping.set()
