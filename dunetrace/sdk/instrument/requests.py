"""`requests`: every request, redirects too, goes through a session's `send`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dunetrace.sdk.context import RunContext
from dunetrace.sdk.instrument.http import HttpCall
from dunetrace.sdk.instrument.patching import Library, Target, defining


class _Call(HttpCall):
    def __init__(self, run: RunContext, request: Any, *, streams: bool) -> None:
        from urllib.parse import urlsplit  # noqa: PLC0415 - whoever has `requests` has loaded it

        self._streams = streams
        super().__init__(run, urlsplit(request.url).hostname or "", request.method, request.url, request.body)

    def returned(self, response: Any) -> None:
        self.answered(response.status_code, None if self._streams else response.content, response.headers)


def _begin(run: RunContext, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> _Call:
    request = args[1] if len(args) > 1 else kwargs["request"]
    return _Call(run, request, streams=bool(kwargs.get("stream", args[0].stream)))


def _targets(module: Any) -> list[Target]:
    return [Target(defining(module.Session, "send", "request"), "send", _begin)]


REQUESTS = Library("requests", _targets)
