"""The list of failures that became more frequent."""

from __future__ import annotations

import httpx

from tests.api.rows import NOON, Rows, at


async def _add(rows: Rows, subject: str, **columns: object) -> None:
    row = {
        "agent_id": "a", "failure_type": "REASONING_STALL", "scope": "version", "subject": subject,
        "since": at(NOON - 7200), "severity": "MEDIUM", "run_id": "r", "runs": 80, "affected": 25, "runs_before": 200,
        "affected_before": 8, "found_at": at(NOON),
    }  # fmt: skip
    await rows._insert("fleet_signals", **row | columns)


async def test_it_says_what_rose_and_by_how_much(api: httpx.AsyncClient, rows: Rows) -> None:
    await _add(rows, "8c1f2a3b")
    await _add(rows, "2026-11-22T11:00Z", scope="hour", over_at=at(NOON))
    await _add(rows, "other", agent_id="b")
    await _add(rows, "foreign", customer_id="other")
    answer = (await api.get("/v1/agents/a/fleet-signals")).json()
    assert answer["page"] == {"total": 2, "offset": 0, "limit": 50, "has_more": False}
    hour, version = answer["fleet_signals"]
    assert (hour["scope"], hour["over_at"]) == ("hour", NOON)
    assert version.pop("id") < hour["id"]
    assert version == {
        "agent_id": "a", "failure_type": "REASONING_STALL", "severity": "MEDIUM", "scope": "version",
        "subject": "8c1f2a3b", "since": NOON - 7200,
        "title": "Since version 8c1f2a3b: REASONING_STALL in 31 % of runs, was 4 %", "runs": 80,
        "affected_runs": 25, "rate": 0.3125, "runs_before": 200,
        "affected_runs_before": 8, "rate_before": 0.04, "run_id": "r", "found_at": NOON, "over_at": None,
    }  # fmt: skip


async def test_it_comes_in_pages(api: httpx.AsyncClient, rows: Rows) -> None:
    for n in range(3):
        await _add(rows, f"v{n}")
    answer = (await api.get("/v1/agents/a/fleet-signals?offset=1&limit=1")).json()
    assert [signal["subject"] for signal in answer["fleet_signals"]] == ["v1"]
    assert answer["page"] == {"total": 3, "offset": 1, "limit": 1, "has_more": True}


async def test_a_key_of_one_agent_sees_only_its_own(prod: httpx.AsyncClient, rows: Rows) -> None:
    await rows.key("key", agent_id="b")
    await _add(rows, "v")
    answer = await prod.get("/v1/agents/a/fleet-signals", headers={"Authorization": "Bearer key"})
    assert answer.json()["fleet_signals"] == []
