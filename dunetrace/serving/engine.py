"""The ingest port's HTTP/1.1 server: accepts connections on a borrowed socket, bounds them, and stops in good order.

`actors/ingest.py` calls `serve`; what happens on a connection is in `connection.py`, the protocol in `http1.py`.
"""

from __future__ import annotations

import errno
import math
import resource
import socket
from collections import deque
from contextlib import suppress
from email.utils import formatdate
from typing import Final

import trio

from dunetrace.serving.answers import OVERLOAD_HOLD_S, OVERLOADED_RETRY_S, Answer
from dunetrace.serving.connection import App, Connection, EngineLimits, Shared

TURNED_AWAY: Final = 128  # connections held before their 503; more than these are answered at once
OTHER_FILES: Final = 256 + TURNED_AWAY  # descriptors kept for those, and for Postgres, the other port, logs
EXHAUSTED_PAUSE_S: Final = 0.05  # until what was closed has given its descriptor back
EXPIRED_AT_ONCE: Final = 20  # about 1 ms of the loop to close
_EXHAUSTED: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})


async def serve(
    app: App,
    sock: socket.socket,
    shutdown: trio.Event,
    *,
    limits: EngineLimits = EngineLimits(),  # noqa: B008 - frozen
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve `app` on a clone of `sock` until `shutdown` is set, then let what is under way finish for a while."""
    engine = Engine(app, limits)
    with sock.dup() as listening:
        listening.setblocking(False)
        async with trio.open_nursery() as clients:
            async with trio.open_nursery() as working:
                working.start_soon(engine.sweep)
                working.start_soon(engine.dismiss)
                working.start_soon(engine.accept, listening, clients)
                task_status.started()
                await shutdown.wait()
                working.cancel_scope.cancel()
            engine.stop()
            clients.cancel_scope.deadline = trio.current_time() + limits.grace_s


class Engine:
    """The connections of one `serve`."""

    def __init__(self, app: App, limits: EngineLimits) -> None:
        self._shared = Shared(app, limits)
        self._most = _file_limit(limits.connections)
        self._connections: set[Connection] = set()
        self._turned_away: deque[tuple[float, socket.socket]] = deque()  # until when each is held, soonest first
        self._has_turned_away = trio.Event()

    async def accept(self, listening: socket.socket, clients: trio.Nursery) -> None:
        """Take connections for ever, each into a task of its own in `clients`."""
        try:
            while True:
                # Also because without a free descriptor accept() says so before it looks whether anybody is there.
                await trio.lowlevel.wait_readable(listening)
                try:
                    sock, address = listening.accept()
                except OSError as error:
                    if error.errno in _EXHAUSTED:
                        self._dismiss_until(math.inf)
                        self._make_room()
                        await trio.sleep(EXHAUSTED_PAUSE_S)
                    continue  # else that client has gone already
                sock.setblocking(False)
                self._take(sock, address[0], clients)
        finally:
            self._dismiss_until(math.inf)

    def _take(self, sock: socket.socket, host: str, clients: trio.Nursery) -> None:
        if len(self._connections) < self._most or self._make_room():
            connection = Connection(sock, host, self._shared)
            self._connections.add(connection)
            clients.start_soon(self._run, connection)
        elif len(self._turned_away) < TURNED_AWAY:
            self._turned_away.append((trio.current_time() + OVERLOAD_HOLD_S, sock))
            self._has_turned_away.set()
        else:
            _say_full(sock)

    async def _run(self, connection: Connection) -> None:
        try:
            await connection.run()
        finally:
            self._connections.discard(connection)

    def _make_room(self) -> bool:
        """Close the connection that has waited longest for a whole request. False when all of them have one."""
        connection = next(iter(self._shared.waiting), None)
        if connection is None:
            return False
        del self._shared.waiting[connection]
        self._connections.discard(connection)
        connection.close()
        return True

    async def dismiss(self) -> None:
        """Answer, for ever, those that were turned away, each when it was held long enough."""
        while True:
            await self._has_turned_away.wait()
            if self._turned_away:
                await trio.sleep_until(self._turned_away[0][0])
                self._dismiss_until(trio.current_time())
            else:
                self._has_turned_away = trio.Event()

    def _dismiss_until(self, now_s: float) -> None:
        while self._turned_away and self._turned_away[0][0] <= now_s:
            _say_full(self._turned_away.popleft()[1])

    async def sweep(self) -> None:
        """End, for ever, the connections whose deadline has passed."""
        while True:
            self._shared.date = f"date: {formatdate(usegmt=True)}\r\n".encode()
            await trio.sleep(self._shared.limits.sweep_s)
            now_s = trio.current_time()
            expired = [connection for connection in self._connections if connection.deadline_s <= now_s]
            for number, connection in enumerate(expired, 1):
                if connection.deadline_s <= now_s:
                    connection.expire()
                if number % EXPIRED_AT_ONCE == 0:
                    await trio.lowlevel.checkpoint()

    def stop(self) -> None:
        """Close what waits for a request; what has one in hand says in its answer that it is the last."""
        self._shared.is_stopping = True
        for connection in list(self._shared.waiting):
            if not connection.is_lingering:
                connection.close()


def _say_full(sock: socket.socket) -> None:
    answer = Answer(503, {"detail": "Too many connections; try again"}, {"Retry-After": str(OVERLOADED_RETRY_S)})
    with sock, suppress(OSError):
        sock.send(answer.rendered(connection=b"connection: close\r\n"))
        sock.shutdown(socket.SHUT_WR)
        sock.recv(1 << 16)  # closed on unread bytes, it would take the answer back


def _file_limit(asked: int) -> int:
    """As many connections as asked for, or as descriptors allow after raising their soft limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = asked + OTHER_FILES
    if soft == resource.RLIM_INFINITY:
        return asked
    if soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        with suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return max(1, min(asked, soft - OTHER_FILES))
