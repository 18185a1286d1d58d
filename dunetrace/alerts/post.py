"""One attempt: a guarded POST that ends within `ATTEMPT_TIMEOUT_S`, whatever the receiver does.

httpcore itself, not httpx above it: no redirects, no proxies or netrc from the environment, no log line with the URL
in it. Used by the destination actors.
"""

from __future__ import annotations

import base64
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import httpcore
import httpx
import trio

from dunetrace.deliveries import Outcome, Verdict, outcome_of
from dunetrace.outgoing.guard import InternalAddressError
from dunetrace.outgoing.pool import Body, address, asked_to_wait_s, open_pool

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterator

    from dunetrace.alerts.webhook import Message

ATTEMPT_TIMEOUT_S = 10.0
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
                    address(target),
                    headers=_headers(target, message),
                    content=Body(message.body),
                ) as response:
                    answer = outcome_of(response.status, asked_to_wait_s(response))
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
    """A `Post` for the length of the block. `tls` replaces the default context, as in `open_pool`."""
    async with open_pool(allow_private=allow_private, tls=tls) as pool:
        yield Post(pool)


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


async def _drain(response: httpcore.Response) -> None:
    read_bytes = 0
    with trio.move_on_after(READ_TIMEOUT_S) as scope:
        async for chunk in response.aiter_stream():
            read_bytes += len(chunk)
            if read_bytes > READ_BYTES:
                # Not `return`: httpcore nests async generators, and only an error from within ends all of them.
                scope.cancel()
