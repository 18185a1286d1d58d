"""Published clients against this server, unmodified: their loops are found while they loop, and what they send of
content is nowhere on disk."""

from __future__ import annotations

import subprocess
import textwrap
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.harness.invariants import assert_invariants
from tests.harness.server import Server
from tests.published import python_of

AGENT = """
    import os, sys
    from dunetrace import Dunetrace

    dt = Dunetrace(endpoint=sys.argv[1], api_key="dt_dev_test")
    raw = os.environ.get("RAW")  # only clients from 0.4 on take content
    extra = lambda **content: content if raw else {}
    told = dict(user_input="CANARY-input", system_prompt="CANARY-system")
    with dt.run("published", model="m", tools=["search"], **told) as run:
        for n in range(3):
            run.llm_called("m", prompt_tokens=10)
            answer = extra(output="CANARY-llm")
            run.llm_responded(completion_tokens=4, latency_ms=10, finish_reason="tool_calls", **answer)
            run.tool_called("search", {"q": "CANARY-arguments"})
            if n < 2:
                run.tool_responded("search", success=True, output_length=5, latency_ms=3, **extra(output="CANARY-tool"))
        print("looping", flush=True)
        sys.stdin.readline()
        run.tool_responded("search", success=False, error="CANARY-error")
        run.retrieval_called("index", "CANARY-query" if raw else "abc")
        run.retrieval_responded("index", result_count=1, top_score=0.5, latency_ms=3, **extra(content="CANARY-found"))
        run.external_signal("rate_limit", source="model", note="CANARY-meta")
        run.final_answer()
    dt.shutdown()
"""


def signals(server: Server) -> list[dict[str, Any]]:
    answer = httpx.get(f"{server.api_url}/v1/agents/published/signals", trust_env=False)
    found: list[dict[str, Any]] = answer.json()["signals"]
    return found


def run_of(server: Server) -> dict[str, Any]:
    (run,) = httpx.get(f"{server.api_url}/v1/agents/published/runs", trust_env=False).json()["runs"]
    return dict(run)


@pytest.mark.parametrize(("version", "raw"), [("0.3.9", ""), ("0.5.7", "yes")])
async def test_a_looping_client_is_found_in_flight(version: str, raw: str, tmp_path: Path) -> None:
    script = tmp_path / "agent.py"
    script.write_text(textwrap.dedent(AGENT))
    with Server(tmp_path / "data") as server:
        with subprocess.Popen(
            [str(python_of(version)), str(script), server.ingest_url],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={"RAW": raw, "HOME": str(tmp_path)},
        ) as client:  # fmt: skip
            assert client.stdout is not None
            assert client.stdin is not None
            assert client.stdout.readline() == "looping\n"
            deadline = time.monotonic() + 10
            while not (found := signals(server)):
                assert time.monotonic() < deadline, server.log_tail()
            assert [(signal["failure_type"], signal["severity"]) for signal in found] == [("TOOL_LOOP", "HIGH")]
            assert run_of(server)["status"] == "running"
            client.stdin.write("\n")
            client.stdin.flush()
            assert client.wait(30) == 0
        await assert_invariants(server.database_url)
        run = run_of(server)
        assert (run["status"], run["exit_reason"], run["step_count"]) == ("ended", "run.completed", 7)
        answers = httpx.get(f"{server.api_url}/v1/runs/{run['run_id']}", trust_env=False).content
        server.terminate()
        on_disk = [path for path in (tmp_path / "data").rglob("*") if path.is_file()]
        assert len(on_disk) > 100
        assert [path.name for path in on_disk if b"CANARY" in path.read_bytes()] == []
        assert b"CANARY" not in answers
