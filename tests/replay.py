"""Replays 200 recorded runs of a real customer-service agent into a running server, through the SDK and over HTTP.

``python -m tests.replay`` starts a server of its own and prints what fired on the runs that passed and on
those that failed; tests/e2e/test_replay.py does the same as a test. The data lies where tests/shared.py looks for it.
"""

from __future__ import annotations

import gzip
import json
import tempfile
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import trio

from dunetrace import Dunetrace, RunContext
from tests.harness.invariants import rows, settle
from tests.harness.server import Server
from tests.shared import shared

AGENT = "tau-airline"
SYSTEM_PROMPT = "You are a customer service agent of an airline."
CHARS_PER_TOKEN = 4
FLUSH_EVERY_RUNS = 20  # well below the SDK's ring
FLUSH_S = 30


def recorded() -> list[dict[str, Any]]:
    with gzip.open(shared("data/tau-airline.jsonl.gz"), "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


@dataclass
class Report:
    """`mistakes` are runs that were not judged as recorded; `fired` counts runs by (type, severity, success)."""

    runs: int = 0
    passing: int = 0
    mistakes: list[str] = field(default_factory=list)
    fired: Counter[tuple[str, str, bool]] = field(default_factory=Counter)

    def table(self) -> str:
        failing = self.runs - self.passing
        lines = [f"{'signal':<26}{'severity':<10}{f'passing ({self.passing})':>14}{f'failing ({failing})':>14}"]
        for kind, severity in sorted({(kind, severity) for kind, severity, _ in self.fired}):
            counts = [self.fired[kind, severity, success] for success in (True, False)]
            lines.append(f"{kind:<26}{severity:<10}{counts[0]:>14}{counts[1]:>14}")
        return "\n".join(lines)


async def replay(server: Server) -> Report:
    """Send all runs, wait until they are judged, compare. The server's database must be fresh."""
    data = recorded()
    await trio.to_thread.run_sync(send, server.ingest_url, data)
    await settle(server.database_url, server=server, timeout_s=120)
    return await trio.to_thread.run_sync(compare, server, data)


def send(endpoint: str, data: list[dict[str, Any]]) -> None:
    """Every run through the SDK's public names, as an instrumented agent would. AssertionError if some isn't taken."""
    dt = Dunetrace(endpoint)
    tools = sorted({call["name"] for row in data for call in _calls(row)})
    for number, row in enumerate(data, 1):
        _play(dt, row, tools)
        if number % FLUSH_EVERY_RUNS == 0:
            assert dt.flush(FLUSH_S), dt.stats()
    assert dt.flush(FLUSH_S), dt.stats()
    dt.shutdown()


def _play(dt: Dunetrace, row: dict[str, Any], tools: list[str]) -> None:
    first, *rest = row["messages"]
    prompt_chars = iter(row["llm_prompt_chars"])
    with dt.run(
        AGENT,
        run_id=row["id"],
        user_input=first["content"],
        system_prompt=SYSTEM_PROMPT,
        model=row["model"],
        tools=tools,
    ) as run:
        for message in rest:
            if message["role"] == "user":
                run.user_message(message["content"])
            elif message["role"] == "assistant":
                _answer(run, row["model"], message, next(prompt_chars))
            else:
                text = message["content"]
                failed = text.startswith("Error")
                run.tool_responded(message["name"], success=not failed, output=text, error=text if failed else None)
        run.final_answer()


def _answer(run: RunContext, model: str, message: dict[str, Any], prompt_chars: int) -> None:
    """The model's answer, and the calls of tools it asked for."""
    calls = message.get("tool_calls") or []
    text = message["content"] or ""
    run.llm_called(model, prompt_tokens=prompt_chars // CHARS_PER_TOKEN)
    written = text + "".join(call["arguments"] for call in calls)
    run.llm_responded(
        completion_tokens=max(1, len(written) // CHARS_PER_TOKEN),
        finish_reason="tool_calls" if calls else "stop",
        output=written,
    )
    for call in calls:
        run.tool_called(call["name"], json.loads(call["arguments"]))


def compare(server: Server, data: list[dict[str, Any]]) -> Report:
    """What the server made of `data`, against what was recorded."""
    report = Report(runs=len(data), passing=sum(row["success"] for row in data))
    judged = {row["run_id"]: row for row in rows(server.database_url, "SELECT * FROM runs")}
    for row in data:
        llm = sum(message["role"] == "assistant" for message in row["messages"])
        expected = {
            "trigger": "run.completed",
            "llm_calls": llm,
            "tool_calls": len(_calls(row)),
            "step_count": llm + len(_calls(row)),
        }
        found = judged.pop(row["id"], None)
        if found is None:
            report.mistakes.append(f"{row['id']}: not judged")
        else:
            report.mistakes += [
                f"{row['id']}: {name} is {found[name]}, recorded were {value}"
                for name, value in expected.items()
                if found[name] != value
            ]
    report.mistakes += [f"{run_id}: nobody sent it" for run_id in judged]
    success = {row["id"]: bool(row["success"]) for row in data}
    for signal in signals(server.api_url, AGENT):
        report.fired[signal["failure_type"], signal["severity"], success[signal["run_id"]]] += 1
    return report


def signals(api_url: str, agent_id: str) -> list[dict[str, Any]]:
    """All of an agent's live signals, page by page, from the API."""
    found: list[dict[str, Any]] = []
    more = True
    with httpx.Client(base_url=api_url, trust_env=False) as api:
        while more:
            query: dict[str, str | int] = {"offset": len(found), "limit": 500, "explain": "false"}
            answer = api.get(f"/v1/agents/{agent_id}/signals", params=query).raise_for_status().json()
            found += answer["signals"]
            more = answer["page"]["has_more"]
    return found


def _calls(row: dict[str, Any]) -> list[dict[str, Any]]:
    return [call for message in row["messages"] for call in message.get("tool_calls") or ()]


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="dunetrace-eval-") as directory, Server(Path(directory)) as server:
        report = trio.run(replay, server)
    print(report.table())
    if report.mistakes:
        raise SystemExit("\n".join(report.mistakes))
    print(f"{report.runs} runs judged, each with the number of model and tool calls it was recorded with")


if __name__ == "__main__":
    main()
