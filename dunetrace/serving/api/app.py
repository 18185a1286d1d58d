"""The API as an ASGI app: who may ask, the routes, and one JSON shape for everything that goes wrong.

Made by `actors/api.py`, which serves the same app on the API's port and, for `/v1/*` and `/health`, on the dashboard's.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import unquote_to_bytes

import msgspec
import trio
from quart import request
from quart.wrappers import Response
from quart_trio import QuartTrio
from werkzeug.exceptions import HTTPException, MethodNotAllowed
from werkzeug.routing import BaseConverter

from dunetrace.errors import StoreUnavailableError
from dunetrace.prices import NO_PRICES, Prices
from dunetrace.serving.answers import Answer, RefusedError, overloaded, store_away
from dunetrace.serving.api import docs_page, openapi
from dunetrace.serving.api.bodies import read_body
from dunetrace.serving.api.route import Call, Route
from dunetrace.serving.api.routes import ROUTES
from dunetrace.serving.asgi import Receive, Send, lifespan
from dunetrace.serving.asgi import Scope as AsgiScope
from dunetrace.serving.auth import ALL_AGENTS, Gate
from dunetrace.store.reads.scope import Scope
from dunetrace.telemetry import kind, log, where

if TYPE_CHECKING:
    from dunetrace.fixes.desk import Desk
    from dunetrace.store.gateway import Gateway


Health = Callable[[str], tuple[int, dict[str, Any]]]

MAX_BODY_BYTES = 1 << 20  # bodies here are a note or a fix, never events
MAX_REQUESTS_IN_HAND = 256  # the server under us has no bound of its own
FIXES_AT_ONCE = 4  # each waits for a model or for Langfuse, up to two minutes, and keeps an answer of theirs in memory
READS_AT_ONCE = 4  # of the gateway's connections: slow reads must leave some for what accepts and judges
_SAFE_METHODS = ("GET", "HEAD", "OPTIONS")
_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Cache-Control": "no-store",
}
_PREFLIGHT = {
    "Access-Control-Allow-Methods": "GET, HEAD, POST, PATCH, DELETE",
    "Access-Control-Allow-Headers": "Authorization, Content-Type",
    "Access-Control-Max-Age": "600",
}


class _Segment(BaseConverter):
    """One percent-encoded segment of the raw path. Text Postgres cannot hold becomes U+FFFD, as it does at the door."""

    def to_python(self, value: str) -> str:
        return unquote_to_bytes(value).decode("utf-8", "replace").replace("\0", "\ufffd")


class _Quart(QuartTrio):
    """Routes on the raw path, so that `a%2Fb` is one segment; and never logs an error's message."""

    def create_url_adapter(self, asked: Any) -> Any:
        if asked is None:
            return super().create_url_adapter(asked)
        path = asked.scope.get("raw_path") or asked.path.encode()
        return self.url_map.bind("dunetrace", path_info=path.decode("latin-1"), default_method=asked.method)

    def log_exception(self, exception_info: Any) -> None:
        log.error("api.failed", error=kind(exception_info[1]), at=where(exception_info[1]))


