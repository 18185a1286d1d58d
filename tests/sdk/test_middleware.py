"""One run a request, under real servers of both kinds."""

from __future__ import annotations

import http.client
import io
import socket
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, make_server

import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, StreamingResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket

from dunetrace import Dunetrace, DunetraceASGIMiddleware, DunetraceWSGIMiddleware, get_current_run
from tests.sdk.sink import Sink

Make = Callable[..., Dunetrace]
CANARY = "canary-6d1f"


@pytest.fixture
def dt(client: Make) -> Dunetrace:
    return client()


def _tool() -> None:
    run = get_current_run()
    assert run is not None
    call = run.tool_called("search")
    run.tool_responded("search", call_id=call)


def in_a_thread(_request: Request) -> PlainTextResponse:
    _tool()
    return PlainTextResponse("ok")


async def streamed(_request: Request) -> StreamingResponse:
    async def body() -> Any:
        for piece in ("one ", "two"):
            _tool()
            yield piece

    return StreamingResponse(body())


async def broken(_request: Request) -> PlainTextResponse:
    raise LookupError(CANARY)


async def spoken(websocket: WebSocket) -> None:
    await websocket.accept()
    _tool()
    await websocket.close()


@contextmanager
def asgi(dt: Dunetrace) -> Iterator[int]:
    routes = [Route("/thread", in_a_thread), Route("/stream", streamed), Route("/broken", broken)]
    inner = Starlette(routes=[*routes, WebSocketRoute("/ws", spoken)])
    app = DunetraceASGIMiddleware(inner, dt, "web", model="gpt-4o", tools=["search"])
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        server = uvicorn.Server(uvicorn.Config(app, log_level="critical", lifespan="on"))  # type: ignore[arg-type]
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            yield listening.getsockname()[1]
        finally:
            server.should_exit = True
            thread.join()


def wsgi_app(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    if environ["PATH_INFO"] == "/broken":
        raise LookupError(CANARY)
    start_response("200 OK", [("Content-Type", "text/plain")])
    if environ["PATH_INFO"] == "/stream":
        return _pieces()
    _tool()
    return [b"ok"]


def _pieces() -> Iterator[bytes]:
    for piece in (b"one ", b"two"):
        _tool()
        yield piece


class _Quiet(WSGIRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        """Nothing on the console."""

    def get_stderr(self) -> Any:
        return io.StringIO()


@contextmanager
def wsgi(dt: Dunetrace) -> Iterator[int]:
    app: Any = DunetraceWSGIMiddleware(wsgi_app, dt, "web", model="gpt-4o", tools=["search"])
    with make_server("127.0.0.1", 0, app, handler_class=_Quiet) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()


def _get(port: int, path: str) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("GET", f"{path}?{CANARY}", headers={"Connection": "close"})
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def _told(dt: Dunetrace, sink: Sink) -> list[str]:
    assert dt.flush(10)
    assert CANARY.encode() not in b"".join(request.body for request in sink.requests)
    return [event["event_type"] for event in sink.accepted]


CALL = ["tool.called", "tool.responded"]


@pytest.mark.filterwarnings("ignore:websockets.*:DeprecationWarning")
@pytest.mark.parametrize("serving", [asgi, wsgi])
@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/thread", (200, b"ok", ["run.started", *CALL, "run.completed"])),
        ("/stream", (200, b"one two", ["run.started", *CALL, *CALL, "run.completed"])),
        ("/broken", (500, None, ["run.started", "run.errored"])),
    ],
)
def test_a_request_is_a_run(
    dt: Dunetrace, sink: Sink, serving: Any, path: str, expected: tuple[int, bytes | None, list[str]]
) -> None:
    with serving(dt) as port:
        answered, written = _get(port, path)
    status, body, told = expected
    assert answered == status and body in (written, None)
    assert _told(dt, sink) == told
    started = sink.accepted[0]
    assert (started["agent_id"], started["payload"]["model"], started["payload"]["tools"]) == (
        "web", "gpt-4o", ["search"],
    )  # fmt: skip


async def test_a_client_that_is_gone_is_no_error(dt: Dunetrace, sink: Sink) -> None:
    async def app(_scope: Any, receive: Any, _send: Any) -> None:
        assert (await receive())["type"] == "http.disconnect"
        raise ConnectionError

    async def receive() -> dict[str, str]:
        return {"type": "http.disconnect"}

    async def send(_message: Any) -> None: ...

    with pytest.raises(ConnectionError):
        await DunetraceASGIMiddleware(app, dt, "web")({"type": "http"}, receive, send)
    assert _told(dt, sink) == ["run.started", "run.completed"]


def test_a_body_that_is_closed_early_or_breaks(dt: Dunetrace, sink: Sink) -> None:
    closed = []

    class Breaking:
        def __iter__(self) -> Iterator[bytes]:
            yield b"one"
            raise LookupError

        def close(self) -> None:
            closed.append(get_current_run())

    middleware = DunetraceWSGIMiddleware(lambda *_: Breaking(), dt, "web")
    first: Any = middleware({}, print)
    assert next(first) == b"one"
    first.close()
    second: Any = middleware({}, print)
    with pytest.raises(LookupError):
        list(second)
    second.close()
    assert closed[0] is not None and closed[1] is None  # that one's run was over
    assert _told(dt, sink) == ["run.started", "run.completed", "run.started", "run.errored"]
    assert get_current_run() is None
