"""A relay between a client and the server: passes every request on, and keeps a copy of it."""

from __future__ import annotations

import threading
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple, Self

import httpx

ANSWER_TIMEOUT_S = 60


class Passed(NamedTuple):
    """One request. `headers` are those of the client but `Host` and `Connection`."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes

    def again(self, upstream: str) -> httpx.Response:
        """The same request once more, to the server itself."""
        return httpx.request(
            self.method, upstream + self.path, headers=self.headers, content=self.body, timeout=ANSWER_TIMEOUT_S,
            trust_env=False, verify=False,  # no TLS here, and reading the certificates takes longer than the request
        )  # fmt: skip


class Relay:
    """Listens on a free port of this machine while it is entered; `passed` is everything that went through."""

    def __init__(self, upstream: str) -> None:
        passed: list[Passed] = []
        self.passed = passed

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("content-length", "0")))
                headers = {
                    name: value for name, value in self.headers.items() if name.lower() not in ("host", "connection")
                }
                request = Passed(self.command, self.path, headers, body)
                passed.append(request)
                answer = request.again(upstream)
                with suppress(ConnectionError):  # the client may have stopped waiting
                    self.send_response(answer.status_code)
                    self.send_header("Content-Type", "application/json")
                    self.send_header("Content-Length", str(len(answer.content)))
                    self.end_headers()
                    self.wfile.write(answer.content)

            do_GET = do_POST

            def log_message(self, *_: Any) -> None:
                """Silent."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = False  # what is on its way still gets there: closing waits for it
        self._thread = threading.Thread(target=self._server.serve_forever)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
