"""``python -m bench.engines``: what an HTTP engine costs, as parsers alone and end to end under a handler that does
nothing. The figures in docs/decisions.md come from here; httptools is in the extra `bench`.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import select
import socket
import timeit
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from time import perf_counter
from typing import Any

import h11
import httptools
import trio

from dunetrace.serving import asgi, connection, engine
from dunetrace.serving.answers import Answer
from dunetrace.serving.http1 import ONCE, Head, Parser
from dunetrace.serving.limits import BodyBudget
from dunetrace.serving.requests import Request
from dunetrace.serving.sockets import address_of, listen

CONNECTIONS = 16
BUDGET = BodyBudget(1 << 30)
EVENT = {
    "event_type": "llm.called", "run_id": "6f1c7a52-96d5-4df0-a5e6-b1c3dd9e3a56", "agent_id": "agent",
    "agent_version": "6ddeb0c4", "step_index": 1, "timestamp": 1_795_316_696.25,
    "payload": {"model": "gpt-4o", "prompt_tokens": 150}, "parent_run_id": None,
}  # fmt: skip


def post(events: int) -> bytes:
    """A request as our SDK sends it."""
    body = json.dumps({"agent_id": "agent", "events": [EVENT] * events}).encode()
    return (
        b"POST /v1/ingest HTTP/1.1\r\nHost: 127.0.0.1:8001\r\nUser-Agent: dunetrace/1.0.0\r\n"
        b"Accept-Encoding: identity\r\nContent-Type: application/json\r\n"
        b"Authorization: Bearer dt_0123456789abcdef0123456789abcdef0123456789a\r\n"
        b"Idempotency-Key: 6f1c7a52-96d5-4df0-a5e6-b1c3dd9e3a56\r\nContent-Length: %d\r\n"
        b"Connection: keep-alive\r\n\r\n%b" % (len(body), body)
    )


class HttptoolsParser:
    """llhttp behind `http1.Parser`'s face, for requests without pipelining, with the checks it leaves to its user."""

    rest_bytes: int | None = None

    def __init__(self) -> None:
        self._parser = httptools.HttpRequestParser(self)
        self._pieces: list[bytes] = []
        self.holds_bytes = 0
        self.body_begun = False
        self._is_complete = True
        self._head: Head | None = None

    @property
    def whole(self) -> bool:
        return self._is_complete and not self._pieces

    def feed(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def head(self) -> Head | None:
        head, self._head = self._head, None
        return head

    def piece(self) -> bytes:
        pieces, self._pieces = self._pieces, []
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def on_message_begin(self) -> None:
        self._headers: dict[str, str] = {}
        self._url = b""
        self._is_complete = False

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        known = name.decode("latin-1").lower()
        if known in self._headers and known in ONCE:
            raise ValueError
        self._headers[known] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        headers, parser = self._headers, self._parser
        if "host" not in headers or headers.get("transfer-encoding", "chunked") != "chunked":
            raise ValueError
        method, persistent = parser.get_method().decode(), parser.should_keep_alive()
        self._head = Head(method, self._url.decode(), headers, persistent, "expect" in headers)

    def on_body(self, piece: bytes) -> None:
        self._pieces.append(piece)

    def on_message_complete(self) -> None:
        self._is_complete = True


def _ours(make: Callable[[], Any], data: bytes) -> Callable[[], None]:
    parser = make()

    def once() -> None:
        parser.feed(data)
        assert parser.head() is not None
        parser.piece()
        assert parser.whole

    return once


def _h11(data: bytes) -> Callable[[], None]:
    def once() -> None:
        parser = h11.Connection(h11.SERVER)
        parser.receive_data(data)
        while not isinstance(parser.next_event(), h11.EndOfMessage):
            pass

    return once


def parsers() -> None:
    """Microseconds a request, of each parser alone."""
    print(f"{'parser alone, µs a request':40}{'1 event':>10}{'35 kB':>10}")
    makes: tuple[tuple[str, Callable[[bytes], Callable[[], None]]], ...] = (
        ("http1.Parser", partial(_ours, Parser)), ("httptools", partial(_ours, HttptoolsParser)), ("h11", _h11),
    )  # fmt: skip
    for name, make in makes:
        best_us = [min(timeit.repeat(make(post(events)), number=2_000, repeat=5)) * 500 for events in (1, 150)]
        print(f"{name:40}{best_us[0]:>10.1f}{best_us[1]:>10.1f}")


async def _handler(request: Request) -> Answer:
    with BUDGET.lease() as lease:
        await request.body(1 << 20, lease)
    return Answer(202, {"accepted": 1})


async def _asgi_app(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "lifespan":
        await asgi.lifespan(receive, send)
        return
    while (await receive()).get("more_body"):
        pass
    await send({"type": "http.response.start", "status": 202, "headers": [(b"content-length", b"14")]})
    await send({"type": "http.response.body", "body": b'{"accepted":1}'})


def _serve(name: str, sock: socket.socket) -> None:
    if name == "Hypercorn":
        trio.run(partial(asgi.serve, _asgi_app, sock, trio.Event(), read_timeout_s=60))
    if name == "httptools":
        connection.Parser = HttptoolsParser  # type: ignore[assignment, attr-defined]
    trio.run(engine.serve, _handler, sock, trio.Event())


@contextmanager
def _served(name: str) -> Iterator[tuple[str, int]]:
    with listen("127.0.0.1:0", "BIND") as sock:
        server = multiprocessing.get_context("fork").Process(target=_serve, args=(name, sock), daemon=True)
        server.start()
        host, _, port = address_of(sock).rpartition(":")
        try:
            yield host, int(port)
        finally:
            server.terminate()
            server.join()


def load(address: tuple[str, int], request: bytes, seconds: float) -> float:
    """Requests a second over `CONNECTIONS` connections, each sending the next when it has the answer."""
    clients = {sock.fileno(): sock for sock in (socket.create_connection(address) for _ in range(CONNECTIONS))}
    epoll, answered = select.epoll(), 0
    for number, client in clients.items():
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        epoll.register(number, select.EPOLLIN)
        client.sendall(request)
    began_s = now_s = perf_counter()
    while now_s < began_s + seconds:
        for number, _ in epoll.poll(1):
            answer = clients[number].recv(65_536)
            while not answer.endswith(b'{"accepted":1}'):
                answer += clients[number].recv(65_536)
            clients[number].sendall(request)
            answered += 1
        now_s = perf_counter()
    for client in clients.values():
        client.close()
    epoll.close()
    return answered / (now_s - began_s)


def end_to_end(seconds: float, rounds: int) -> None:
    """Requests a second of each engine, taken in turns so that all of them see the same machine."""
    print(f"\n{f'end to end, {CONNECTIONS} connections, requests/s':40}{'1 event':>10}{'35 kB':>10}")
    names = ("http1.Parser", "httptools", "Hypercorn")
    best: dict[tuple[str, int], float] = {}
    for _ in range(rounds):
        for name in names:
            with _served(name) as address:
                for events in (1, 150):
                    rate = load(address, post(events), seconds)
                    best[name, events] = max(rate, best.get((name, events), 0))
    for name in names:
        print(f"{name:40}{best[name, 1]:>10.0f}{best[name, 150]:>10.0f}")


def main() -> None:
    arguments = argparse.ArgumentParser(description="What an HTTP engine costs.")
    arguments.add_argument("--seconds", type=float, default=1.5, help="of each load (%(default)s)")
    arguments.add_argument("--rounds", type=int, default=3, help="the best one counts (%(default)s)")
    asked = arguments.parse_args()
    parsers()
    end_to_end(asked.seconds, asked.rounds)


if __name__ == "__main__":
    main()
