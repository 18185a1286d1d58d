"""Every endpoint's answer, key by key, against the contract and against what published clients were answered."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from dunetrace.serving.api.absent import ABSENT
from dunetrace.serving.api.routes import ROUTES
from dunetrace.store.gateway import Gateway
from dunetrace.store.reads import issues as issue_reads
from dunetrace.store.reads import runs as run_reads
from tests.api.conftest import make_api, serving
from tests.api.rows import LOOP_EVIDENCE, NOON, CountingReads, Rows, day
from tests.shared import shared

DAY = 86_400.0
WORDS = {"title", "what", "why_it_matters", "evidence_summary", "suggested_fixes"}
SIGNAL_FACTS = {
    "id", "failure_type", "severity", "run_id", "agent_id", "agent_version", "step_index", "confidence", "detected_at",
    "evidence", "alerted", "shadow",
}  # fmt: skip
RUN_SUMMARY = {
    "run_id", "agent_id", "agent_version", "status", "started_at", "completed_at", "exit_reason", "step_count",
    "signal_count", "has_signals", "total_tokens", "total_cost_usd",
}  # fmt: skip


async def get(client: httpx.AsyncClient, path: str) -> Any:
    answer = await client.get(path)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "application/json"
    return answer.json()


def capture(name: str) -> Any:
    return json.loads(shared(f"captures/api-0.3.0-{name}.json").read_text())


def covers(ours: Any, published: Any) -> None:
    """Every key that published clients were answered is there, with a value of the same kind."""
    if isinstance(published, dict):
        for key, value in published.items():
            assert key in ours
            covers(ours[key], value)
    elif isinstance(published, list):
        assert isinstance(ours, list)
        for one in ours if published else ():
            covers(one, published[0])
    elif isinstance(published, float):
        assert isinstance(ours, int | float)
    else:
        assert type(ours) is type(published)


async def test_agents(api: httpx.AsyncClient, rows: Rows) -> None:
    await rows.agent("older", seen=NOON - 60.25, runs=7)
    await rows.agent("newer", seen=NOON - 1, runs=2)
    await rows.signal_hour("older", hour=NOON, n=2)
    await rows.signal_hour("older", hour=NOON, n=1, version="another")
    await rows.signal_hour("older", hour=NOON - 2 * DAY, failure_type="PROMPT_INJECTION_SIGNAL", severity="CRITICAL")
    await rows.signal_hour("older", hour=NOON - 6 * DAY - 12 * 3600, failure_type="REASONING_STALL", severity="MEDIUM")
    await rows.signal_hour("older", hour=NOON - 6 * DAY - 13 * 3600, n=10)
    await rows.signal_hour("older", hour=NOON - DAY, failure_type="SLOW_STEP", severity="MEDIUM", n=0)
    await rows.loss("older", 5)
    await rows.loss("older", 6)
    assert await get(api, "/v1/agents") == {
        "agents": [
            {
                "agent_id": "newer",
                "last_seen": NOON - 1,
                "run_count": 2,
                "signal_count": 0,
                "critical_count": 0,
                "high_count": 0,
                "sparkline": [0, 0, 0, 0, 0, 0, 0],
                "severity_sparklines": {},
                "failure_types": {},
                "dropped_events": 0,
            },
            {
                "agent_id": "older",
                "last_seen": NOON - 60.25,
                "run_count": 7,
                "signal_count": 15,
                "critical_count": 1,
                "high_count": 13,
                "sparkline": [1, 0, 0, 0, 1, 0, 3],
                "severity_sparklines": {
                    "CRITICAL": [0, 0, 0, 0, 1, 0, 0],
                    "HIGH": [0, 0, 0, 0, 0, 0, 3],
                    "MEDIUM": [1, 0, 0, 0, 0, 0, 0],
                },
                "failure_types": {"PROMPT_INJECTION_SIGNAL": 1, "REASONING_STALL": 1, "TOOL_LOOP": 13},
                "dropped_events": 11,
            },
        ],
        "page": {"total": 2, "offset": 0, "limit": 50, "has_more": False},
    }
    covers(await get(api, "/v1/agents"), capture("agents"))


async def test_a_signal_of_an_hour_ahead_of_the_clock_counts_for_today(api: httpx.AsyncClient, rows: Rows) -> None:
    await rows.agent("a")
    await rows.signal_hour("a", hour=NOON + 13 * 3600)
    assert (await get(api, "/v1/agents"))["agents"][0]["sparkline"] == [0, 0, 0, 0, 0, 0, 1]


async def test_runs(api: httpx.AsyncClient, rows: Rows) -> None:
    await rows.run("done", started=NOON, signal_count=2)
    await rows.run("failed", started=NOON + 1, trigger="run.errored")
    await rows.run("going-on", started=NOON + 2, trigger=None, ended_at=None, signal_count=1)
    await rows.run("silent", started=NOON + 3, trigger="stalled", ended_at=None)
    await rows.run("aside", started=NOON + 4, trigger=None, parked_error="tool_loop: KeyError at tool_loop.py:3")
    answer = await get(api, "/v1/agents/a/runs")
    assert all(set(run) == RUN_SUMMARY for run in answer["runs"])
    assert [(run["run_id"], run["status"], run["exit_reason"]) for run in answer["runs"]] == [
        ("aside", "parked", ""),
        ("silent", "stalled", "stalled"),
        ("going-on", "running", ""),
        ("failed", "ended", "run.errored"),
        ("done", "ended", "run.completed"),
    ]
    assert answer["runs"][-1] == {
        "run_id": "done",
        "agent_id": "a",
        "agent_version": "6ddeb0c4",
        "status": "ended",
        "started_at": NOON,
        "completed_at": NOON + 2.5,
        "exit_reason": "run.completed",
        "step_count": 3,
        "signal_count": 2,
        "has_signals": True,
        "total_tokens": 120,
        "total_cost_usd": None,
    }
    assert answer["runs"][2]["completed_at"] is None
    covers({"runs": answer["runs"][-1:], "page": answer["page"]}, capture("runs"))

    with_signals = await get(api, "/v1/agents/a/runs?has_signals=true")
    assert [run["run_id"] for run in with_signals["runs"]] == ["going-on", "done"]
    assert with_signals["page"]["total"] == 2
    without = await get(api, "/v1/agents/a/runs?has_signals=0")
    assert [run["run_id"] for run in without["runs"]] == ["aside", "silent", "failed"]


async def test_signals(api: httpx.AsyncClient, rows: Rows) -> None:
    first = await rows.signal("r1", detected=NOON, alerted=True)
    await rows.signal("r2", detected=NOON + 1, failure_type="REASONING_STALL", severity="MEDIUM", evidence={})
    await rows.signal("r3", detected=NOON + 2, shadow=True)
    answer = await get(api, "/v1/agents/a/signals")
    assert [signal["run_id"] for signal in answer["signals"]] == ["r2", "r1"]
    assert all(set(signal) == SIGNAL_FACTS | WORDS for signal in answer["signals"])
    signal = answer["signals"][1]
    assert {name: signal[name] for name in SIGNAL_FACTS} == {
        "id": first,
        "failure_type": "TOOL_LOOP",
        "severity": "HIGH",
        "run_id": "r1",
        "agent_id": "a",
        "agent_version": "6ddeb0c4",
        "step_index": 6,
        "confidence": 0.9,
        "detected_at": NOON,
        "evidence": LOOP_EVIDENCE,
        "alerted": True,
        "shadow": False,
    }
    assert "web_search" in signal["what"]
    assert 1 <= len(signal["suggested_fixes"]) <= 3
    assert set(signal["suggested_fixes"][0]) == {"description", "language", "code"}
    assert answer["page"] == {"total": 2, "offset": 0, "limit": 50, "has_more": False}
    published = capture("signals")
    published["signals"][0]["evidence"] = {}  # each detector's own
    covers(answer, published)

    async def runs_of(query: str) -> list[str]:
        return [one["run_id"] for one in (await get(api, f"/v1/agents/a/signals?{query}"))["signals"]]

    assert await runs_of("include_shadow=true") == ["r3", "r2", "r1"]
    assert await runs_of("severity=medium") == ["r2"]
    assert await runs_of("failure_type=tool_Loop") == ["r1"]
    assert await runs_of("failure_type=SLOW_STEP") == []
    assert await runs_of("severity=&failure_type=&include_shadow=") == ["r2", "r1"]
    bare = (await get(api, "/v1/agents/a/signals?explain=false"))["signals"]
    assert all(set(signal) == SIGNAL_FACTS for signal in bare)


async def test_a_signal_of_a_later_release_is_shown_and_explained(api: httpx.AsyncClient, rows: Rows) -> None:
    await rows.signal("r1", failure_type="NOT_YET_KNOWN", evidence={"x": 1})
    signal = (await get(api, "/v1/agents/a/signals"))["signals"][0]
    assert signal["failure_type"] == "NOT_YET_KNOWN"
    assert signal["title"] and signal["suggested_fixes"]


async def test_issues(api: httpx.AsyncClient, rows: Rows) -> None:
    number = await rows.issue(first=NOON - 9, last=NOON - 5, affected=3, clean=2)
    await rows.issue(failure_type="SLOW_STEP", status="resolved", last=NOON - 4, resolved=NOON - 1, clean=5)
    await rows.issue(failure_type="RETRY_STORM", status="reopened", last=NOON - 3)
    answer = await get(api, "/v1/agents/a/issues")
    assert [issue["status"] for issue in answer["issues"]] == ["reopened", "resolved", "open"]
    assert answer["total"] == 3
    assert answer["issues"][1]["resolved_at"] == NOON - 1
    assert answer["issues"][2] == {
        "id": number,
        "agent_id": "a",
        "failure_type": "TOOL_LOOP",
        "status": "open",
        "first_seen": NOON - 9,
        "opened_at": NOON - 9,
        "last_seen": NOON - 5,
        "resolved_at": None,
        "affected_runs": 3,
        "occurrence_count": 3,
        "signal_count": 3,
        "clean_runs_since": 2,
        "acknowledged_at": None,
        "snoozed_until": None,
    }
    assert await get(api, "/v1/agents/a/issues?status=all") == answer
    for status in ("open", "resolved", "reopened"):
        only = await get(api, f"/v1/agents/a/issues?status={status}")
        assert [issue["status"] for issue in only["issues"]] == [status]
        assert only["total"] == 1


async def test_one_issue(api: httpx.AsyncClient, rows: Rows, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(issue_reads, "MAX_AFFECTED_RUNS", 2)
    number = await rows.issue(affected=3)
    for index in range(3):
        await rows.signal(f"r{index}", detected=NOON + index)
    await rows.signal("shadowed", shadow=True, detected=NOON + 9)
    await rows.signal("other", failure_type="SLOW_STEP", detected=NOON + 9)
    assert await get(api, f"/v1/issues/{number}") == {
        "id": number,
        "failure_type": "TOOL_LOOP",
        "agent_id": "a",
        "status": "open",
        "first_seen": NOON,
        "last_seen": NOON,
        "resolved_at": None,
        "clean_runs_since": 0,
        "acknowledged_at": None,
        "snoozed_until": None,
        "affected_runs_count": 3,
        "affected_runs": [
            {"run_id": "r2", "detected_at": NOON + 2, "step_index": 6, "confidence": 0.9},
            {"run_id": "r1", "detected_at": NOON + 1, "step_index": 6, "confidence": 0.9},
        ],
    }
    for missing in (str(number + 1), "99999999999999999999", "-1", "x", "%31%00"):
        assert (await api.get(f"/v1/issues/{missing}")).status_code == 404


async def test_one_run(api: httpx.AsyncClient, rows: Rows) -> None:
    await rows.run("r", first_day=day(NOON - DAY), started=NOON - DAY, last_day=day(NOON), parent_run_id="p")
    await rows.event("r", "tool.called", step=2, timestamp=NOON, payload={"tool_name": "t"})
    await rows.event("r", "llm.called", step=1, timestamp=NOON)
    await rows.event("r", "llm.responded", step=1, timestamp=NOON, parent="p")
    await rows.event("r", "run.started", step=0, timestamp=NOON - DAY, payload={"model": "m", "tools": ["t"]})
    late = await rows.signal("r", step_index=9)
    early = await rows.signal("r", failure_type="REASONING_STALL", step_index=2)
    await rows.signal("r", failure_type="SLOW_STEP", shadow=True)
    run = await get(api, "/v1/runs/r")
    assert run["events"] == [
        {
            "event_type": "run.started",
            "step_index": 0,
            "timestamp": NOON - DAY,
            "payload": {"model": "m", "tools": ["t"]},
            "parent_run_id": None,
        },
        {"event_type": "llm.called", "step_index": 1, "timestamp": NOON, "payload": {}, "parent_run_id": None},
        {"event_type": "llm.responded", "step_index": 1, "timestamp": NOON, "payload": {}, "parent_run_id": "p"},
        {
            "event_type": "tool.called",
            "step_index": 2,
            "timestamp": NOON,
            "payload": {"tool_name": "t"},
            "parent_run_id": None,
        },
    ]
    assert [signal["id"] for signal in run["signals"]] == [early, late]
    assert all(set(signal) == SIGNAL_FACTS | WORDS for signal in run["signals"])
    extra = {"events", "signals", "parent_run_id", "dropped_events", "parked_error", "event_count", "events_truncated"}
    assert set(run) == RUN_SUMMARY | extra
    assert (run["parent_run_id"], run["parked_error"], run["event_count"]) == ("p", None, 4)
    assert run["events_truncated"] is False
    published = capture("run-detail")
    published["signals"][0]["evidence"] = {}
    published["events"] = [published["events"][0] | {"payload": {}}]
    covers(run | {"events": run["events"][:1]}, published)

    assert len((await get(api, "/v1/runs/r?include_shadow=true"))["signals"]) == 3
    bare = await get(api, "/v1/runs/r?explain=false")
    assert all(set(signal) == SIGNAL_FACTS for signal in bare["signals"])


async def test_a_parked_run_says_where_it_failed(api: httpx.AsyncClient, rows: Rows) -> None:
    await rows.run("r", trigger=None, parked_error="tool_loop: KeyError at tool_loop.py:3", dropped_events=4)
    run = await get(api, "/v1/runs/r")
    assert run["status"] == "parked"
    assert run["parked_error"] == "tool_loop: KeyError at tool_loop.py:3"
    assert run["dropped_events"] == 4


async def test_of_a_long_run_the_newest_events_are_given(api: httpx.AsyncClient, rows: Rows) -> None:
    await rows.run("r")
    await rows.many_events("r", run_reads.MAX_EVENTS + 5, {"n": 1})
    run = await get(api, "/v1/runs/r?explain=false")
    assert [run["events"][0]["step_index"], run["events"][-1]["step_index"]] == [6, run_reads.MAX_EVENTS + 5]
    assert (len(run["events"]), run["event_count"]) == (run_reads.MAX_EVENTS, run_reads.MAX_EVENTS + 5)
    assert run["events_truncated"] is True


async def test_of_a_heavy_run_too(api: httpx.AsyncClient, rows: Rows, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_reads, "MAX_EVENT_BYTES", 1000)
    await rows.run("r")
    await rows.many_events("r", 5, {"tools": ["x" * 300]})
    run = await get(api, "/v1/runs/r")
    assert [event["step_index"] for event in run["events"]] == [3, 4, 5]
    assert run["events_truncated"] is True


async def test_paging(api: httpx.AsyncClient, rows: Rows) -> None:
    for index in range(5):
        await rows.agent(f"a{index}", seen=NOON - index)
        await rows.run(f"r{index}", started=NOON - index)
        await rows.signal(f"r{index}", detected=NOON - index)
    for path, name, key in (
        ("/v1/agents", "agents", "agent_id"),
        ("/v1/agents/a/runs", "runs", "run_id"),
        ("/v1/agents/a/signals", "signals", "run_id"),
    ):
        got: list[str] = []
        for offset, more in ((0, True), (2, True), (4, False), (6, False)):
            answer = await get(api, f"{path}?offset={offset}&limit=2")
            assert answer["page"] == {"total": 5, "offset": offset, "limit": 2, "has_more": more}
            got += [one[key][-1] for one in answer[name]]
        assert got == ["0", "1", "2", "3", "4"]
        assert (await get(api, f"{path}?offset=9223372036854775807&limit=500"))[name] == []


async def test_each_answer_is_one_unit_of_few_statements(gateway: Gateway, rows: Rows) -> None:
    reads = CountingReads(gateway)
    issue = await rows.issue()
    for index in range(20):
        await rows.agent(f"a{index}")
        await rows.signal_hour(f"a{index}")
        await rows.run(f"r{index}")
        await rows.signal(f"r{index}")
        await rows.event("r0", step=index)
    ids = {"agent_id": "a", "run_id": "r0", "issue_id": str(issue), "signal_id": "1", "failure_type": "TOOL_LOOP"}
    async with serving(make_api(reads)) as client:
        for route in ROUTES:
            if route.method == "GET" and route not in ABSENT:
                await get(client, route.path.format(**ids))  # the first time the driver asks about types too
                reads.units.clear()
                await get(client, route.path.format(**ids))
                assert len(reads.units) == 1
                assert 1 <= len(reads.units[0]) <= (8 if route.path.endswith("/insights") else 4), route.path
