"""The calls on the page of fixes are made as they stand there, one after the other, on a running server."""

from __future__ import annotations

import json
import os
import random
import subprocess
import time
from functools import partial
from pathlib import Path

import httpx
import trio

from tests.docs.pages import code_blocks
from tests.harness.invariants import settle
from tests.harness.server import Server
from tests.harness.shapes import Script, looping
from tests.langfuse import Langfuse, observation
from tests.models import ROOT_CAUSE, Model
from tests.postgres import TestPostgres
from tests.shared import CHECKOUT

PAGE = CHECKOUT / "docs" / "fixes.md"


def test_the_calls_work(tmp_path: Path, postgres: TestPostgres) -> None:
    database = postgres.database()
    run = Script(random.Random(1), "shop", time.time() - 10)
    looping(run)
    with Langfuse() as langfuse, Model() as model:
        langfuse.traces[run.run_id.replace("-", "")] = [observation("answer", prompt=("support/answers", 1))]
        langfuse.put("support/answers", "You answer questions.", labels=["production"])
        with Server(tmp_path, database_url=database, env={**langfuse.environment, **model.environment}) as server:
            body = {"agent_id": "shop", "events": run.events}
            httpx.post(f"{server.ingest_url}/v1/ingest", json=body, trust_env=False).raise_for_status()
            trio.run(partial(settle, database, server=server))
            found = httpx.get(f"{server.api_url}/v1/agents/shop/signals", trust_env=False).json()["signals"]
            signal = next(one["id"] for one in found if one["failure_type"] == "TOOL_LOOP")
            environment = {"PATH": os.environ["PATH"], "DUNETRACE": server.api_url, "KEY": "k", "SIGNAL": str(signal)}
            answers = [
                json.loads(subprocess.run(["sh", "-c", call], env=environment, check=True, capture_output=True).stdout)
                for call in code_blocks(PAGE, "sh")
            ]
    explained, applied, copied, status = answers
    shown, shown_applied = (json.loads(block) for block in code_blocks(PAGE, "json"))
    assert (set(explained), set(applied)) == (set(shown), set(shown_applied))
    assert (explained["source"], explained["root_cause"]) == ("langfuse", ROOT_CAUSE)
    assert (applied["new_version"], applied["old_text"]) == (2, "You answer questions.")
    assert copied["signal_id"] == signal
    assert (status["verdict"], [one["applied_via"] for one in status["fixes"]]) == (
        "insufficient_data", ["langfuse", "clipboard"],
    )  # fmt: skip
