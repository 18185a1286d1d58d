"""Real processes and Slack: an alert beside the webhook's, and one digest a week from whoever is up."""

from __future__ import annotations

import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx

from tests import slack
from tests.harness.server import Server
from tests.harness.world import execute
from tests.receiver import Mode, Receiver

HOSTILE = "<!here> @channel `search` | <@U012AB3CD>"


def _looping(run_id: str) -> dict[str, Any]:
    """A run that calls the same tool three times."""
    now = time.time()
    payloads: list[tuple[str, int, dict[str, Any]]] = [("run.started", 0, {"model": "m", "tools": [HOSTILE]})]
    for step in (1, 2, 3):
        payloads.append(("tool.called", step, {"tool_name": HOSTILE, "args_hash": "a" * 64}))
        payloads.append(("tool.responded", step, {"tool_name": HOSTILE, "success": True, "output_hash": "b" * 64}))
    payloads.append(("run.completed", 3, {"total_steps": 3, "exit_reason": "final_answer"}))
    return {
        "agent_id": HOSTILE,
        "events": [
            {
                "event_type": event_type, "run_id": run_id, "agent_id": HOSTILE, "agent_version": "6ddeb0c4",
                "step_index": step, "timestamp": now + n / 1000, "payload": payload,
            }
            for n, (event_type, step, payload) in enumerate(payloads)
        ],
    }  # fmt: skip


def test_an_alert_in_slack_opens_the_run_on_the_page_while_the_webhook_hangs(tmp_path: Path, database: str) -> None:
    with Receiver(slack=True) as channel, Receiver() as hook:
        hook.mode = Mode.HANG
        env = {
            "SLACK_WEBHOOK_URL": channel.url, "WEBHOOK_URL": hook.url, "WEBHOOK_SECRET": "a secret",
            "DUNETRACE_ALLOW_PRIVATE_DESTINATIONS": "true",
        }  # fmt: skip
        with Server(tmp_path, database_url=database, env=env) as server:
            answer = httpx.post(f"{server.ingest_url}/v1/ingest", json=_looping("a/run"), trust_env=False)
            assert answer.status_code == 202
            (request,) = channel.wait_for(1)
            hook.wait_for(1)
            hook.close()
            log = server.log_path.read_text()
    document = slack.accept(request.body)
    slack.assert_only_says_what_it_says(document)
    button = document["attachments"][0]["blocks"][-1]["elements"][0]
    assert button["url"] == f"{server.dashboard_url}/#/runs/a%2Frun"
    assert document["text"].startswith("HIGH: ")
    assert channel.path not in log and hook.path not in log
    assert "b" * 64 not in request.body.decode()


def test_two_processes_send_one_digest_and_late(tmp_path: Path, database: str) -> None:
    execute(
        database,
        "INSERT INTO digests (destination, due_at, state) VALUES ('slack', now() - interval '15 days', 'done')",
    )
    with Receiver(slack=True) as channel, ExitStack() as processes:
        env = {"SLACK_WEBHOOK_URL": channel.url, "DUNETRACE_ALLOW_PRIVATE_DESTINATIONS": "true"}
        for name in ("one", "two"):
            processes.enter_context(
                Server(tmp_path / name, database_url=database, env=env, args=["--actors", "digest"])
            )
        channel.wait_for(1)
        processes.close()  # a stop lets the attempt in hand end
        assert len(channel.requests) == 1
    document = slack.accept(channel.requests[0].body)
    assert document["text"].startswith("Dunetrace, the week to Monday ")
    assert "actions" not in [block["type"] for block in document["attachments"][0]["blocks"]]  # no page in this process
