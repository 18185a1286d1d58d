"""One attempt: a guarded POST that ends within `ATTEMPT_TIMEOUT_S`, whatever the receiver does.

httpcore itself, not httpx above it: no redirects, no proxies or netrc from the environment, no log line with the URL
in it. Used by the destination actors.
"""

from __future__ import annotations

import base64
import logging
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import httpcore
import httpx
import trio

from dunetrace.alerts.guard import GuardedBackend, InternalAddressError
from dunetrace.deliveries import Outcome, Verdict, outcome_of, retry_after_s

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterator

    from dunetrace.alerts.webhook import Message

ATTEMPT_TIMEOUT_S = 10.0
IDLE_CONNECTION_S = 15.0
# A body read to its end lets the connection be used again; beyond these it is not worth it.
READ_BYTES, READ_TIMEOUT_S = 4096, 1.0


class Post:
    """Takes messages to their receivers over kept connections. Made by `open_post`."""

    def __init__(self, pool: httpcore.AsyncConnectionPool) -> None:
        self._pool = pool

    async def send(self, url: str, message: Message) -> Outcome:
        """POST once. Never raises for what a network or a receiver can do; the outcome names the error's class."""
        target = httpx.URL(url)
        answer: Outcome | None = None
        try:
            with trio.fail_after(ATTEMPT_TIMEOUT_S):
                async with self._pool.stream(
                    "POST",
                    httpcore.URL(
                        scheme=target.raw_scheme,
                        host=target.raw_host,
                        port=target.port,
                        target=target.raw_path,
                    ),
                    headers=_headers(target, message),
                    content=_Body(message.body),
                ) as response:
                    answer = outcome_of(response.status, _asked_s(response))
                    await _drain(response)
        except InternalAddressError as error:
            return Outcome(Verdict.REFUSED, error=type(error).__name__)
        except (
            trio.TooSlowError,
            httpcore.TimeoutException,
            httpcore.NetworkError,
            httpcore.ProtocolError,
        ) as error:
            # Once there is a status the attempt is decided, however the rest of the answer fared.
            return answer or Outcome(Verdict.FAILED, error=type(error).__name__)
        return answer


@asynccontextmanager
async def open_post(*, allow_private: bool, tls: ssl.SSLContext | None = None) -> AsyncIterator[Post]:
    """A `Post` for the length of the block. `tls` replaces the default context: public and system authorities."""
    for noisy in ("httpx", "httpcore"):
        logging.getLogger(noisy).setLevel(logging.CRITICAL)
    if tls is None:
        tls = httpx.create_ssl_context(trust_env=False)
        tls.load_default_certs()
    async with httpcore.AsyncConnectionPool(
        ssl_context=tls,
        keepalive_expiry=IDLE_CONNECTION_S,
        network_backend=GuardedBackend(allow_private=allow_private),
    ) as pool:
        yield Post(pool)


class _Body:
    """A request's body in one piece. A plain iterator: an async generator, which httpcore would make of bytes, is left
    behind unfinished when its write is cancelled.
    """

    def __init__(self, body: bytes) -> None:
        self._body = body
        self._pieces = iter([body])

    def __aiter__(self) -> _Body:
        return _Body(self._body)

    async def __anext__(self) -> bytes:
        for piece in self._pieces:
            return piece
        raise StopAsyncIteration


def _headers(target: httpx.URL, message: Message) -> list[tuple[str, str]]:
    headers = [
        ("Host", target.netloc.decode("ascii")),
        ("User-Agent", "Dunetrace"),
        ("Content-Length", str(len(message.body))),
        *message.headers.items(),
    ]
    if target.username or target.password:
        pair = base64.b64encode(f"{target.username}:{target.password}".encode()).decode()
        headers.append(("Authorization", f"Basic {pair}"))
    return headers


def _asked_s(response: httpcore.Response) -> float:
    for name, value in response.headers:
        if name.lower() == b"retry-after":
            return retry_after_s(value.decode("latin-1"), time.time())
    return 0.0


async def _drain(response: httpcore.Response) -> None:
    read_bytes = 0
    with trio.move_on_after(READ_TIMEOUT_S) as scope:
        async for chunk in response.aiter_stream():
            read_bytes += len(chunk)
            if read_bytes > READ_BYTES:
                # Not `return`: httpcore nests async generators, and only an error from within ends all of them.
                scope.cancel()
