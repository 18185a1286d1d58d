"""One run a request, for servers of either kind: `DunetraceASGIMiddleware` and `DunetraceWSGIMiddleware`.

The run is the current one wherever the application works on the request, in its threads as well, and ends when the
application is done with it: the body sent, background work included. Nothing of the request is recorded, neither its
path nor its body; who wants the user's words on the run says `user_message`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Iterator, MutableMapping
from typing import TYPE_CHECKING, Any

from dunetrace.sdk import scope
from dunetrace.sdk.decorators import tool_names
from dunetrace.sdk.scope import current

if TYPE_CHECKING:
    from dunetrace.sdk.client import Dunetrace
    from dunetrace.sdk.context import RunContext
    from dunetrace.sdk.scope import RunScope

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
_GONE = ("http.disconnect", "websocket.disconnect")


class _Middleware:
    def __init__(
        self, app: Any, dt: Dunetrace, agent_id: str, *, model: str = "unknown", tools: Iterable[object] | None = None
    ) -> None:
        self._app = app
        self._dt = dt
        self._agent_id = agent_id
        self._model = model
        self._tools = tool_names(tools)

    def _scope(self) -> RunScope:
        return self._dt.run(self._agent_id, model=self._model, tools=self._tools)


class DunetraceASGIMiddleware(_Middleware):
    """A run for each HTTP request and each websocket of an ASGI application; what it raises ends the run as errored.

    >>> app = DunetraceASGIMiddleware(app, dt, "support-agent", model="gpt-4o")
    """

    async def __call__(self, asgi: Message, receive: Receive, send: Send) -> None:
        """Serve one connection. Lifespan passes through."""
        if asgi["type"] not in ("http", "websocket"):
            await self._app(asgi, receive, send)
            return
        client_is_gone = False

        async def watched() -> Message:
            nonlocal client_is_gone
            message = await receive()
            client_is_gone = client_is_gone or message["type"] in _GONE
            return message

        run = self._scope().begin()
        try:
            with current(run):
                await self._app(asgi, watched, send)
        except BaseException as error:
            # An application that breaks off because nobody listens any more has not failed.
            scope.end(run, None if client_is_gone else error)
            raise
        scope.end(run, None)


class DunetraceWSGIMiddleware(_Middleware):
    """A run for each request of a WSGI application; what it raises, also while its body is read, ends it as errored.

    >>> app = DunetraceWSGIMiddleware(app, dt, "support-agent", model="gpt-4o")
    """

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        """Serve one request. The run ends with the body: when it is read to its end, or closed."""
        run = self._scope().begin()
        try:
            with current(run):
                return _Body(self._app(environ, start_response), run)
        except BaseException as error:
            scope.end(run, error)
            raise


class _Body:
    """An application's body, with its run current while it is made."""

    def __init__(self, body: Iterable[bytes], run: RunContext) -> None:
        self._body = body
        self._pieces: Iterator[bytes] = iter(body)
        self._run = run

    def __iter__(self) -> _Body:
        return self

    def __next__(self) -> bytes:
        try:
            with current(self._run):
                return next(self._pieces)
        except StopIteration:
            raise
        except BaseException as error:
            scope.end(self._run, error)
            raise

    def close(self) -> None:
        """Called by the server, whatever became of the request."""
        try:
            with current(self._run):
                if (close := getattr(self._body, "close", None)) is not None:
                    close()
        except BaseException as error:
            scope.end(self._run, error)
            raise
        scope.end(self._run, None)
