"""An agent's insights, number by number, against the contract and against what published clients were answered."""

from __future__ import annotations

from typing import Any

import httpx

from tests.api.rows import NOON, Rows, at, day
from tests.api.test_routes import DAY, capture, covers, get

HOUR = 3600.0
TODAY, YESTERDAY = "2026-11-22", "2026-11-21"
SAME, OTHER = "ab" * 32, "cd" * 32


async def insights(api: httpx.AsyncClient, agent_id: str = "a") -> Any:
    return await get(api, f"/v1/agents/{agent_id}/insights")


async def judged(rows: Rows, run_id: str, *types: str, started: float = NOON, **columns: Any) -> None:
    """A run with live signals of `types`, found a second after its start, and its part of the totals."""
    version = columns.setdefault("agent_version", "6ddeb0c4")
    columns.setdefault("processed_at", at(started + 3))
    await rows.run(run_id, started=started, signal_count=len(types), **columns)
    for failure_type in types:
        await rows.signal(run_id, failure_type=failure_type, detected=started + 1, agent_version=version)
    # One run a row of the totals: runs of a test start in different hours, or have different versions.
    await rows.hour(hour=started - started % HOUR, version=version)


async def test_an_agent_nobody_knows_has_empty_insights(api: httpx.AsyncClient) -> None:
    assert await insights(api, "nobody") == {
        "input_patterns": [],
        "signal_trends": [],
        "versions": [],
        "time_to_tool": {
            "p25": None, "p50": None, "p75": None, "avg_steps": None, "runs_with_tool": 0, "total_runs": 0,
            "daily_trend": [],
        },
        "hourly_pattern": [],
        "failure_rates": [],
        "systemic_patterns": [],
        "deploys": [],
    }  # fmt: skip


async def test_it_covers_what_published_clients_were_answered(api: httpx.AsyncClient, rows: Rows) -> None:
    for n, types in enumerate([(), ("TOOL_LOOP",), ("TOOL_LOOP", "SLOW_STEP")]):
        await judged(rows, f"r{n}", *types, started=NOON - n * HOUR, input_hash=SAME, first_tool_step=n + 2)
    covers(await insights(api), capture("insights"))


async def test_input_patterns(api: httpx.AsyncClient, rows: Rows) -> None:
    await judged(rows, "r0", "TOOL_LOOP", started=NOON, input_hash=SAME)
    await judged(rows, "r1", "TOOL_LOOP", "SLOW_STEP", started=NOON - HOUR, input_hash=SAME)
    await judged(rows, "r2", started=NOON - 2 * HOUR, input_hash=SAME)
    await judged(rows, "r3", "TOOL_LOOP", started=NOON - 3 * HOUR, input_hash=OTHER)  # the only run of its input
    for n in range(2):
        await judged(rows, f"none{n}", "TOOL_LOOP", started=NOON - (4 + n) * HOUR, input_hash=None)
        await judged(rows, f"empty{n}", "TOOL_LOOP", started=NOON - (6 + n) * HOUR, input_hash="")
    await rows.run("shadowed", input_hash=SAME, started=NOON - 9 * HOUR)
    await rows.signal("shadowed", failure_type="RETRY_STORM", shadow=True)
    assert (await insights(api))["input_patterns"] == [
        {"input_hash": SAME, "failure_type": "TOOL_LOOP", "triggered_count": 2, "total_runs": 4, "rate": 0.5},
        {"input_hash": SAME, "failure_type": "SLOW_STEP", "triggered_count": 1, "total_runs": 4, "rate": 0.25},
    ]


async def test_at_most_twenty_inputs_the_most_affected(api: httpx.AsyncClient, rows: Rows) -> None:
    for n in range(22):
        for again in range(3):
            types = ("TOOL_LOOP",) if again < (2 if n else 3) else ()
            await judged(rows, f"r{n}-{again}", *types, started=NOON - (n * 3 + again) * HOUR, input_hash=f"{n:064x}")
    found = (await insights(api))["input_patterns"]
    assert [one["input_hash"] for one in found] == [f"{n:064x}" for n in range(20)]
    assert (found[0]["triggered_count"], found[1]["triggered_count"]) == (3, 2)


async def test_trends_and_rates_count_by_the_day_a_run_started(api: httpx.AsyncClient, rows: Rows) -> None:
    midnight = NOON - 12 * HOUR
    await judged(rows, "r0", "TOOL_LOOP", started=midnight - 0.5)  # found after midnight
    await judged(rows, "r1", "TOOL_LOOP", "SLOW_STEP", started=NOON)
    await judged(rows, "r2", "TOOL_LOOP", started=NOON - HOUR, agent_version="v2")
    await judged(rows, "r3", started=NOON - 2 * HOUR)
    await judged(rows, "old", "TOOL_LOOP", started=NOON - 30 * DAY)
    await judged(rows, "edge", "TOOL_LOOP", started=midnight - 29 * DAY)
    answer = await insights(api)
    assert answer["signal_trends"] == [
        {"failure_type": "TOOL_LOOP", "agent_version": "6ddeb0c4", "day": "2026-10-24", "count": 1},
        {"failure_type": "TOOL_LOOP", "agent_version": "6ddeb0c4", "day": YESTERDAY, "count": 1},
        {"failure_type": "SLOW_STEP", "agent_version": "6ddeb0c4", "day": TODAY, "count": 1},
        {"failure_type": "TOOL_LOOP", "agent_version": "6ddeb0c4", "day": TODAY, "count": 1},
        {"failure_type": "TOOL_LOOP", "agent_version": "v2", "day": TODAY, "count": 1},
    ]
    assert answer["failure_rates"][1:] == [
        {"failure_type": "TOOL_LOOP", "day": YESTERDAY, "total_runs": 1, "affected_runs": 1, "rate": 1.0},
        {"failure_type": "SLOW_STEP", "day": TODAY, "total_runs": 3, "affected_runs": 1, "rate": 1 / 3},
        {"failure_type": "TOOL_LOOP", "day": TODAY, "total_runs": 3, "affected_runs": 2, "rate": 2 / 3},
    ]


