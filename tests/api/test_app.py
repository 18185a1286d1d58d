"""Who may ask, what a request may hold, and how everything that goes wrong is answered."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import quote

import httpx
import msgspec
import pytest
import trio
from structlog.testing import capture_logs

from dunetrace.serving.api import app as app_module
from dunetrace.serving.api.absent import ABSENT
from dunetrace.serving.api.parameters import Text
from dunetrace.serving.api.route import Call, Route
from dunetrace.serving.api.routes import ROUTES
from dunetrace.serving.dashboard import DashboardApp
from dunetrace.serving.page import Page
from dunetrace.store.gateway import Gateway, open_gateway
from tests.api.conftest import HEALTHY, make_api, serving
from tests.api.rows import NOON, Rows

IDS = {"agent_id": "a", "run_id": "r", "issue_id": "1", "signal_id": "1", "failure_type": "TOOL_LOOP"}
EVERY_PATH = tuple(route.path.format(**IDS) for route in ROUTES if route.method == "GET")
READING_PATHS = tuple(route.path.format(**IDS) for route in ROUTES if route.method == "GET" and route not in ABSENT)


class Echo(msgspec.Struct):
    agent_id: str


async def echo(_reads: Gateway, call: Call) -> Echo:
    return Echo(call.ids["agent_id"])


async def fail(_reads: Gateway, _call: Call) -> Echo:
    raise LookupError("a secret in a message")


ECHO = Route("/echo/{agent_id}/end", echo, Echo, "The id")
POST = Route("/change/{agent_id}", echo, Echo, "A change", method="POST")
FAIL = Route("/fail", fail, Echo, "Fails")


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


async def raw(client: httpx.AsyncClient, request: bytes) -> tuple[int, bytes]:
    """What no HTTP client would send: the status and the body of the answer."""
    stream = await trio.open_tcp_stream(client.base_url.host, client.base_url.port or 0)
    answer = b""
    with trio.fail_after(10):
        async with stream:
            await stream.send_all(request)
            async for piece in stream:
                answer += piece
    head, _, body = answer.partition(b"\r\n\r\n")
    return int(head.split()[1]), body


# -- keys and tenants


async def test_prod_asks_for_a_key_everywhere_but_on_the_open_pages(prod: httpx.AsyncClient, rows: Rows) -> None:
    await rows.key("good")
    await rows.key("revoked", active=False)
    await rows.key("ingest-only", scopes=("ingest",))
    for path in EVERY_PATH:
        for headers in (
            {},
            bearer("wrong"),
            bearer("revoked"),
            {"Authorization": "Bearer"},
            {"Authorization": "Basic good"},
        ):
            answer = await prod.get(path, headers=headers)
            assert answer.status_code == 401
            assert answer.json() == {"detail": "Invalid or inactive API key"}
        assert (await prod.get(f"{path}?api_key=good")).status_code == 401
        refused = await prod.get(path, headers=bearer("ingest-only"))
        assert (refused.status_code, list(refused.json())) == (403, ["detail"])
        assert (await prod.get(path, headers=bearer("good"))).status_code in (200, 404)
    for path in ("/health", "/openapi.json", "/docs"):
        assert (await prod.get(path)).status_code == 200


async def test_a_customer_sees_only_its_own(prod: httpx.AsyncClient, rows: Rows) -> None:
    await rows.key("ours")
    await rows.key("theirs", customer="other")
    for customer in ("default", "other"):
        await rows.agent("a", customer=customer, runs=1 if customer == "other" else 2)
        await rows.signal_hour("a", customer=customer, n=1 if customer == "other" else 2)
        await rows.loss("a", 1 if customer == "other" else 2, customer=customer)
        await rows.run("same-id", customer=customer, agent_version=customer)
        await rows.event("same-id", customer=customer, payload={"model": customer})
        await rows.signal("same-id", customer=customer, agent_version=customer)
    await rows.run("theirs-only", "b", customer="other")
    issue = await rows.issue(customer="other")

    async def ours(path: str, key: str = "ours") -> Any:
        return (await prod.get(path, headers=bearer(key))).json()

    agent = (await ours("/v1/agents"))["agents"]
    assert [(one["run_count"], one["signal_count"], one["dropped_events"]) for one in agent] == [(2, 2, 2)]
    assert [one["agent_version"] for one in (await ours("/v1/agents/a/runs"))["runs"]] == ["default"]
    assert [one["agent_version"] for one in (await ours("/v1/agents/a/signals"))["signals"]] == ["default"]
    run = await ours("/v1/runs/same-id")
    assert [event["payload"] for event in run["events"]] == [{"model": "default"}]
    assert [signal["agent_version"] for signal in run["signals"]] == ["default"]

    foreign = await prod.get("/v1/runs/theirs-only", headers=bearer("ours"))
    assert (foreign.status_code, foreign.json()) == (404, {"detail": "Run 'theirs-only' not found"})
    missing = await prod.get("/v1/runs/nowhere", headers=bearer("ours"))
    assert (missing.status_code, missing.json()) == (404, {"detail": "Run 'nowhere' not found"})
    assert (await prod.get(f"/v1/issues/{issue}", headers=bearer("ours"))).json() == {
        "detail": f"Issue {issue} not found."
    }
    assert (await ours(f"/v1/issues/{issue}", "theirs"))["id"] == issue
    for agent_id in ("b", "nobody"):
        for what in ("runs", "signals", "issues"):
            answer = await ours(f"/v1/agents/{agent_id}/{what}")
            assert answer[what] == []
            assert answer.get("total", answer.get("page", {}).get("total")) == 0


async def test_a_key_of_one_agent_sees_only_that_agent(prod: httpx.AsyncClient, rows: Rows) -> None:
    await rows.key("only-a", agent_id="a")
    for agent_id in ("a", "b"):
        await rows.agent(agent_id)
        await rows.run(f"run-{agent_id}", agent_id)
        await rows.signal(f"run-{agent_id}", agent_id)
        await rows.event("run-a", agent_id=agent_id)
    issue = await rows.issue("b")
    await rows.issue("a")

    async def read(path: str) -> httpx.Response:
        return await prod.get(path, headers=bearer("only-a"))

    agents = (await read("/v1/agents")).json()
    assert ([one["agent_id"] for one in agents["agents"]], agents["page"]["total"]) == (["a"], 1)
    for what in ("runs", "signals", "issues"):
        assert len((await read(f"/v1/agents/a/{what}")).json()[what]) == 1
        assert (await read(f"/v1/agents/b/{what}")).json()[what] == []
    assert len((await read("/v1/runs/run-a")).json()["events"]) == 1
    assert (await read("/v1/runs/run-b")).status_code == 404
    assert (await read(f"/v1/issues/{issue}")).status_code == 404


async def test_dev_takes_any_key_or_none_but_only_from_this_machine(api: httpx.AsyncClient) -> None:
    assert (await api.get("/v1/agents")).status_code == 200
    assert (await api.get("/v1/agents", headers=bearer("whatever"))).status_code == 200
    for headers in (
        {"Host": "rebound.example"},
        {"X-Forwarded-For": "10.0.0.1"},
        {"Forwarded": "for=10.0.0.1"},
        {"Via": "1.1 proxy"},
    ):
        answer = await api.get("/v1/agents", headers=headers)
        assert answer.status_code == 403
        assert "AUTH_MODE" in answer.json()["detail"]


# -- paths


ODD_IDS = (
    "a/b", "a%2Fb", "ü 🙂", "a?b#c", ".", "..", "a+b", " ", "x" * 256, "%", "<script>", "a//b", "\u202e"
)  # fmt: skip


async def test_an_id_is_one_percent_encoded_segment(api: httpx.AsyncClient, rows: Rows) -> None:
    for number, agent_id in enumerate(ODD_IDS):
        await rows.run(f"r/{number}", agent_id)
        path = f"/v1/agents/{quote(agent_id, safe='')}/runs"
        status, body = await raw(api, f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
        assert status == 200
        assert [run["agent_id"] for run in json.loads(body)["runs"]] == [agent_id]
        assert (await api.get(f"/v1/runs/r%2F{number}")).json()["run_id"] == f"r/{number}"


async def test_text_that_cannot_be_stored_is_read_as_the_door_stores_it(gateway: Gateway) -> None:
    async with serving(make_api(gateway, routes=(ECHO, *ROUTES))) as client:
        for sent, read in (("a%00b", "a\ufffdb"), ("%ff", "\ufffd"), ("%zz", "%zz"), ("%ED%A0%80", "\ufffd" * 3)):
            answer = await client.get(f"/echo/{sent}/end")
            assert answer.json() == {"agent_id": read}
        assert (await client.get("/v1/agents/%00/runs")).json()["runs"] == []
        assert (await client.get("/v1/runs/%00%ff")).json() == {"detail": "Run '\ufffd\ufffd' not found"}


UNKNOWN_PATHS = (
    "/", "/v1", "/v1/", "/v1/agents/", "/v1//agents", "/v1/agents/a/b/runs", "/v1/agents//runs",
    "/v1/agents/a/failure-patterns", "/v1/runs/", "/v1/calls/1",
    "/V1/agents", "/v2/agents", "/static/x", "/favicon.ico",
)  # fmt: skip


async def test_an_unknown_path_is_404(api: httpx.AsyncClient) -> None:
    for path in UNKNOWN_PATHS:
        answer = await api.get(path)
        assert (path, answer.status_code, answer.json()) == (path, 404, {"detail": "Not found"})


async def test_a_wrong_method_is_405(api: httpx.AsyncClient) -> None:
    for path in (*EVERY_PATH, "/health", "/openapi.json", "/docs"):
        for method in ("POST", "PUT", "PATCH", "DELETE"):
            answer = await api.request(method, path, json={})
            assert answer.status_code == 405
            assert "GET" in answer.headers["allow"]
            assert list(answer.json()) == ["detail"]


async def test_what_changes_something_must_be_json(gateway: Gateway) -> None:
    async with serving(make_api(gateway, routes=(POST,))) as client:
        for headers in ({}, {"Content-Type": "text/plain"}, {"Content-Type": "application/x-www-form-urlencoded"}):
            answer = await client.post("/change/a", content=b"{}", headers=headers)
            assert (answer.status_code, list(answer.json())) == (415, ["detail"])
        kind = {"Content-Type": "Application/JSON; charset=utf-8"}
        assert (await client.post("/change/a", content=b"{}", headers=kind)).json() == {"agent_id": "a"}


async def test_head_and_options(api: httpx.AsyncClient) -> None:
    got, head = await api.get("/v1/agents"), await api.head("/v1/agents")
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-length"] == str(len(got.content))
    options = await api.options("/v1/agents")
    assert options.status_code == 200
    assert set(options.headers["allow"].split(", ")) == {"GET", "HEAD", "OPTIONS"}
    assert "content-type" not in options.headers


async def test_a_connection_that_is_to_be_closed_is_closed(api: httpx.AsyncClient) -> None:
    status, _ = await raw(api, b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
    assert status == 200
    status, _ = await raw(api, b"GET /health HTTP/1.0\r\nHost: localhost\r\n\r\n")
    assert status == 200


# -- values


BAD = {
    "offset": ["-1", "x", "", "1.5", "9223372036854775808", "1e3", "\uff11", "9" * 30],
    "limit": ["0", "501", "-5", "x", "", "5 0", "9" * 5000],
    "severity": ["URGENT", "HIGH,LOW", "\0"],
    "failure_type": ["LOOP", "tool loop", "'; DROP TABLE runs; --"],
    "status": ["closed", "Done"],
    "has_signals": ["yes", "2", "None"],
    "include_shadow": ["on"],
    "explain": ["nope"],
    "events": ["-1"],
}


async def test_a_bad_value_names_the_parameter_and_what_is_allowed(api: httpx.AsyncClient, rows: Rows) -> None:
    await rows.run("r")
    asked = 0
    for route in ROUTES:
        for parameter in route.parameters:
            path = route.path.format(**IDS)
            for value in () if isinstance(parameter, Text) else BAD[parameter.name]:
                answer = await api.get(path, params={parameter.name: value})
                assert answer.status_code == 422, (path, parameter.name, value)
                (fault,) = answer.json()["detail"]
                assert fault["loc"] == ["query", parameter.name]
                assert fault["msg"].startswith(f"{parameter.name}: must be ")
                assert set(fault) == {"loc", "msg", "type"}
                asked += 1
    assert asked > 50
    text = (await api.get("/v1/agents/a/signals?failure_type=x")).text
    assert "TOOL_LOOP" in text and "REASONING_STALL" in text and "FIRST_STEP_FAILURE" in text
    assert "LOW, MEDIUM, HIGH, CRITICAL" in (await api.get("/v1/agents/a/signals?severity=x")).text


async def test_the_last_of_a_repeated_value_counts_and_unknown_names_are_ignored(api: httpx.AsyncClient) -> None:
    answer = await api.get("/v1/agents?limit=1&limit=2&colour=red&offset=%2B0")
    assert answer.json()["page"]["limit"] == 2


# -- trouble


async def test_an_error_in_a_handler_says_nothing_of_itself(gateway: Gateway) -> None:
    with capture_logs() as logged:
        async with serving(make_api(gateway, routes=(FAIL,))) as client:
            answer = await client.get("/fail?token=hidden")
    assert (answer.status_code, answer.json()) == (500, {"detail": "Internal error"})
    assert [(line["event"], line["error"]) for line in logged] == [("api.failed", "LookupError")]
    assert "secret" not in str(logged) and "hidden" not in str(logged)


async def test_while_postgres_is_away_the_answer_is_503() -> None:
    async with open_gateway("postgresql://nobody@127.0.0.1:1/none") as away:
        for mode in ("dev", "prod"):
            async with serving(make_api(away, mode)) as client:
                for path in READING_PATHS:
                    answer = await client.get(path, headers=bearer("k"))
                    assert answer.status_code == 503
                    assert int(answer.headers["retry-after"]) > 0
                    assert list(answer.json()) == ["detail"]
                assert (await client.get("/docs")).status_code == 200


async def test_health_is_what_the_supervisor_says(gateway: Gateway) -> None:
    asked: list[str] = []

    def health(port: str) -> tuple[int, dict[str, Any]]:
        asked.append(port)
        return 503, HEALTHY | {"status": "unavailable", "db": "unreachable"}

    async with serving(make_api(gateway, "prod", health=health)) as client:
        answer = await client.get("/health")
    assert asked == ["api"]
    assert (answer.status_code, answer.json()["db"]) == (503, "unreachable")


async def test_requests_beyond_the_bound_are_told_to_come_back(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    entered, leave = trio.Event(), trio.Event()

    async def hold(_reads: Gateway, _call: Call) -> Echo:
        entered.set()
        await leave.wait()
        return Echo("held")

    monkeypatch.setattr(app_module, "MAX_REQUESTS_IN_HAND", 1)
    async with serving(make_api(gateway, routes=(Route("/hold", hold, Echo, "Holds"),))) as client:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.get, "/hold")
            await entered.wait()
            answer = await client.get("/health")
            leave.set()
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
        assert (await client.get("/health")).status_code == 200


async def test_odd_hosts_are_answered(api: httpx.AsyncClient) -> None:
    for host in ("", "a b", "localhost:x", "[::1", "\xff", "a" * 5000):
        request = f"GET /v1/agents HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode("latin-1")
        status, body = await raw(api, request)
        assert status in (200, 400, 403)
        assert not body or list(json.loads(body)) == ["detail"] or status == 200


async def test_a_websocket_is_refused(api: httpx.AsyncClient) -> None:
    request = (
        b"GET /v1/agents HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    )
    status, _ = await raw(api, request)
    assert status == 403


# -- headers


async def test_every_answer_carries_the_security_headers(api: httpx.AsyncClient) -> None:
    for path in (*EVERY_PATH, "/health", "/openapi.json", "/docs", "/nowhere", "/v1/agents?limit=x"):
        headers = (await api.get(path)).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"
        assert headers["cache-control"] == "no-store"
        assert "default-src 'none'" in headers["content-security-policy"]
        assert "frame-ancestors 'none'" in headers["content-security-policy"]
        assert "access-control-allow-origin" not in headers


async def test_cross_origin_only_for_the_origins_named(gateway: Gateway) -> None:
    async with serving(make_api(gateway, "prod", cors_origins=("https://board.example",))) as client:
        preflight = {"Access-Control-Request-Method": "GET", "Access-Control-Request-Headers": "authorization"}
        named = await client.options("/v1/agents", headers={"Origin": "https://board.example"} | preflight)
        assert named.status_code == 200
        assert named.headers["access-control-allow-origin"] == "https://board.example"
        assert "Authorization" in named.headers["access-control-allow-headers"]
        refused = await client.get("/v1/agents", headers={"Origin": "https://board.example"})
        assert refused.status_code == 401
        assert refused.headers["access-control-allow-origin"] == "https://board.example"
        for origin in ("https://evil.example", "null", "https://board.example.evil", "http://board.example"):
            other = await client.options("/v1/agents", headers={"Origin": origin} | preflight)
            assert "access-control-allow-origin" not in other.headers
            assert other.headers["vary"] == "Origin"


# -- the dashboard's port


async def test_the_dashboard_port_serves_the_page_and_the_api(gateway: Gateway, rows: Rows) -> None:
    await rows.key("good")
    await rows.agent("a", seen=NOON)
    async with serving(DashboardApp(make_api(gateway, "prod"), Page())) as client:
        page = await client.get("/")
        assert page.status_code == 200
        assert page.headers["content-type"].startswith("text/html")
        again = await client.get("/", headers={"If-None-Match": page.headers["etag"]})
        assert (again.status_code, again.content) == (304, b"")
        assert (await client.head("/index.html")).headers["content-length"] == str(len(page.content))
        assert (await client.get("/health")).json() == HEALTHY
        assert (await client.get("/v1/agents")).status_code == 401
        agents = await client.get("/v1/agents", headers=bearer("good"))
        assert agents.json()["agents"][0]["agent_id"] == "a"
        assert (await client.get("/v1/agents/a%2Fb/runs", headers=bearer("good"))).json()["runs"] == []
        for path in ("/nowhere", "/openapi.json", "/docs", "/v1", "/..%2Fpyproject.toml"):
            assert (await client.get(path)).status_code == 404
