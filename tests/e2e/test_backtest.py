"""``python -m dunetrace backtest`` beside a running server: it tells what would change, and changes nothing."""

from __future__ import annotations

import json
import random
import time
from pathlib import Path

import httpx
import pytest

from tests.harness.invariants import rows, settle
from tests.harness.server import Server
from tests.harness.shapes import Script, healthy, looping
from tests.test_cli import dunetrace, one_line

TABLES = (
    "events", "run_touches", "runs", "processed_runs", "failure_signals", "issues", "agents", "agent_hours",
    "signal_hours", "deliveries", "fixes",
)  # fmt: skip


def _everything(url: str) -> dict[str, list[str]]:
    """Every row of the tables that say something of runs."""
    return {name: sorted(str(dict(row)) for row in rows(url, f"SELECT * FROM {name}")) for name in TABLES}


async def test_what_would_change(tmp_path: Path) -> None:
    dice = random.Random(7)
    data_dir = tmp_path / "data"
    with Server(data_dir) as server:
        scripts = {}
        for shape in (healthy, looping):
            script = scripts[shape] = Script(dice, "agent", time.time())
            shape(script)
            body = {"agent_id": "agent", "events": script.events}
            assert httpx.post(f"{server.ingest_url}/v1/ingest", json=body, trust_env=False).status_code == 202
        await settle(server.database_url, server=server, timeout_s=60)
        before = _everything(server.database_url)
        config = tmp_path / "new.yml"
        config.write_text("default: {tool_loop: {enabled: false}}")
        asked = ("backtest", "--config", str(config), "--agent", "agent")
        done = dunetrace(data_dir, *asked)
        assert done.returncode == 0, done.stderr
        assert "2 runs judged twice" in done.stdout
        assert f"would disappear in 1: {scripts[looping].run_id}" in done.stdout
        found = json.loads(dunetrace(data_dir, *asked, "--json").stdout)
        assert found["changes"]["TOOL_LOOP"]["disappear"] == [scripts[looping].run_id]
        assert json.loads(dunetrace(data_dir, *asked, "--json", "--limit", "1").stdout)["runs"] == 1
        assert "has no agent 'agnet'; the nearest is 'agent'" in one_line(dunetrace(data_dir, *asked[:-1], "agnet"))
        assert _everything(server.database_url) == before


@pytest.mark.parametrize(
    ("text", "said"),
    [("default: {tool_lop: {}}", "did you mean `tool_loop`?"), ("default: [", "is not YAML"), (None, "cannot be read")],
)
def test_a_file_that_is_none(tmp_path: Path, text: str | None, said: str) -> None:
    config = tmp_path / "new.yml"
    if text is not None:
        config.write_text(text)
    assert said in one_line(dunetrace(tmp_path, "backtest", "--config", str(config), "--agent", "a"))


def test_a_length_of_time_that_is_none(tmp_path: Path) -> None:
    done = dunetrace(tmp_path, "backtest", "--config", "x.yml", "--agent", "a", "--since", "7 days")
    assert done.returncode == 2 and "it looks like 90m, 12h, 7d or 2w" in done.stderr
