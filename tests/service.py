"""A service that is asked for something, as a real HTTP server that can misbehave: what the fakes of APIs build on.

A subclass answers in `answer`; the manners are those of `Receiver`, one for each request that arrives.
"""

from __future__ import annotations

import json
from typing import Any, cast
from urllib.parse import parse_qs, unquote, urlsplit

from tests.receiver import _MISBEHAVE, Mode, Received, Receiver, _Handler, _Server

Reply = tuple[int, Any]  # a status, and a document


class Service(Receiver):
    """See the module. `broken` cuts off each answer's JSON in the middle."""

    def __init__(self) -> None:
        super().__init__()
        self.broken = False
        self._server.RequestHandlerClass = _ServiceHandler

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def answer(self, method: str, path: str, query: dict[str, str], request: Received) -> Reply:
        raise NotImplementedError

    @property
    def calls(self) -> list[str]:
        """Method and path of what arrived, without the query."""
        return [request.path.partition("?")[0] for request in self.requests]


class _ServiceHandler(_Handler):
    def do_POST(self) -> None:
        service = cast("Service", cast("_Server", self.server).receiver)
        body = self.rfile.read(int(self.headers.get("Content-Length") or "0"))
        headers = {name.lower(): value for name, value in self.headers.items()}
        mode = service.record(f"{self.command} {self.path}", headers, body)
        if mode is Mode.SLOW:
            service.stopping.wait(service.slow_s)
        if mode in (Mode.OK, Mode.SLOW):
            parts = urlsplit(self.path)
            query = {name: values[-1] for name, values in parse_qs(parts.query).items()}
            request = Received(self.path, headers, body, 0.0, 0.0, mode)
            self._reply(service, *service.answer(self.command, unquote(parts.path), query, request))
        elif mode in _MISBEHAVE:
            self.close_connection = True
            _MISBEHAVE[mode](self, service)
        else:
            self._answer(mode, service)

    do_GET = do_POST

    def _reply(self, service: Service, status: int, document: Any) -> None:
        body = json.dumps(document).encode()
        body = body[: len(body) // 2] if service.broken else body
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
