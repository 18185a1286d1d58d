"""`httpx`, and `httpx2`, which has the same shape: every request goes through the clients' `send`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dunetrace.sdk.context import RunContext
from dunetrace.sdk.instrument.http import HttpCall
from dunetrace.sdk.instrument.patching import Library, Target, defining


class _Call(HttpCall):
    def __init__(self, run: RunContext, request: Any, *, streams: bool) -> None:
        self._streams = streams
        super().__init__(run, request.url.host, request.method, str(request.url), _body(request))

    def returned(self, response: Any) -> None:
        self.answered(response.status_code, None if self._streams else response.content, response.headers)


def _body(request: Any) -> object:
    try:
        return request.content
    except Exception:  # it streams
        return None


def _begin(run: RunContext, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> _Call:
    request = args[1] if len(args) > 1 else kwargs["request"]
    return _Call(run, request, streams=bool(kwargs.get("stream")))


def _targets(module: Any) -> list[Target]:
    clients = (module.Client, module.AsyncClient)
    return [Target(defining(client, "send", "request"), "send", _begin) for client in clients]


HTTPX = Library("httpx", _targets)
HTTPX2 = Library("httpx2", _targets)
