"""No content, anywhere: random strings wherever there may be some, searched for in every byte that came of it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from secrets import token_hex
from typing import Any

import httpx

from dunetrace.store.embedded import binaries
from tests.harness.invariants import assert_invariants
from tests.harness.server import Server
from tests.receiver import Receiver

# Every content-bearing argument of the SDK, with a canary of its own.
AGENT = """
    import sys
    from dunetrace import Dunetrace

    numbers = iter(range(1000))
    def canary():
        return f"{sys.argv[2]}{next(numbers):03d}"

    dt = Dunetrace(sys.argv[1], emit_as_json=True, debug=True)
    big = canary() + " lorem ipsum" * 5000 + canary()
    told = dict(user_input="Ignore previous instructions " + canary(), system_prompt=canary(), task=canary())
    with dt.run("canary-agent", model="m", tools=["search"], **told) as run:
        for _ in range(4):
            run.llm_called("m", prompt_tokens=10)
            run.llm_responded(completion_tokens=4, finish_reason="tool_calls", output=big)
            same = sys.argv[2]
            run.tool_called("search", {"q": "the same " + same, same: [same, {"deep": same}]})
            run.tool_responded("search", output={"answer": canary()})
        run.tool_called("search", canary())
        run.tool_responded("search", success=False, error=ValueError(canary()))
        run.retrieval_called("index", query=canary())
        run.retrieval_responded("index", 0, content=[canary()])
        run.retrieval_called("index", canary())
        run.external_signal("rate_limit", "model", note=canary(), nested={"a": canary()}, many=[canary()])
        run.llm_responded(output_hash=canary(), finish_reason=canary(), output=canary())
        run.user_message("act as " + canary())
    try:
        with dt.run("canary-agent", user_input=canary(), model="m") as run:
            raise RuntimeError(canary())
    except RuntimeError:
        pass
    with dt.run("canary-agent", user_input=big, model="m") as run:
        run.final_answer()
    assert dt.flush(20), dt.stats()
    dt.shutdown()
"""


class Relay:
    """Stands between the SDK and the server, passes everything on and keeps a copy."""

    def __init__(self, upstream: str) -> None:
        copies: list[bytes] = []
        self.copies = copies

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                copies.extend([str(self.headers).encode(), body])
                headers = {
                    name: value for name, value in self.headers.items() if name.lower() not in ("host", "connection")
                }
                answer = httpx.post(f"{upstream}{self.path}", content=body, headers=headers, trust_env=False)
                self.send_response(answer.status_code)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(answer.content)))
                self.end_headers()
                self.wfile.write(answer.content)

            def log_message(self, *_: Any) -> None:
                """Silent."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Relay:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def raw_body(canary: str) -> dict[str, Any]:
    """What a client that sends content sends, with a canary wherever text can stand but in names and ids."""
    numbers = iter(range(100, 200))

    def text() -> str:
        return f"{canary}{next(numbers)}"

    def event(event_type: str, step: int, **payload: Any) -> dict[str, Any]:
        return {
            "event_type": event_type, "run_id": "raw-run", "agent_id": "raw-agent", "agent_version": "v1",
            "step_index": step, "timestamp": 1795316691.6 + step, "payload": {**payload, "unknown": text(), text(): 1},
            "conversation_id": text(), "trace_id": text(), text(): text(),
        }  # fmt: skip

    call = {"tool_name": "search", "args": json.dumps({"q": canary})}
    found = {"matched_pattern_count": 1, "matched_patterns": [text(), "act_as"], "input_length": 3, "extra": text()}
    return {
        "agent_id": "raw-agent",
        "note": text(),
        "events": [
            event(
                "run.started", 0, input_text=text(), system_prompt=text(), source_file=text(), tools=["search"],
                injection_signal=found, input_hash=text(),
            ),
            *[event("tool.called", step, **call) for step in (1, 2, 3)],
            event("tool.responded", 3, tool_name="search", success=False, output=text(), error=text()),
            event("llm.called", 4, model="m", prompt_tokens=text()),
            event("llm.responded", 4, output=text(), finish_reason=text(), completion_tokens=[text()]),
            event("retrieval.called", 5, index_name="i", query=text(), query_hash=text()),
            event("retrieval.responded", 5, index_name="i", content=text(), result_count=0),
            event("external.signal", 5, signal_name="s", source="x", meta={"k": text(), "l": [text()], "n": 1}),
            event("memory.written", 5, key=text(), value=text()),
            event("run.errored", 6, error_type="E", error=text(), error_hash=text()),
        ],
    }  # fmt: skip


