"""The page over the real server and Postgres: from nothing, by the very commands it shows, to its charts."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.sync_api import Browser, Page, expect

from tests.harness.server import Server
from tests.page.reading import too_faint
from tests.page.real import watch
from tests.page.test_insights import rows
from tests.page.test_views import overflow
from tests.page.watching import Watched
from tests.postgres import TestPostgres

AGENT = "order-agent"
WITHIN_S = 20


@pytest.fixture
def real(tmp_path: Path, postgres: TestPostgres) -> Iterator[Server]:
    with Server(tmp_path, database_url=postgres.database(), env={"DUNETRACE_POLL_INTERVAL": "1"}) as server:
        yield server


def called(n: int, at: float, kind: str, **payload: Any) -> dict[str, Any]:
    return {"event_type": kind, "step_index": n, "timestamp": at, "payload": payload}


def run(n: int, *, loops: bool, end: str = "run.completed", version: str = "11111111") -> list[dict[str, Any]]:
    """One run of the agent; every second one has the same input."""
    at = time.time() - 60 * n
    events = [called(0, at, "run.started", input_hash=f"{n % 2:064x}", model="m", tools=["look"])]
    for step in range(1, 6 if loops else 2):
        events.append(
            called(step, at + step, "tool.called", tool_name="look", args_hash=f"{0 if loops else step:064x}")
        )
        answer = {"tool_name": "look", "success": True, "latency_ms": 400, "output_hash": f"{step:064x}"}
        events.append(called(step, at + step + 0.4, "tool.responded", **answer))
    events.append(called(9, at + 9, "llm.called", model="m", prompt_tokens=100))
    events.append(called(9, at + 10, "llm.responded", completion_tokens=9, finish_reason="stop", output_length=40))
    if end:
        events.append(called(10, at + 11, end, exit_reason="final_answer"))
    return [one | {"run_id": f"run-{n}", "agent_id": AGENT, "agent_version": version} for one in events]


def post(server: Server, path: str, body: dict[str, Any]) -> None:
    httpx.post(f"{server.ingest_url}{path}", json=body, trust_env=False).raise_for_status()


def wait_until(server: Server, path: str, done: Callable[[Any], bool]) -> Any:
    deadline = time.monotonic() + WITHIN_S
    while not done(found := httpx.get(f"{server.api_url}{path}", trust_env=False).json()):
        assert time.monotonic() < deadline, (found, server.log_tail())
        time.sleep(0.05)
    return found


def test_the_commands_of_the_empty_page_bring_the_first_agent(real: Server, browser: Browser) -> None:
    watched = watch(browser, real)
    page = watched.go()
    expect(page.locator("h1")).to_have_text("No agent has been heard of yet")
    curl, _, python = (block.inner_text() for block in page.locator("pre").all())
    shown = "http://127.0.0.1:8001"
    assert shown in curl and shown in python
    subprocess.run(["sh", "-c", curl.replace(shown, real.ingest_url)], check=True, capture_output=True, timeout=30)
    wait_until(real, "/v1/agents", lambda found: found["agents"])
    page.reload()
    expect(page.locator("tbody tr th")).to_have_text("my-agent")
    snippet = python.replace(shown, real.ingest_url)
    subprocess.run([sys.executable, "-c", snippet], check=True, capture_output=True, timeout=30)
    wait_until(real, "/v1/agents/my-agent/runs", lambda found: found["page"]["total"] == 2)
    page.locator("tbody a").click()
    expect(page.locator("tbody tr")).to_have_count(2)
    watched.assert_clean()
    page.context.close()


def test_every_view_says_what_the_server_knows(real: Server, browser: Browser) -> None:
    events = [event for n in range(4) for event in run(n, loops=n < 2)]
    events += run(4, loops=False, end="run.errored", version="22222222") + run(5, loops=False, end="")
    post(real, "/v1/ingest", {"agent_id": AGENT, "events": events})
    post(real, "/v1/deploy", {"agent_id": AGENT, "version": "22222222"})
    base = f"/v1/agents/{AGENT}"
    wait_until(real, f"{base}/runs?status=running", lambda found: found["page"]["total"] == 1)
    wait_until(real, f"{base}/insights", lambda found: sum(one["count"] for one in found["signal_trends"]) == 3)
    watched = watch(browser, real)
    page = watched.go()
    expect(page.locator(".wrongs a")).to_have_text(["Tool loop", "First step failure"])
    expect(page.locator("tbody td").nth(1)).to_have_text("2 high 1 medium ")
    for section in ("#/issues", "#/signals"):
        expect(watched.turn_to(section).locator("#view")).to_contain_text(AGENT)
    for status, count in {"running": 1, "errored": 1, "completed": 4, "stalled": 0}.items():
        page = watched.turn_to(f"#/agents/{AGENT}?status={status}")
        expect(page.locator("tbody tr")).to_have_count(count)
    insights(page, watched)
    page = watched.turn_to("#/runs/run-0")
    expect(page.locator("details.signal .title")).to_have_text("Tool loop: look called 5 times over")
    expect(page.locator(".bar.tool")).to_have_count(5)
    page = watched.turn_to("#/runs/run-5")
    expect(page.locator(".standing")).to_have_text("Running")
    watched.assert_clean()
    page.context.close()


def insights(page: Page, watched: Watched) -> None:
    watched.turn_to(f"#/agents/{AGENT}/insights")
    assert sum(int(row[1]) for row in rows(page.locator(".chart").first)) == 3
    expect(page.locator(".release.deployed title")).to_contain_text("Version 22222222 deployed")
    expect(page.locator(".rates tbody tr").first).to_contain_text("systemic")
    expect(page.locator(".versions tbody tr")).to_have_count(2)
    expect(page.locator(".inputs tbody tr").first).to_contain_text("of 3 runs")
    expect(page.locator(".card", has_text="Time to the first tool")).to_contain_text("100 % of 6 runs called a tool.")
    expect(page.locator(".score")).to_contain_text("of 100 over the last 5 runs; more certain from 10 runs on")
    assert overflow(page) == 0
    assert too_faint(page) == []
