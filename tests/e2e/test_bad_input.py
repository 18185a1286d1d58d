"""Bad input at a whole server: the contract's answer each time, and the good events beside it are stored and judged."""

from __future__ import annotations

import gzip
import json
from typing import Any

import httpx
import pytest

from tests.harness.invariants import assert_invariants, rows
from tests.harness.server import Server

JSON = {"Content-Type": "application/json"}


def event(run_id: str = "run", **changes: Any) -> dict[str, Any]:
    """A good event, changed."""
    return {
        "event_type": "tool.called", "run_id": run_id, "agent_id": "agent", "agent_version": "v1", "step_index": 1,
        "timestamp": 1795316691.6, "payload": {"tool_name": "search", "args_hash": "ab" * 16}, **changes,
    }  # fmt: skip


def body(*events: Any) -> bytes:
    return json.dumps({"agent_id": "agent", "events": events}).encode()


def raw(event_text: str) -> bytes:
    """A body whose one event is written by hand, for what `json.dumps` would not write."""
    return b'{"agent_id": "agent", "events": [' + event_text.encode("utf-8", "surrogatepass") + b"]}"


HAND = '{"event_type":"llm.called","run_id":"hand","agent_id":"agent","agent_version":"v","step_index":1,"payload":%s}'

REFUSED = {
    "not JSON": (422, b"{", JSON),
    "empty": (422, b"", JSON),
    "a list": (422, b"[]", JSON),
    "no events": (422, body(), JSON),
    "wrong types": (422, body(event(step_index="one"), event(run_id=7), event(payload=[]), "event", None), JSON),
    "negative step": (422, body(event(step_index=-1)), JSON),
    "a step beyond 32 bits": (422, body(event(step_index=2**31)), JSON),
    "a time beyond 2100": (422, body(event(timestamp=4102444800)), JSON),
    "an empty run id": (422, body(event(run_id="")), JSON),
    "a run id too long": (422, body(event(run_id="x" * 257)), JSON),
    "nested without end": (422, b"[" * 200_000, JSON),
    "broken gzip": (422, b"\x1f\x8b\x08broken", {**JSON, "Content-Encoding": "gzip"}),
    "another content type": (415, body(event()), {"Content-Type": "text/plain"}),
    "no content type": (415, body(event()), {}),
    "another encoding": (415, body(event()), {**JSON, "Content-Encoding": "br"}),
    "too many events": (413, body(*[event()] * 1001), JSON),
    "too large": (413, b" " * 3_000_000, JSON),
    "too large when inflated": (413, gzip.compress(b" " * 3_000_000), {**JSON, "Content-Encoding": "gzip"}),
}

ACCEPTED = {
    "an unknown type": body(event("unknown-type", event_type="custom.thing", payload={"secret": "x"})),
    "NUL": body(event("nul\0run", agent_id="a\0b", payload={"tool_name": "t\0ool"})),
    "lone surrogates": raw(json.dumps(event("sur\ud800rogate", payload={"tool_name": "\udfff"}))),
    "NaN and Infinity": raw(HAND % '{"prompt_tokens": NaN, "model": "m", "x": -Infinity}'),
    "huge numbers": raw(HAND % '{"prompt_tokens": 1e999, "call_id": 123456789012345678901234567890}'),
    "deep nesting in a payload": raw(HAND % ('{"model": ' + "[" * 500 + "]" * 500 + "}")),
    "a payload of nothing": raw(HAND % "null").replace(b',"payload":null', b""),
    "gzip": body(event("zipped")),
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Any:
    limits = {"DUNETRACE_MAX_BODY_BYTES": "2000000", "DUNETRACE_MAX_EVENTS": "1000"}
    with Server(tmp_path_factory.mktemp("bad-input"), env=limits) as running:
        yield running


def post(server: Server, content: bytes, headers: dict[str, str]) -> httpx.Response:
    return httpx.post(f"{server.ingest_url}/v1/ingest", content=content, headers=headers, trust_env=False, timeout=30)


@pytest.mark.parametrize("what", REFUSED)
def test_what_cannot_be_accepted_is_refused_in_json(server: Server, what: str) -> None:
    status, content, headers = REFUSED[what]
    answer = post(server, content, headers)
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/json")
    assert answer.json()["detail"]


@pytest.mark.parametrize("what", ACCEPTED)
def test_what_can_be_made_good_is_accepted(server: Server, what: str) -> None:
    content, headers = ACCEPTED[what], JSON
    if what == "gzip":
        content, headers = gzip.compress(content), {**JSON, "Content-Encoding": "gzip"}
    answer = post(server, content, headers)
    assert (answer.status_code, answer.json()["accepted"]) == (202, 1), answer.text


def test_the_good_events_of_a_bad_batch_are_accepted(server: Server) -> None:
    answer = post(
        server, body(event("half"), event("half", step_index=-1), event("half", timestamp=1795316692.0)), JSON
    )
    assert answer.status_code == 202
    assert answer.json()["accepted"] == 2
    assert answer.json()["rejected"] == [{"index": 1, "error": "step_index: must be >= 0"}]


@pytest.mark.parametrize(("method", "path", "status"), [("GET", "/v1/ingest", 405), ("POST", "/nowhere", 404)])
def test_wrong_methods_and_paths_answer_in_json(server: Server, method: str, path: str, status: int) -> None:
    answer = httpx.request(method, server.ingest_url + path, trust_env=False)
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/json")


async def test_after_all_of_it_the_server_is_well(server: Server) -> None:
    for content in ACCEPTED.values():
        if content[:2] != b"\x1f\x8b":
            post(server, content, JSON)
    last = [event("after", event_type="run.started", step_index=0, payload={})]
    last += [event("after", timestamp=1795316691.6 + n) for n in range(3)]
    assert post(server, body(*last), JSON).status_code == 202
    await assert_invariants(server.database_url, server=server)
    found = rows(server.database_url, "SELECT failure_type FROM failure_signals WHERE run_id = 'after'")
    assert [row["failure_type"] for row in found] == ["TOOL_LOOP"]
    stored = rows(server.database_url, "SELECT payload FROM events WHERE event_type = 'custom.thing'")
    assert {row["payload"] for row in stored} == {"{}"}
    assert rows(server.database_url, "SELECT 1 FROM set_aside_events") == []
    health = server.health("ingest")
    assert (health["status"], {actor["restarts"] for actor in health["actors"].values()}) == ("ok", {0})
