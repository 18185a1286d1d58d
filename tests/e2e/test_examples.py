"""The example agents against a running server: what they do wrong is found, and the demo shows something at once."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import trio

from dunetrace.signals import FailureType
from tests.harness.invariants import assert_invariants, rows
from tests.harness.server import Server
from tests.shared import CHECKOUT

EXAMPLES = CHECKOUT / "examples"
DEMO_AGENTS = {"support-agent", "research-agent", "billing-agent"}
STALL_S = 3  # an abandoned run shows after the stall timeout


async def test_the_basic_agents_three_runs(database: str, tmp_path: Path) -> None:
    with Server(tmp_path, database_url=database) as server:
        command = [sys.executable, "-W", "error", str(EXAMPLES / "basic_agent.py"), "--endpoint", server.ingest_url]
        done = await trio.run_process(command, capture_stdout=True, capture_stderr=True)
        assert (done.stdout.decode().count("run done"), done.stderr) == (3, b"")
        await assert_invariants(database, server=server)
    found = rows(
        database,
        "SELECT r.started_at, array_agg(s.failure_type) FILTER (WHERE s.id IS NOT NULL) AS types, r.trigger "
        "FROM runs r LEFT JOIN failure_signals s USING (run_id, customer_id) GROUP BY 1, 3 ORDER BY 1",
    )
    assert [row["types"] for row in found] == [None, ["TOOL_LOOP"], ["PROMPT_INJECTION_SIGNAL"]]
    assert {row["trigger"] for row in found} == {"run.completed"}


async def test_each_failure_is_found_as_what_it_is_and_nothing_else(database: str, tmp_path: Path) -> None:
    env = {"DUNETRACE_STALL_TIMEOUT": str(STALL_S)}
    with Server(tmp_path, database_url=database, env=env) as server:
        command = [sys.executable, "-W", "error", str(EXAMPLES / "failures.py"), "--endpoint", server.ingest_url]
        done = await trio.run_process(command, capture_stdout=True, capture_stderr=True)
        assert (done.stdout.decode().split(": played\n"), done.stderr) == ([*FailureType, ""], b"")
        await until(lambda: bool(rows(database, "SELECT 1 FROM runs WHERE trigger = 'stalled'")), 30)
        await assert_invariants(database, server=server)
    found = rows(
        database,
        "SELECT r.started_at, r.parent_run_id, array_agg(s.failure_type) FILTER (WHERE s.id IS NOT NULL) AS types "
        "FROM runs r LEFT JOIN failure_signals s USING (run_id, customer_id) GROUP BY 1, 2 ORDER BY 1",
    )
    assert [row["types"] for row in found if row["types"]] == [[failure_type] for failure_type in FailureType]
    assert {row["parent_run_id"] for row in found} == {None}


def test_a_failure_nobody_knows_is_named() -> None:
    command = [sys.executable, str(EXAMPLES / "failures.py"), "TOOL_LOPE"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert "unknown type TOOL_LOPE; there are TOOL_LOOP, " in done.stderr


def test_an_agent_whose_server_is_away_says_so(tmp_path: Path) -> None:
    command = [sys.executable, str(EXAMPLES / "basic_agent.py"), "--endpoint", "http://127.0.0.1:9"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert "is the server running there?" in done.stderr


async def test_the_demo_shows_every_kind_of_signal_within_seconds(database: str, tmp_path: Path) -> None:
    env = {"DUNETRACE_STALL_TIMEOUT": str(STALL_S)}
    with Server(tmp_path, database_url=database, args=["--demo"], env=env) as server:
        agents: dict[str, Any] = {}

        def enough() -> bool:
            answer = httpx.get(f"{server.api_url}/v1/agents", trust_env=False).json()
            agents.update({agent["agent_id"]: agent for agent in answer["agents"]})
            return {kind for agent in agents.values() for kind in agent["failure_types"]} >= set(FailureType)

        await until(enough, 30)
        assert set(agents) == DEMO_AGENTS
        assert sum(agent["run_count"] for agent in agents.values()) >= 35
        demo = children(server.pid)
        assert len(demo) == 1
        assert server.terminate() == 0
        await until(lambda: not alive(demo[0]), 5)
        await assert_invariants(database)


async def test_the_demo_ends_with_the_process_that_started_it(database: str, tmp_path: Path) -> None:
    with Server(tmp_path, database_url=database, args=["--demo"]) as server:
        await until(lambda: bool(children(server.pid)), 10)
        (demo,) = children(server.pid)
        server.kill()
        await until(lambda: not alive(demo), 20)


async def test_the_demo_stops_on_sigterm(database: str, tmp_path: Path) -> None:
    with Server(tmp_path, database_url=database) as server:
        command = [sys.executable, str(EXAMPLES / "demo.py"), "--endpoint", server.ingest_url, "--seed", "1"]
        demo = subprocess.Popen([*command, "--forever"])
        try:
            await until(lambda: bool(rows(database, "SELECT 1 FROM runs LIMIT 1")), 20)
        finally:
            demo.send_signal(signal.SIGTERM)
            assert await trio.to_thread.run_sync(lambda: demo.wait(15)) == 0
        await assert_invariants(database)


async def until(true: Callable[[], bool], timeout_s: float) -> None:
    """Look again and again; AssertionError when it isn't so after `timeout_s`."""
    deadline = trio.current_time() + timeout_s
    while not await trio.to_thread.run_sync(true):
        assert trio.current_time() < deadline, f"not so after {timeout_s} s: {true}"
        await trio.sleep(0.1)


def children(pid: int) -> list[int]:
    """The pids of a process's children."""
    listed = subprocess.run(["pgrep", "-P", str(pid)], capture_output=True, text=True, check=False)
    return [int(line) for line in listed.stdout.split()]


def alive(pid: int) -> bool:
    """Whether a process runs; one that has ended and waits for its parent doesn't."""
    try:
        os.kill(pid, 0)
        return b"\nState:\tZ" not in Path(f"/proc/{pid}/status").read_bytes()
    except (ProcessLookupError, FileNotFoundError):
        return False
