"""An agent that loops in every run, as fast as asked for."""

from __future__ import annotations

import time
from typing import Any

import httpx
import trio

from tests.e2e.crashing import PATIENCE_S

AGENT = "loop-agent"


def looping(run_id: str) -> list[dict[str, Any]]:
    now = time.time()
    payloads: list[tuple[str, int, dict[str, Any]]] = [("run.started", 0, {"model": "m", "tools": ["search"]})]
    for step in (1, 2, 3):
        payloads.append(("tool.called", step, {"tool_name": "search", "args_hash": "a" * 64}))
        payloads.append(("tool.responded", step, {"tool_name": "search", "success": True, "output_hash": "b" * 64}))
    payloads.append(("run.completed", 3, {"total_steps": 3, "exit_reason": "final_answer"}))
    return [
        {
            "event_type": event_type, "run_id": run_id, "agent_id": AGENT, "agent_version": "6ddeb0c4",
            "step_index": step, "timestamp": now + n / 1000, "payload": payload,
        }
        for n, (event_type, step, payload) in enumerate(payloads)
    ]  # fmt: skip


async def loop(url: str, name: str, runs: int, over_s: float) -> None:
    """`runs` looping runs in batches of ten, evenly over `over_s` seconds."""
    async with httpx.AsyncClient(trust_env=False, timeout=PATIENCE_S) as http:
        for first in range(0, runs, 10):
            events = [event for n in range(first, first + 10) for event in looping(f"{name}-{n}")]
            await _post(http, f"{url}/v1/ingest", {"agent_id": AGENT, "events": events}, f"{name}-{first}")
            await trio.sleep(over_s * 10 / runs)


async def _post(http: httpx.AsyncClient, url: str, batch: dict[str, Any], key: str) -> None:
    """Until it is taken: on a machine that is busy with other tests, the door may have to say 503."""
    with trio.fail_after(PATIENCE_S):
        while (answer := await http.post(url, json=batch, headers={"Idempotency-Key": key})).status_code == 503:
            await trio.sleep(float(answer.headers["Retry-After"]))
    assert answer.status_code == 202
