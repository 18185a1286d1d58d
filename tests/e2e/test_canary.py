"""No content, anywhere: random strings wherever there may be some, searched for in every byte that came of it."""

from __future__ import annotations

import base64
import itertools
import json
import os
import re
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from secrets import token_hex
from typing import Any

import httpx

from dunetrace.serving.api.parameters import Flag
from dunetrace.serving.api.routes import ROUTES
from dunetrace.signals import FailureType
from dunetrace.store.embedded import binaries
from tests import pagerduty
from tests.e2e import weekly
from tests.e2e.relay import Relay
from tests.harness.invariants import assert_invariants
from tests.harness.server import Server
from tests.langfuse import Langfuse, observation
from tests.models import Model
from tests.receiver import Received, Receiver
from tests.sdk.sink import running_sink

JSON = "application/json"

# Every content-bearing argument of the SDK, with a canary of its own.
AGENT = """
    import sys
    from dunetrace import Dunetrace
    from dunetrace.integrations.otel import DunetraceOTelExporter
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    provider = TracerProvider()
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(sys.argv[3])))
    numbers = iter(range(1000))
    def canary():
        return f"{sys.argv[2]}{next(numbers):03d}"

    otel = DunetraceOTelExporter(provider)
    dt = Dunetrace(sys.argv[1], emit_as_json=True, otel_exporter=otel, debug=True, hash_key=canary())
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
    with dt.run("canary-agent", user_input=big, model="m", note=canary()) as run:
        with dt.run("canary-agent", user_input=canary(), run_id="child", parent_run_id="parent") as child:
            child.tool_called("search", args=[canary()], note=canary())
            child.tool_responded("search", success=False, output=canary().encode(), error=canary(), note=canary())
            child.retrieval_called("index", query={"deep": [canary()]})
            child.retrieval_responded("index", 3, 0.9, content={"text": canary()})
        run.final_answer()
    dt.mark_deploy("canary-agent", "v1")
    assert dt.flush(20), dt.stats()
    dt.shutdown()
"""


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


def everything_the_api_says(server: Server, canary: str) -> bytes:
    """What every route says of every agent, run, signal and issue, and the documents about the API."""
    said = []

    with httpx.Client(base_url=server.api_url, timeout=30, trust_env=False) as client:

        def ask(path: str, method: str = "GET", **told: Any) -> Any:
            answer = client.request(method, path, **told)
            assert answer.status_code < 400, f"{method} {path}: {answer.text}"
            said.append(str(answer.headers).encode() + answer.content)
            return answer.json() if "json" in answer.headers["content-type"] else None

        for path in ("/openapi.json", "/docs", "/health"):
            ask(path)
        agents = [agent["agent_id"] for agent in ask("/v1/agents")["agents"]]

        def numbered(what: str, name: str = "id") -> list[Any]:
            return [row[name] for agent in agents for row in ask(f"/v1/agents/{agent}/{what}?limit=500")[what]]

        # A route with another kind of id, or another body, has to be told here what to be asked with.
        ids = {
            "agent_id": agents, "run_id": numbered("runs", "run_id"), "signal_id": numbered("signals"),
            "issue_id": [row["id"] for agent in agents for row in ask(f"/v1/agents/{agent}/issues")["issues"]],
            "failure_type": list(FailureType),
        }  # fmt: skip
        bodies = {
            "/v1/signals/{signal_id}/record-copy": {"fix_content": "kept, because the user chose to"},
            "/v1/signals/{signal_id}/explain": {"langfuse_trace_id": "t"},
            "/v1/signals/{signal_id}/apply-fix": {"fix_content": "chosen too", "langfuse_prompt_name": "prompt"},
            "/v1/issues/{issue_id}/resolve": {"resolution_notes": f"{canary}note"},
            "/v1/issues/{issue_id}/acknowledge": {"acknowledged": True, "note": f"{canary}note"},
            "/v1/issues/{issue_id}/snooze": {"seconds": 60, "note": f"{canary}note"},
        }
        for route in ROUTES:
            names = re.findall(r"{(\w+)}", route.path)
            flags = {given.name: "true" for given in route.parameters if isinstance(given, Flag)}
            for values in itertools.product(*(ids[name] for name in names)):
                if route.path.endswith("/apply-fix"):
                    said_of_the_prompt(client, values[0], bodies[route.path])
                    continue
                path = route.path.format(**dict(zip(names, values, strict=True)))
                if route.method == "GET":
                    ask(path)
                    ask(path, params=flags)
                else:
                    ask(path, route.method, json=bodies[route.path])
    return b"".join(said)


