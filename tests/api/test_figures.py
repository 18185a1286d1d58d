"""Health, tokens and failure patterns of an agent: what they count and what they leave out."""

from __future__ import annotations

import httpx

from tests.api.rows import NOON, Rows, at
from tests.api.test_routes import DAY, get

HOUR = 3600.0


async def test_health_score_counts_the_newest_judged_runs(api: httpx.AsyncClient, rows: Rows) -> None:
    for n in range(51):
        await rows.run(f"r{n}", processed_at=at(NOON - n), signal_count=int(n == 50))
    await rows.signal("r50")  # of the one run too many
    await rows.run("running", trigger=None, ended_at=None)
    await rows.run("parked", processed_at=at(NOON + 1), parked_error="x: KeyError at x.py:1")
    answer = await get(api, "/v1/agents/a/health-score")
    good = {"value": 0.0, "label": "0 of 50 runs failed", "score": 40.0, "max": 40}
    assert answer["components"]["failures"] == good
    assert (answer["score"], answer["sample_runs"], answer["baseline_ready"]) == (100, 50, True)

    await rows.signal("r0", evidence={"wasted_tokens": 60})
    await rows.signal("r1", failure_type="SLOW_STEP", evidence={"wasted_tokens": "x"})
    await rows.signal("r2", failure_type="SLOW_STEP", shadow=True)
    answer = await get(api, "/v1/agents/a/health-score")
    assert {name: part["value"] for name, part in answer["components"].items()} == {
        "failures": 0.04, "loops": 0.02, "tokens": 0.01, "latency": 0.02,
    }  # fmt: skip
    assert answer["score"] == 97
    assert (await get(api, "/v1/agents/nobody/health-score"))["score"] is None


async def test_token_stats(api: httpx.AsyncClient, rows: Rows) -> None:
    await rows.hour(hour=NOON, runs=2, tokens=200)
    await rows.hour(hour=NOON - 24 * HOUR, runs=1, tokens=10)
    await rows.hour(hour=NOON - 25 * HOUR, runs=3, tokens=30, version="v2")
    await rows.hour(hour=NOON - 20 * DAY, runs=4, tokens=4)
    await rows.hour(hour=NOON - 31 * DAY, runs=9, tokens=9)
    await rows.hour("b", runs=9, tokens=9)
    await rows.signal("r1", evidence={"wasted_tokens": 60})
    await rows.signal("r2", evidence={"wasted_tokens": 5.0})
    await rows.signal("r3", failure_type="SLOW_STEP", evidence={"slow_ms": 60})
    await rows.signal("r4", evidence={"wasted_tokens": 1000}, shadow=True)
    await rows.signal("r5", evidence={"wasted_tokens": 1000}, detected=NOON - 31 * DAY)
    assert await get(api, "/v1/agents/a/token-stats") == {
        "windows": {
            "1d": {"run_count": 3, "total_tokens": 210},
            "7d": {"run_count": 6, "total_tokens": 240},
            "30d": {"run_count": 10, "total_tokens": 244},
        },
        "waste_by_failure_type": [
            {"failure_type": "TOOL_LOOP", "wasted_tokens": 65, "wasted_cost_usd": 0.0, "affected_runs": 2},
            {"failure_type": "SLOW_STEP", "wasted_tokens": 0, "wasted_cost_usd": 0.0, "affected_runs": 1},
        ],
    }
    nothing = {"run_count": 0, "total_tokens": 0}
    assert await get(api, "/v1/agents/nobody/token-stats") == {
        "windows": {"1d": nothing, "7d": nothing, "30d": nothing}, "waste_by_failure_type": [],
    }  # fmt: skip


async def test_failure_pattern(api: httpx.AsyncClient, rows: Rows) -> None:
    for n in range(12):
        await rows.signal(f"r{n}", detected=NOON - n, confidence=0.5 + n / 100, step_index=n % 2)
    await rows.signal("late", detected=NOON - 13 * DAY, step_index=7)
    await rows.signal("older", detected=NOON - 14 * DAY, step_index=7)
    await rows.signal("r0", failure_type="SLOW_STEP")
    await rows.signal("r1", failure_type="SLOW_STEP")
    await rows.signal("r1", failure_type="RETRY_STORM")
    await rows.signal("r2", failure_type="RETRY_STORM", shadow=True)
    await rows.signal("shadowed", shadow=True)
    answer = await get(api, "/v1/agents/a/failure-patterns/tool_loop")
    trend = answer.pop("daily_trend")
    top = answer.pop("top_runs")
    assert answer == {
        "failure_type": "TOOL_LOOP",
        "total_signals": 14,
        "affected_runs": 14,
        "first_seen": NOON - 14 * DAY,
        "last_seen": NOON,
        "step_distribution": {"0": 6, "1": 6, "7": 2},
        "co_occurring_signals": [
            {"failure_type": "SLOW_STEP", "count": 2},
            {"failure_type": "RETRY_STORM", "count": 1},
        ],
    }
    assert [one["count"] for one in trend] == [1, *[0] * 12, 12]
    assert (trend[0]["day"], trend[-1]["day"]) == ("2026-11-09", "2026-11-22")
    assert [run["run_id"] for run in top] == ["late", "older", *(f"r{n}" for n in range(11, 3, -1))]
    assert top[2] == {"run_id": "r11", "detected_at": NOON - 11, "step_index": 1, "confidence": 0.61}

    never = await get(api, "/v1/agents/a/failure-patterns/CONTEXT_BLOAT")
    assert (never["total_signals"], never["first_seen"], never["top_runs"]) == (0, None, [])
    refused = await api.get("/v1/agents/a/failure-patterns/COST_SPIKE")
    (fault,) = refused.json()["detail"]
    assert (refused.status_code, fault["loc"]) == (422, ["path", "failure_type"])
    assert "TOOL_LOOP, TOOL_THRASHING" in fault["msg"]


async def test_issues_are_found_across_agents(api: httpx.AsyncClient, rows: Rows) -> None:
    await rows.issue("Shop", last=NOON)
    await rows.issue("shop-2", failure_type="SLOW_STEP", status="resolved", resolved=NOON, last=NOON - 1)
    await rows.issue("100%_other", failure_type="RETRY_STORM", last=NOON - 2)

    async def found(query: str) -> list[str]:
        answer = await get(api, f"/v1/issues/search?{query}")
        assert answer["total"] >= len(answer["issues"])
        return [issue["agent_id"] for issue in answer["issues"]]

    assert await found("") == await found("q=&status=&agent_id=&failure_type=") == ["Shop", "shop-2", "100%_other"]
    assert await found("q=SHOP") == ["Shop", "shop-2"]
    assert await found("q=loop") == ["Shop"]
    assert await found("q=0%25_") == ["100%_other"]
    assert await found("q=%25") == ["100%_other"]
    assert await found("q=%00") == []
    assert await found("status=RESOLVED") == ["shop-2"]
    assert await found("agent_id=shop-2") == ["shop-2"]
    assert await found("failure_type=slow_step") == ["shop-2"]
    assert await found("limit=1&offset=1") == ["shop-2"]
    assert (await get(api, "/v1/issues/search?limit=1"))["total"] == 3


async def test_what_the_server_does_not_have_is_an_empty_list(api: httpx.AsyncClient) -> None:
    assert await get(api, "/v1/policies?agent_id=a") == {"policies": []}
    assert await get(api, "/v1/calls?agent_id=a&limit=20") == {"calls": []}
    assert await get(api, "/v1/custom-detectors?agent_id=a") == {"detectors": []}
