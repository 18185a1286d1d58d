"""The whole way in one test: an agent's process → the server's process → a webhook's receiver, default intervals."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest
from standardwebhooks import Webhook

from tests.harness.server import Server
from tests.receiver import Receiver

pytestmark = pytest.mark.alone

LIMIT_S = 1.0
SECRET = "whsec_c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0"

AGENT = """
    import json, sys, time
    from dunetrace import Dunetrace

    dt = Dunetrace(sys.argv[1])

    def say(what):
        print(json.dumps({"what": what, "at": time.time(), "run_id": run.run_id}), flush=True)

    with dt.run("loop-agent", user_input="hello", model="m", tools=["search"]) as run:
        for n in range(3):
            run.llm_called("m", prompt_tokens=10)
            run.llm_responded(completion_tokens=5, finish_reason="tool_calls", output="thinking")
            if n == 2:
                say("third call")
            run.tool_called("search", {"q": "the same"})
            if n < 2:
                run.tool_responded("search", output="nothing new")
        sys.stdin.readline()  # the run is still going on when the alert comes
        run.final_answer()

    with dt.run("stall-agent", user_input="hello", model="m", tools=["search"]) as run:
        run.tool_called("search", {"q": "once"})
        run.tool_responded("search", output="something")
        for _ in range(9):
            run.llm_called("m", prompt_tokens=10)
            run.llm_responded(completion_tokens=5, finish_reason="stop", output="thinking")
        run.final_answer()
    say("completed")
    sys.stdin.readline()
    dt.shutdown()
"""


@pytest.fixture
def agent(tmp_path: Path) -> Any:
    script = tmp_path / "agent.py"
    script.write_text(textwrap.dedent(AGENT))
    return script


def test_from_the_third_call_and_from_the_end_to_the_webhook_in_under_a_second(
    tmp_path: Path, database: str, agent: Path
) -> None:
    environment = {
        "WEBHOOK_SECRET": SECRET,
        "DUNETRACE_ALLOW_PRIVATE_DESTINATIONS": "true",
    }
    with Receiver() as receiver:
        environment["WEBHOOK_URL"] = receiver.url
        with Server(tmp_path / "data", database_url=database, env=environment) as server:
            with subprocess.Popen(
                [sys.executable, str(agent), server.ingest_url],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            ) as process:
                assert process.stdin is not None
                assert process.stdout is not None
                lags = {}
                for alerts, failure_type in enumerate(("TOOL_LOOP", "REASONING_STALL"), start=1):
                    said = json.loads(process.stdout.readline())
                    posted = receiver.wait_for(alerts)[alerts - 1]
                    body = posted.document
                    assert (body["failure_type"], body["run_id"]) == (failure_type, said["run_id"])
                    assert body["event"] == "failure_signal"
                    Webhook(SECRET).verify(posted.body, posted.headers)
                    lags[said["what"]] = posted.arrived_at - said["at"]
                    process.stdin.write("\n")
                    process.stdin.flush()
                assert process.wait(10) == 0
            print({what: f"{lag_s * 1000:.0f} ms" for what, lag_s in lags.items()})
            assert max(lags.values()) < LIMIT_S, lags