def said_of_the_prompt(client: httpx.Client, signal_id: int, body: dict[str, str]) -> None:
    """The one answer that shows a prompt, to the person who changes it."""
    answer = client.post(f"/v1/signals/{signal_id}/apply-fix", json=body)
    assert (answer.status_code, "CANARY" in answer.text) in ((200, True), (403, False)), answer.text


def other_calls(server: Server, canary: str) -> bytes:
    """The other calls of clients, with content and keys where some put them."""
    key = {"Authorization": f"Bearer {canary}key"}
    deploy = {"api_key": f"{canary}key", "agent_id": "raw-agent", "version": "v1", "meta": {"note": f"{canary}meta"}}
    with httpx.Client(base_url=server.ingest_url, headers=key, trust_env=False) as client:
        answers = [
            client.post("/v1/deploy", json=deploy),
            client.get("/v1/policies", params={"agent_id": "raw-agent", "api_key": f"{canary}key"}),
            client.get("/v1/orgs/packs", params={"api_key": f"{canary}key"}),
            client.post("/v1/ingest", content=f'{{"events": [{canary}'.encode(), headers={"Content-Type": JSON}),
            client.post("/v1/ingest", json={"agent_id": "a", "events": [{"event_type": canary * 9, "x": canary}]}),
        ]
    assert [answer.status_code for answer in answers] == [202, 200, 404, 422, 422]
    return b"".join(answer.content for answer in answers)


def digest_of_this_week(server: Server, slack: Receiver) -> None:
    """Owe a digest, and wait until it was sent at the next start."""
    weekly.owe(server.database_url)
    server.restart()
    until_s = time.monotonic() + 30
    while not (found := [request.body for request in slack.requests if b"Dunetrace: the week to" in request.body]):
        assert time.monotonic() < until_s, "no digest came"
        time.sleep(0.05)
    assert b"canary-agent" in found[0]


