"""The published MCP client against this server, unmodified: each of its tools that reads answers with our data."""

from __future__ import annotations

import random
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest

from tests.harness.invariants import assert_invariants, settle
from tests.harness.server import Server
from tests.harness.shapes import Script, healthy, looping
from tests.mcp import McpClient

LOOPS, HEALTHY = 3, 9
TOKENS = "Total tokens:"


class World(NamedTuple):
    """A server that has judged an agent's runs, and the names of what is in it."""

    server: Server
    database: str
    loop_run: str
    healthy_run: str
    signal_id: int
    issue_id: int


def get(server: Server, path: str) -> Any:
    answer = httpx.get(server.api_url + path, trust_env=False)
    assert answer.status_code == 200, answer.text
    return answer.json()


def send_runs(server: Server, loops: int, healthy_runs: int, seed: int) -> list[str]:
    """The ids of new runs of `shop`, loops first."""
    rng = random.Random(seed)
    scripts = [Script(rng, "shop", time.time() - 60 + n) for n in range(loops + healthy_runs)]
    for n, script in enumerate(scripts):
        looping(script) if n < loops else healthy(script)
    events = [event for script in scripts for event in script.events]
    answer = httpx.post(f"{server.ingest_url}/v1/ingest", json={"agent_id": "shop", "events": events}, trust_env=False)
    assert answer.status_code == 202, answer.text
    return [script.run_id for script in scripts]


@pytest.fixture
async def world(tmp_path: Path, database: str) -> AsyncIterator[World]:
    with Server(tmp_path / "data", database_url=database) as server:
        quiet = send_runs(server, 0, HEALTHY, seed=1)
        await settle(database, server=server)
        loops = send_runs(server, LOOPS, 0, seed=2)  # judged last, so that their issue is open
        await settle(database, server=server)
        signals = get(server, "/v1/agents/shop/signals")["signals"]
        (issue,) = get(server, "/v1/agents/shop/issues")["issues"]
        yield World(server, database, loops[0], quiet[-1], signals[0]["id"], issue["id"])


async def test_every_tool_that_reads_answers_with_our_data(world: World, tmp_path: Path) -> None:
    signal, issue = world.signal_id, world.issue_id
    copied = httpx.post(
        f"{world.server.api_url}/v1/signals/{signal}/record-copy", json={"fix_content": "Stop"}, trust_env=False
    )
    assert copied.status_code == 200
    shop = {"agent_id": "shop"}
    # tool → its arguments, and words that its answer must hold
    expected: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
        "list_agents": ({}, ("shop", "TOOL_LOOP×3", "1 agent(s) total")),
        "get_agent_signals": (shop | {"severity": "HIGH"}, ("[HIGH] TOOL_LOOP", "`search`")),
        "get_agent_health": (shop, ("/100", "Sample runs:     12", "Baseline ready:  yes", "3 of 12 runs failed")),
        "get_run_detail": (shop | {"run_id": world.loop_run}, ("TOOL_LOOP", "tool=search", "run.completed")),
        "search_signals": ({"failure_type": "TOOL_LOOP", "since_hours": 1}, ("3 matched", "agent=shop")),
        "get_signal_detail": (shop | {"signal_id": signal}, ("TOOL_LOOP", "call_count: 5", "Suggested fixes (3)")),
        "get_agent_patterns": (shop, ("SYSTEMIC", "TOOL_LOOP", "3/12 runs (25%)")),
        "summarize_agent": (shop, ("/100", "Total runs:    12", "(25% of runs)")),
        "get_agent_runs": (shop | {"limit": 5}, (world.healthy_run[:8], "5 of 12 runs")),
        "list_voice_calls": ({}, ("No voice calls",)),
        "get_fix_status": ({"signal_id": signal}, ("INSUFFICIENT DATA", "Runs before fix:   12", "recurrence: 3")),
        "list_agent_fixes": (shop, ("(1 total)", "prompt_addition", "clipboard", "insufficient_data")),
        "list_policies": ({}, ("No policies",)),
        "list_custom_detectors": ({}, ("No custom detectors",)),
        "list_agent_issues": (shop, ("TOOL_LOOP", "3  open")),
        "get_issue": ({"issue_id": issue}, ("TOOL_LOOP on shop", "Affected runs: 3 total", world.loop_run[:8])),
        "search_issues": ({"query": "sho", "status": "open", "failure_type": "TOOL_LOOP"}, ("1 total", "shop")),
        "get_failure_pattern_detail": (
            shop | {"failure_type": "TOOL_LOOP"}, ("3 signals across 3 runs", "14-day trend", "step 6"),
        ),
        "compare_runs": (
            {"run_id_1": world.loop_run, "run_id_2": world.healthy_run}, ("TOOL_LOOP [HIGH]", "none", "!!"),
        ),
        "get_instrumentation_guide": ({"framework": "python"}, ("Dunetrace",)),
        "get_agent_token_stats": (shop, (TOKENS, "Runs:                  12", "TOOL_LOOP", "(3 runs)")),
    }  # fmt: skip
    with McpClient(world.server.api_url, tmp_path / "home") as client:
        # What it says of a call that does not exist is a refusal, as it should be.
        assert client.tools().keys() == expected.keys() | {"get_call_detail"}
        for tool, (arguments, words) in expected.items():
            answer = client.call(tool, **arguments)
            assert [word for word in words if word not in answer] == [], f"{tool}\n{answer}"


async def test_an_agent_nobody_knows_is_no_error(world: World, tmp_path: Path) -> None:
    with McpClient(world.server.api_url, tmp_path / "home") as client:
        for tool in (
            "get_agent_signals", "get_agent_patterns", "get_agent_runs", "list_agent_fixes",
            "list_agent_issues", "get_agent_token_stats", "get_agent_health",
        ):  # fmt: skip
            client.call(tool, agent_id="nobody")
        client.call("get_failure_pattern_detail", agent_id="nobody", failure_type="TOOL_LOOP")


async def test_an_issue_it_resolves_is_resolved_until_it_is_seen_again(world: World, tmp_path: Path) -> None:
    def state() -> dict[str, Any]:
        return dict(get(world.server, f"/v1/issues/{world.issue_id}"))

    assert state()["status"] == "open"
    with McpClient(world.server.api_url, tmp_path / "home", writes=True) as client:
        answer = client.call("resolve_issue", issue_id=world.issue_id, resolution_notes="CANARY-note")
        assert "resolved" in answer
    resolved = state()
    assert (resolved["status"], resolved["clean_runs_since"]) == ("resolved", 0)
    assert resolved["resolved_at"] is not None
    await assert_invariants(world.database, server=world.server)

    send_runs(world.server, 0, 2, seed=3)  # clean runs change nothing
    await assert_invariants(world.database, server=world.server)
    assert (state()["status"], state()["clean_runs_since"]) == ("resolved", 2)
    send_runs(world.server, 1, 0, seed=4)
    await assert_invariants(world.database, server=world.server)
    again = state()
    assert (again["status"], again["resolved_at"], again["affected_runs_count"]) == ("reopened", None, LOOPS + 1)
    assert b"CANARY" not in world.server.log_path.read_bytes()