class ApiApp:
    """ASGI, http only. `reads` is where rows come from; `health("api")` gives the status and body of /health; the
    `desk` is where signals are explained and fixes applied.
    """

    def __init__(
        self,
        reads: Gateway,
        gate: Gate,
        health: Health,
        desk: Desk,
        *,
        version: str,
        cors_origins: tuple[str, ...] = (),
        prices: Prices = NO_PRICES,
        now: Callable[[], float] = time.time,
        routes: tuple[Route, ...] = ROUTES,
    ) -> None:
        self._reads, self._gate, self._health, self._desk, self._now = reads, gate, health, desk, now
        self._cors_origins, self._prices = frozenset(cors_origins), prices
        self._read_turns = trio.CapacityLimiter(READS_AT_ONCE)
        self._fix_turns = trio.CapacityLimiter(FIXES_AT_ONCE)
        self._in_hand = 0
        self._document = openapi.document(routes, version)
        self._docs = docs_page.render(self._document)
        self._quart = self._make(routes)

    async def __call__(self, scope: AsgiScope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await lifespan(receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1000})
        else:
            await self._answer(scope, receive, send)

    async def _answer(self, scope: AsgiScope, receive: Receive, send: Send) -> None:
        # At the end of an answer Hypercorn says "disconnected", on which quart-trio cancels the very task that is
        # sending it, and Hypercorn, cut off half way, leaves a `Connection: close` open until the read timeout. So the
        # answer, which is in memory anyway, is sent when Quart has returned.
        answer: list[MutableMapping[str, Any]] = []

        async def keep(message: MutableMapping[str, Any]) -> None:
            answer.append(message)
            await trio.lowlevel.checkpoint()  # as any ASGI send is one

        self._in_hand += 1
        try:
            await self._quart(scope, receive, keep)  # type: ignore[arg-type]
            for message in answer:
                await send(message)
        finally:
            self._in_hand -= 1

    def _make(self, routes: tuple[Route, ...]) -> QuartTrio:
        quart = _Quart("dunetrace.serving.api", static_folder=None)
        quart.config["MAX_CONTENT_LENGTH"] = MAX_BODY_BYTES
        quart.url_map.merge_slashes = False
        quart.url_map.converters["segment"] = _Segment
        for route in routes:
            rule = route.path.replace("{", "<segment:").replace("}", ">")
            quart.add_url_rule(rule, route.path, self._endpoint(route), methods=[route.method])
        quart.add_url_rule("/health", "health", self._on_health)
        quart.add_url_rule("/openapi.json", "openapi", self._on_openapi)
        quart.add_url_rule("/docs", "docs", self._on_docs)
        quart.before_request(self._before)
        quart.after_request(self._after)
        quart.register_error_handler(RefusedError, self._on_refused)
        quart.register_error_handler(StoreUnavailableError, self._on_store_away)
        quart.register_error_handler(HTTPException, self._on_http_error)
        quart.register_error_handler(Exception, self._on_error)
        return quart

    def _endpoint(self, route: Route) -> Callable[..., Awaitable[Response]]:
        async def endpoint(**ids: str) -> Response:
            principal = await self._gate.admit(_headers(), scope="read")
            agents = None if principal.agent_id == ALL_AGENTS else frozenset({principal.agent_id})
            given = {name: values[-1] for name, values in request.args.lists()}
            query = {one.name: one.read(given.get(one.name)) for one in route.parameters}
            ids |= {one.name: one.named(ids[one.name], "path") for one in route.choices}
            body = None if route.body is None else read_body(cast("bytes", await request.get_data()), route.body)
            call = Call(Scope(principal.customer_id, agents), ids, query, self._now(), self._desk, body, self._prices)
            async with self._turn(route):
                found = await route.handler(self._reads, call)
            return _response(Answer(200, found))

        return endpoint

    @asynccontextmanager
    async def _turn(self, route: Route) -> AsyncIterator[None]:
        """A read waits for its turn, which comes soon. What waits for others is sent away instead."""
        turns = self._fix_turns if route.asks_others else self._read_turns
        if route.asks_others and not turns.available_tokens:
            raise overloaded("Other fixes are under way; try again")
        async with turns:
            yield

    async def _on_health(self) -> Response:
        return _response(Answer(*self._health("api")))

    async def _on_openapi(self) -> Response:
        return _response(Answer(200, self._document))

    async def _on_docs(self) -> Response:
        return Response(
            self._docs, 200, {"Content-Security-Policy": docs_page.POLICY}, content_type="text/html; charset=utf-8"
        )

    async def _before(self) -> None:
        if self._in_hand > MAX_REQUESTS_IN_HAND:
            raise overloaded("Too many requests in hand; try again")
        self._gate.check_origin(_headers())
        # Only on paths that exist. A form on another site can send anything but this content type unasked.
        changes = request.routing_exception is None and request.method not in _SAFE_METHODS
        if changes and request.mimetype != "application/json":
            raise RefusedError(415, "Content-Type must be application/json")

    async def _after(self, response: Response) -> Response:
        for name, value in _HEADERS.items():
            response.headers.setdefault(name, value)
        if request.method == "OPTIONS" and response.status_code == 200:
            response.headers.pop("Content-Type", None)  # Quart's own answer: only headers, but called HTML
        if self._cors_origins:
            response.headers.add("Vary", "Origin")
            origin = request.headers.get("Origin", "")
            if origin in self._cors_origins:
                response.headers["Access-Control-Allow-Origin"] = origin
                response.headers["Access-Control-Expose-Headers"] = "Retry-After"
                if request.method == "OPTIONS":
                    response.headers.update(_PREFLIGHT)
        return response

    async def _on_refused(self, error: RefusedError) -> Response:
        return _response(error.answer())

    async def _on_store_away(self, _error: StoreUnavailableError) -> Response:
        return _response(store_away().answer())

    async def _on_http_error(self, error: HTTPException) -> Response:
        if isinstance(error, MethodNotAllowed):
            allowed = ", ".join(sorted(error.valid_methods or ()))
            return _response(Answer(405, {"detail": f"Method not allowed; use {allowed}"}, {"Allow": allowed}))
        return _response(Answer(error.code or 500, {"detail": error.name.capitalize()}))

    async def _on_error(self, error: Exception) -> Response:
        log.error("api.failed", error=kind(error), at=where(error))
        return _response(Answer(500, {"detail": "Internal error"}))


def _headers() -> dict[str, str]:
    return {name.lower(): value for name, value in request.headers.items()}


def _response(answer: Answer) -> Response:
    body = msgspec.json.encode(answer.body)
    return Response(body, answer.status, dict(answer.headers), content_type="application/json")
