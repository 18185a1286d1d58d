"""The connections all outgoing requests are made on: guarded, verified, and nothing of them logged.

httpcore itself, not httpx above it: no redirects, no proxies or netrc from the environment, no log line with the URL
in it. Used by `alerts/post.py` and `client.py`.
"""

from __future__ import annotations

import logging
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import httpcore
import httpx

from dunetrace.deliveries import retry_after_s
from dunetrace.outgoing.guard import GuardedBackend

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterator

IDLE_CONNECTION_S = 15.0
MOST_CONNECTIONS = 32  # more than any caller has at a time: who waits here for one would use up its timeout


@asynccontextmanager
async def open_pool(
    *, allow_private: bool, tls: ssl.SSLContext | None = None
) -> AsyncIterator[httpcore.AsyncConnectionPool]:
    """Connections for the length of the block. `tls` replaces the default context: public and system authorities."""
    for noisy in ("httpx", "httpcore"):
        logging.getLogger(noisy).setLevel(logging.CRITICAL)
    if tls is None:
        tls = httpx.create_ssl_context(trust_env=False)
        tls.load_default_certs()
    async with httpcore.AsyncConnectionPool(
        ssl_context=tls,
        max_connections=MOST_CONNECTIONS,
        keepalive_expiry=IDLE_CONNECTION_S,
        network_backend=GuardedBackend(allow_private=allow_private),
    ) as pool:
        yield pool


def address(url: httpx.URL) -> httpcore.URL:
    """The same address as httpcore takes it."""
    return httpcore.URL(scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path)


def asked_to_wait_s(response: httpcore.Response) -> float:
    """The wait its ``Retry-After`` asks for, 0 without one."""
    for name, value in response.headers:
        if name.lower() == b"retry-after":
            return retry_after_s(value.decode("latin-1"), time.time())
    return 0.0


class Body:
    """A request's body in one piece. A plain iterator: an async generator, which httpcore would make of bytes, is left
    behind unfinished when its write is cancelled.
    """

    def __init__(self, body: bytes) -> None:
        self._body = body
        self._pieces = iter([body])

    def __aiter__(self) -> Body:
        return Body(self._body)

    async def __anext__(self) -> bytes:
        for piece in self._pieces:
            return piece
        raise StopAsyncIteration