def forms_of(canary: str) -> list[bytes]:
    """The ways in which the text could stand somewhere and still be read: as it is, wide, in hex and in base64."""
    text = canary.encode()
    forms = [text, text.lower(), canary.encode("utf-16-le"), text.hex().encode(), text.hex().upper().encode()]
    for before in range(3):  # bytes in front of it shift what base64 makes of it
        coded = base64.b64encode(bytes(before) + text)
        forms.append(coded[-(-before * 8 // 6) : (before + len(text)) * 8 // 6])
    return forms


def test_the_forms_are_found_wherever_they_stand() -> None:
    for before in range(3):
        around = b"x" * before + b"CANARY00ff" + b" and more"
        assert any(form in base64.b64encode(around) for form in forms_of("CANARY00ff"))


ALERTS = """
destinations:
  - {name: pager, kind: pagerduty, url: "${PAGER_URL}", routing_key: "${PAGER_KEY}", min_severity: LOW, gather: off}
"""


async def test_no_content_leaves_the_agent_or_stays_anywhere(tmp_path: Path) -> None:
    """The secrets are canaries too, but the API key of the agent, which has to travel."""
    canary = f"CANARY{token_hex(8)}"
    script = tmp_path / "agent.py"
    script.write_text(textwrap.dedent(AGENT))
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "alerts.yml").write_text(ALERTS)
    langfuse, model = Langfuse(secret_key=f"{canary}langfuse"), Model(key=f"{canary}model")
    langfuse.traces["t"] = [observation(canary, input={"q": canary}, output=canary, statusMessage=canary)]
    langfuse.put("prompt", f"You are {canary}.", labels=["production"])
    with (
        Receiver() as receiver,
        Receiver(slack=True) as slack,
        Receiver(pagerduty=True) as pager,
        langfuse,
        model,
    ):
        environment = {
            **langfuse.environment,
            **model.environment,
            "WEBHOOK_URL": f"{receiver.url}/{canary}",
            "WEBHOOK_SECRET": f"{canary}secret",
            "SLACK_WEBHOOK_URL": f"{slack.url}/{canary}",
            "SLACK_MIN_SEVERITY": "LOW",
            "PAGER_URL": f"{pager.url}/{canary}",
            "PAGER_KEY": canary.ljust(32, "0"),
            **weekly.due_now(),
            "DUNETRACE_HASH_KEY": f"{canary}hash-key",
            "DUNETRACE_ALLOW_PRIVATE_DESTINATIONS": "true",
            "LOG_LEVEL": "DEBUG",
        }
        with Server(tmp_path / "data", env=environment) as server:
            with Relay(server.ingest_url) as relay, running_sink() as collector:
                agent = subprocess.run(
                    [sys.executable, "-X", "dev", str(script), relay.url, canary, f"{collector.url}/v1/traces"],
                    capture_output=True, check=False, timeout=60,
                )  # fmt: skip
            assert agent.returncode == 0, agent.stderr.decode()
            answer = httpx.post(f"{server.ingest_url}/v1/ingest", json=raw_body(canary), trust_env=False)
            assert (answer.status_code, answer.json()["accepted"]) == (202, 12), answer.text
            others = other_calls(server, canary)
            await assert_invariants(server.database_url, server=server)
            said = everything_the_api_says(server, canary)
            digest_of_this_week(server, slack)
            dump = subprocess.run(
                [str(binaries() / "pg_dump"), server.database_url],
                capture_output=True, check=True, cwd="/", env={"PATH": os.environ["PATH"]},
            ).stdout  # fmt: skip
            server.terminate()
        sent = b"".join(f"{request.path} {request.headers}".encode() + request.body for request in relay.passed)
        places = {
            "what left the SDK": sent,
            "NDJSON": agent.stdout,
            "OTLP": b"".join(str(request.headers).encode() + request.body for request in collector.requests),
            "the agent's stderr": agent.stderr,
            "the answers of the door": answer.content + others,
            "the tables": dump,
            "the API": said,
            "the webhook": b"".join(request.body + str(request.headers).encode() for request in receiver.requests),
            "Slack": b"".join(request.body + str(request.headers).encode() for request in slack.requests),
            "PagerDuty": b"".join(_but_the_key(request) for request in pager.requests),
            **{str(path): path.read_bytes() for path in (tmp_path / "data").rglob("*") if path.is_file()},
        }
    for place in ("what left the SDK", "NDJSON", "OTLP", "the tables", "the API", "the webhook", "Slack", "PagerDuty"):
        assert b"canary-agent" in places[place] or b"raw-agent" in places[place], f"{place}: the test saw nothing"
    assert min(len(sent.requests) for sent in (receiver, slack, pager)) >= 3
    assert all(canary in user and canary not in system for system, user in model.questions)
    assert len(langfuse.prompts["prompt"]) == 2
    found = [place for place, content in places.items() if any(form in content for form in forms_of(canary))]
    assert found == []


def _but_the_key(request: Received) -> bytes:
    """What PagerDuty was sent, but for its routing key, which has to travel."""
    event = pagerduty.accept(request.body)
    del event["routing_key"]
    return (json.dumps(event) + str(request.headers)).encode()
