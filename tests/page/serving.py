"""A small real HTTP server for the page's tests: the files by the product's own `Page`, the API's shapes from a World.

It runs in a thread on a free port; what a test changes on it (`key`, `outage`, `world`) holds from the next request on.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from dunetrace.serving.page import Page
from tests.page import figures
from tests.page.world import Json, World, build

HEALTHY = {
    "status": "ok",
    "db": "ok",
    "version": "1.0.0",
    "actors": {
        name: {"state": "running", "restarts": 0} for name in ("ingest", "writer", "poller", "dispatcher", "api")
    },
}


class PageServer(ThreadingHTTPServer):
    """The dashboard port as the page sees it. `seen` are (path with query, Authorization) of the API's requests."""

    daemon_threads = True

    def __init__(self, world: World) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.world = world
        self.page = Page()
        self.key = ""  # "" = dev mode, any key or none
        self.refusal: tuple[int, Json] | None = None  # of whoever has the key
        self.outage = False
        self.health: Json = HEALTHY
        self.seen: list[tuple[str, str]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def api(self, path: str, query: dict[str, str]) -> tuple[int, Any]:
        """The answer to one GET below /v1/, by the raw path."""
        parts = [unquote(part) for part in path.removeprefix("/v1/").split("/")]
        match parts:
            case ["agents"]:
                return 200, paged("agents", self.world.agents, query)
            case ["agents", agent_id, "runs"]:
                return 200, paged("runs", self._runs(agent_id, query), query)
            case ["agents", agent_id, "signals"]:
                return 200, paged("signals", self._signals(agent_id, query), query)
            case ["agents", agent_id, "issues"]:
                issues = [issue for issue in self.world.issues if issue["agent_id"] == agent_id]
                return 200, {"issues": issues, "total": len(issues)}
            case ["agents", agent_id, "insights"]:
                return 200, figures.insights(self.world, agent_id)
            case ["agents", agent_id, "health-score"]:
                return 200, figures.health(self.world, agent_id)
            case ["agents", agent_id, "token-stats"]:
                return 200, figures.tokens(self.world, agent_id)
            case ["agents", agent_id, "fleet-signals"]:
                of_agent = [rise for rise in self.world.rises if rise["agent_id"] == agent_id]
                return 200, paged("fleet_signals", of_agent, query)
            case ["agents", agent_id, "fixes"]:
                signals = {signal["id"] for signal in self.world.signals if signal["agent_id"] == agent_id}
                return 200, {"fixes": [fix for fix in self.world.fixes if fix["signal_id"] in signals]}
            case ["signals", _, "fix-status"]:
                return 200, {"fix_applied": False}
            case ["issues", "search"]:
                issues = [issue for issue in self.world.issues if query.get("status") in ("all", issue["status"])]
                return 200, {"issues": issues, "total": len(issues)}
            case ["runs", run_id] if run_id in self.world.runs:
                run = self.world.runs[run_id]
                return 200, run if query.get("events") != "false" else {k: v for k, v in run.items() if k != "events"}
            case ["runs", run_id]:
                return 404, {"detail": f"Run '{run_id}' not found"}
        return 404, {"detail": "Not found"}

    def _runs(self, agent_id: str, query: dict[str, str]) -> list[Json]:
        wanted = query.get("has_signals")
        runs = [run for run in self.world.runs.values() if run["agent_id"] == agent_id]
        runs = [run for run in runs if not wanted or run["has_signals"] == (wanted == "true")]
        runs = [run for run in runs if query.get("status", standing(run)) == standing(run)]
        runs.sort(key=lambda run: -run["started_at"])
        return [{k: v for k, v in run.items() if k not in ("events", "signals")} for run in runs]

    def _signals(self, agent_id: str, query: dict[str, str]) -> list[Json]:
        return [
            signal
            for signal in sorted(self.world.signals, key=lambda signal: -signal["detected_at"])
            if signal["agent_id"] == agent_id
            and (query.get("include_shadow") == "true" or not signal["shadow"])
            and query.get("severity", signal["severity"]) == signal["severity"]
            and query.get("failure_type", signal["failure_type"]) == signal["failure_type"]
        ]


def standing(run: Json) -> str:
    if run["status"] != "ended":
        return str(run["status"])
    return "errored" if run["exit_reason"] == "run.errored" else "completed"


def paged(field: str, items: list[Json], query: dict[str, str]) -> Json:
    offset, limit = int(query.get("offset", 0)), int(query.get("limit", 50))
    page = {"total": len(items), "offset": offset, "limit": limit, "has_more": offset + limit < len(items)}
    return {field: items[offset : offset + limit], "page": page}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: PageServer

    def do_GET(self) -> None:
        path, _, query = self.path.partition("?")
        if path == "/health":
            self._json(503 if self.server.outage else 200, self.server.health)
        elif path.startswith("/v1/"):
            self._json(*self._answer(path, query))
        else:
            answer = self.server.page.answer(path, if_none_match=self.headers.get("If-None-Match", ""))
            self._send(answer.status, answer.headers, answer.body)

    def do_POST(self) -> None:
        """The one change that the tests of this server make: a fix was copied."""
        self.rfile.read(int(self.headers["Content-Length"]))
        signal_id = int(self.path.removeprefix("/v1/signals/").removesuffix("/record-copy"))
        self._json(200, {"fix_id": 1, "signal_id": signal_id})

    def _answer(self, path: str, query: str) -> tuple[int, Any]:
        given = self.headers.get("Authorization", "")
        self.server.seen.append((self.path, given))
        if self.server.key and given != f"Bearer {self.server.key}":
            return 401, {"detail": "Invalid or inactive API key"}
        if self.server.refusal:
            return self.server.refusal
        if self.server.outage:
            return 503, {"detail": "The database is unreachable"}
        first = {key: values[-1] for key, values in parse_qs(urlsplit(f"?{query}").query).items()}
        return self.server.api(path, first)

    def _json(self, status: int, body: Any) -> None:
        encoded = json.dumps(body).encode()
        self._send(status, (("Content-Type", "application/json"), ("Content-Length", str(len(encoded)))), encoded)

    def _send(self, status: int, headers: tuple[tuple[str, str], ...], body: bytes) -> None:
        self.send_response(status)
        for name, value in headers:
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        """Says nothing: a failing test shows what it needs."""


@contextmanager
def page_server(world: World | None = None) -> Iterator[PageServer]:
    """The server, running in a thread until the block ends."""
    server = PageServer(world or build(time.time()))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