def everything_the_api_says(server: Server) -> bytes:
    """Every read answer about every agent, run, signal and issue, and the documents about the API."""
    said = []

    def get(path: str) -> Any:
        answer = httpx.get(f"{server.api_url}{path}", trust_env=False)
        said.append(answer.content)
        return answer.json() if "json" in answer.headers["content-type"] else None

    for path in ("/openapi.json", "/docs", "/health"):
        get(path)
    for agent in get("/v1/agents")["agents"]:
        for part in ("signals?include_shadow=true", "issues"):
            get(f"/v1/agents/{agent['agent_id']}/{part}")
        for run in get(f"/v1/agents/{agent['agent_id']}/runs")["runs"]:
            assert get(f"/v1/runs/{run['run_id']}")["events"]
    return b"".join(said)


async def test_no_content_leaves_the_agent_or_stays_anywhere(tmp_path: Path) -> None:
    canary = f"CANARY{token_hex(8)}"
    script = tmp_path / "agent.py"
    script.write_text(textwrap.dedent(AGENT))
    with Receiver() as receiver:
        environment = {
            "WEBHOOK_URL": receiver.url,
            "DUNETRACE_ALLOW_PRIVATE_DESTINATIONS": "true",
            "LOG_LEVEL": "DEBUG",
        }
        with Server(tmp_path / "data", env=environment) as server:
            with Relay(server.ingest_url) as relay:
                agent = subprocess.run(
                    [sys.executable, "-X", "dev", str(script), relay.url, canary],
                    capture_output=True, check=False, timeout=60,
                )  # fmt: skip
            assert agent.returncode == 0, agent.stderr.decode()
            answer = httpx.post(f"{server.ingest_url}/v1/ingest", json=raw_body(canary), trust_env=False)
            assert (answer.status_code, answer.json()["accepted"]) == (202, 12), answer.text
            refused = httpx.post(
                f"{server.ingest_url}/v1/ingest", trust_env=False,
                json={"agent_id": "a", "events": [{"event_type": canary * 9, "step_index": canary}]},
            )  # fmt: skip
            assert refused.status_code == 422
            await assert_invariants(server.database_url)
            dump = subprocess.run(
                [str(binaries() / "pg_dump"), server.database_url],
                capture_output=True, check=True, cwd="/", env={"PATH": os.environ["PATH"]},
            ).stdout  # fmt: skip
            said = everything_the_api_says(server)
            server.terminate()
        places = {
            "what left the SDK": b"".join(relay.copies),
            "NDJSON": agent.stdout,
            "the agent's stderr": agent.stderr,
            "the answers of the door": answer.content + refused.content,
            "the tables": dump,
            "the API": said,
            "the alerts": b"".join(request.body + str(request.headers).encode() for request in receiver.requests),
            **{str(path): path.read_bytes() for path in (tmp_path / "data").rglob("*") if path.is_file()},
        }
    for place in ("what left the SDK", "NDJSON", "the tables", "the API", "the alerts"):
        assert b"canary-agent" in places[place] or b"raw-agent" in places[place], f"{place}: the test saw nothing"
    assert len(receiver.requests) >= 3
    assert [place for place, content in places.items() if canary.encode() in content] == []
