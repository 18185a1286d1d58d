"""ASGI as the API speaks it: Hypercorn on a borrowed listening socket, and the life span of an app that has none."""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable, MutableMapping
from functools import partial
from typing import Any, Final

import trio
from hypercorn.config import Config
from hypercorn.trio import serve as hypercorn_serve

from dunetrace.serving.sockets import BACKLOG

GRACE_S: Final = 2.0  # for answers under way when a stop comes: the supervisor gives each stage of a stop 3 seconds
REQUESTS_A_CONNECTION: Final = 1_000_000

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
ASGIApp = Callable[[Any, Any, Any], Awaitable[None]]  # (scope, receive, send)


async def serve(
    app: ASGIApp,
    sock: socket.socket,
    shutdown: trio.Event,
    *,
    read_timeout_s: int,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve `app` on a clone of `sock` until `shutdown` is set, then let what is under way finish for a while.

    A connection that sends nothing for `read_timeout_s` is closed, also while its request is being worked on: it must
    be longer than the longest handler.
    """
    config = Config()
    config.bind = [f"fd://{sock.dup().detach()}"]  # Hypercorn closes the clone
    config.backlog = BACKLOG
    config.accesslog = config.errorlog = None  # its lines quote query strings and exception texts
    config.include_server_header = False
    config.graceful_timeout = GRACE_S
    config.read_timeout = read_timeout_s
    config.keep_alive_timeout = read_timeout_s
    config.keep_alive_max_requests = REQUESTS_A_CONNECTION

    start = partial(hypercorn_serve, app, config, shutdown_trigger=shutdown.wait, mode="asgi")
    async with trio.open_nursery() as nursery:
        await nursery.start(start)
        task_status.started()


async def lifespan(receive: Receive, send: Send) -> None:
    """Serve one `lifespan` scope of an app that is whole once constructed: both messages are answered, nothing done."""
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return
