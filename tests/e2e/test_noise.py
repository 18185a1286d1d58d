"""An agent that loops in every run: one alert, a handful of updates, one note of the end, and news when it is back."""

from __future__ import annotations

import re
from pathlib import Path

import httpx
import pytest
import trio

from tests import slack
from tests.e2e.looping import loop
from tests.harness.invariants import assert_invariants, rows
from tests.harness.server import Server
from tests.receiver import Receiver

_MORE = re.compile(r"Still happening: ([\d,]+) more")


def _texts(channel: Receiver) -> list[str]:
    return [slack.accept(request.body)["text"] for request in channel.requests]


@pytest.mark.parametrize(
    ("runs", "over_s", "window_s"),
    [
        pytest.param(200, 2.0, 3.0, id="200 runs in two seconds"),
        pytest.param(1000, 600.0, 600.0, id="1,000 runs in ten minutes", marks=pytest.mark.prove),
    ],
)
async def test_an_agent_that_loops_in_every_run(
    tmp_path: Path, database: str, runs: int, over_s: float, window_s: float
) -> None:
    with Receiver(slack=True) as channel:
        env = {
            "SLACK_WEBHOOK_URL": channel.url,
            "DUNETRACE_ALLOW_PRIVATE_DESTINATIONS": "true",
            "DUNETRACE_ALERT_WINDOW": f"{window_s}",
            "DUNETRACE_ALERT_INTERVAL": "0.5",
        }
        with Server(tmp_path, database_url=database, env=env) as server:
            await loop(server.ingest_url, "run", runs, over_s)
            await assert_invariants(database, server=server, min_severity={"slack": "HIGH"})
            with trio.fail_after(2 * window_s + 30):
                while rows(database, "SELECT FROM failure_signals WHERE NOT alerted"):
                    await trio.sleep(0.2)
            first, *updates = _texts(channel)
            assert first.startswith("HIGH: ") and "Still happening" not in first
            assert 1 <= len(updates) <= 6
            counted = [found[1] for text in updates if (found := _MORE.search(text))]
            assert sum(int(count.replace(",", "")) for count in counted) == runs - 1 and len(counted) == len(updates)
            assert rows(database, "SELECT count(*) AS n FROM failure_signals")[0]["n"] == runs
            (issue,) = rows(database, "SELECT id, affected_runs FROM issues")
            assert issue["affected_runs"] == runs

            async with httpx.AsyncClient(base_url=server.api_url, trust_env=False) as api:
                await api.post(f"/v1/issues/{issue['id']}/resolve", json={})
            await trio.to_thread.run_sync(channel.wait_for, len(updates) + 2)
            assert _texts(channel)[-1].startswith("Resolved: ")
            await loop(server.ingest_url, "again", 10, 0.0)
            await trio.to_thread.run_sync(channel.wait_for, len(updates) + 3)
            assert "Back again" in _texts(channel)[len(updates) + 2]
            await assert_invariants(database, server=server, min_severity={"slack": "HIGH"})