async def test_versions(api: httpx.AsyncClient, rows: Rows) -> None:
    for n in range(12):
        await judged(rows, f"r{n}", started=NOON - n * DAY, agent_version=f"v{n}")
    await judged(rows, "again", "TOOL_LOOP", "SLOW_STEP", started=NOON - 20 * DAY + 7.5, agent_version="v1")
    answer = (await insights(api))["versions"]
    assert [one["agent_version"] for one in answer] == [f"v{n}" for n in range(10)]
    assert answer[1] == {
        "agent_version": "v1",
        "run_count": 2,
        "runs_with_signals": 1,
        "signal_count": 2,
        "signal_rate": 0.5,
        "first_seen": NOON - 20 * DAY + 7.5,
        "last_seen": NOON - DAY,
    }


async def test_a_version_of_a_client_with_a_wrong_clock_was_seen_by_ours(api: httpx.AsyncClient, rows: Rows) -> None:
    await rows.run("r", started=7.0, start_day=day(NOON), start_hour=at(NOON))
    await rows.hour(hour=NOON)
    (version,) = (await insights(api))["versions"]
    assert (version["first_seen"], version["last_seen"]) == (NOON, NOON)


async def test_time_to_tool(api: httpx.AsyncClient, rows: Rows) -> None:
    for n, step in enumerate([2, 3, None, None]):
        await judged(rows, f"r{n}", started=NOON - n * HOUR, first_tool_step=step)
    await judged(rows, "earlier", started=NOON - DAY, first_tool_step=None)
    assert (await insights(api))["time_to_tool"] == {
        "p25": 2.25,
        "p50": 2.5,
        "p75": 2.75,
        "avg_steps": 2.5,
        "runs_with_tool": 2,
        "total_runs": 5,
        "daily_trend": [
            {"day": YESTERDAY, "run_count": 1, "runs_with_tool": 0, "avg_first_tool_step": None},
            {"day": TODAY, "run_count": 4, "runs_with_tool": 2, "avg_first_tool_step": 2.5},
        ],
    }


async def test_percentiles_are_those_of_sql(api: httpx.AsyncClient, rows: Rows) -> None:
    steps = [1, 1, 1, 2, 5, 9, 9, 30]
    for n, step in enumerate(steps):
        await judged(rows, f"r{n}", started=NOON - n * HOUR, first_tool_step=step)
    found = (await insights(api))["time_to_tool"]
    expected = await rows.value(
        "SELECT percentile_cont(ARRAY[0.25, 0.5, 0.75]::float8[]) WITHIN GROUP (ORDER BY first_tool_step) FROM runs"
    )
    assert [found["p25"], found["p50"], found["p75"]] == expected


async def test_hours_of_the_day(api: httpx.AsyncClient, rows: Rows) -> None:
    await judged(rows, "r0", "TOOL_LOOP", "SLOW_STEP", started=NOON)
    await judged(rows, "r1", started=NOON - DAY)
    await judged(rows, "r2", started=NOON - 9 * HOUR)
    assert (await insights(api))["hourly_pattern"] == [
        {"hour_of_day": 3, "run_count": 1, "signal_count": 0, "signal_rate": 0.0},
        {"hour_of_day": 12, "run_count": 2, "signal_count": 1, "signal_rate": 0.5},
    ]


async def test_what_is_systemic(api: httpx.AsyncClient, rows: Rows) -> None:
    for n in range(19):
        types = ("TOOL_LOOP",) if n < 2 else ("SLOW_STEP",) if n == 2 else ()
        await judged(rows, f"r{n}", *types, started=NOON - (n + 1) * HOUR)
    going_on = {"trigger": None, "ended_at": None, "processed_at": None}
    await judged(rows, "running", "TOOL_LOOP", started=NOON - 10, agent_version="v2", **going_on)
    await judged(rows, "older", "RETRY_STORM", started=NOON - 8 * DAY)
    assert (await insights(api))["systemic_patterns"] == [
        {
            "failure_type": "TOOL_LOOP", "total_runs": 20, "affected_runs": 3, "rate": 0.15,
            "first_seen": NOON - 2 * HOUR + 1, "last_seen": NOON - 9, "is_systemic": True,
        },
        {
            "failure_type": "SLOW_STEP", "total_runs": 19, "affected_runs": 1, "rate": 1 / 19,
            "first_seen": NOON - 3 * HOUR + 1, "last_seen": NOON - 3 * HOUR + 1, "is_systemic": False,
        },
    ]  # fmt: skip


async def test_deploys_are_marks_on_the_trends(api: httpx.AsyncClient, rows: Rows) -> None:
    for n in range(52):
        await rows.deploy(f"v{n}", deployed=NOON - n * HOUR)
    await rows.deploy("elsewhere", "b")
    await rows.deploy("old", deployed=NOON - 31 * DAY)
    deploys = (await insights(api))["deploys"]
    assert [mark["version"] for mark in deploys] == [f"v{n}" for n in reversed(range(50))]
    assert deploys[-1] == {"version": "v0", "deployed_at": NOON}
