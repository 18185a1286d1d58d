"""A request to a service whose answer is wanted: bounded in time and size, tried again where that is harmless.

Used by the clients in `fixes/`. What goes wrong is an `OutgoingError` in words of ours: nothing of the address, the
headers or either body is in it. Alerts have their own schedule, kept in Postgres, and go by `alerts/post.py`.
"""

from __future__ import annotations

import random
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final, NamedTuple

import httpcore
import httpx
import trio

from dunetrace.backoff import delay_s
from dunetrace.errors import DunetraceError
from dunetrace.outgoing.guard import InternalAddressError
from dunetrace.outgoing.pool import Body, address, asked_to_wait_s, open_pool

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterator, Mapping

TRIES: Final = 3
TRY_BASE_S, TRY_CAP_S = 0.5, 4.0
LONGEST_WAIT_S: Final = 20.0  # a Retry-After beyond this is an answer for whoever asked, not something to sit out
_RETRYABLE = (408, 429)


class OutgoingError(DunetraceError):
    """A service could not be asked, or its answer could not be taken. The message continues "<service> ..."."""


class Request(NamedTuple):
    """What is asked. `timeout_s` and `limit_bytes` bound each try and its answer; `safe` = may be sent twice."""

    method: str
    url: str
    headers: Mapping[str, str]
    timeout_s: float
    limit_bytes: int
    body: bytes = b""
    safe: bool = True


class Reply(NamedTuple):
    """What was answered, whatever the status."""

    status: int
    body: bytes
    retry_after_s: float = 0.0


class Client:
    """Asks over kept connections. Made by `open_client`."""

    def __init__(self, pool: httpcore.AsyncConnectionPool) -> None:
        self._pool = pool
        self._rng = random.Random()

    async def ask(self, request: Request) -> Reply:
        """The answer, after up to `TRIES` tries of a safe request. Raises OutgoingError."""
        tries = TRIES if request.safe else 1
        for spent in range(1, tries):
            wait_s = delay_s(spent, base_s=TRY_BASE_S, cap_s=TRY_CAP_S, rng=self._rng)
            try:
                reply = await self._once(request)
            except _BrokenError:
                await trio.sleep(wait_s)
                continue
            if not _may_pass(reply.status) or reply.retry_after_s > LONGEST_WAIT_S:
                return reply
            await trio.sleep(max(wait_s, reply.retry_after_s))
        return await self._once(request)

    async def _once(self, request: Request) -> Reply:
        url = httpx.URL(request.url)
        try:
            with trio.fail_after(request.timeout_s):
                async with self._pool.stream(
                    request.method, address(url), headers=_headers(url, request), content=Body(request.body)
                ) as response:
                    body = await _read(response, request.limit_bytes)
                    return Reply(response.status, body, asked_to_wait_s(response))
        except InternalAddressError:
            raise OutgoingError(
                "has an internal address; DUNETRACE_ALLOW_PRIVATE_DESTINATIONS=true allows that"
            ) from None
        except (trio.TooSlowError, httpcore.TimeoutException):
            raise OutgoingError(f"did not answer within {request.timeout_s:g} seconds") from None
        except httpcore.ConnectError:
            raise _BrokenError("cannot be reached") from None
        except (httpcore.NetworkError, httpcore.ProtocolError):
            raise _BrokenError("broke off the connection") from None


class _BrokenError(OutgoingError):
    """The connection failed, which may pass."""


@asynccontextmanager
async def open_client(*, allow_private: bool, tls: ssl.SSLContext | None = None) -> AsyncIterator[Client]:
    """A `Client` for the length of the block. `tls` replaces the default context, as in `open_pool`."""
    async with open_pool(allow_private=allow_private, tls=tls) as pool:
        yield Client(pool)


def _may_pass(status: int) -> bool:
    return status >= 500 or status in _RETRYABLE


def _headers(url: httpx.URL, request: Request) -> list[tuple[str, str]]:
    # `identity`: a small answer that inflates to a large one would pass the limit.
    return [
        ("Host", url.netloc.decode("ascii")),
        ("User-Agent", "Dunetrace"),
        ("Accept", "application/json"),
        ("Accept-Encoding", "identity"),
        *([("Content-Type", "application/json")] if request.body else []),
        ("Content-Length", str(len(request.body))),
        *request.headers.items(),
    ]


async def _read(response: httpcore.Response, limit_bytes: int) -> bytes:
    body = bytearray()
    with trio.CancelScope() as reading:
        async for chunk in response.aiter_stream():
            body += chunk
            if len(body) > limit_bytes:
                # Not `raise`: httpcore nests async generators, and only an error from within ends all of them.
                reading.cancel()
    if len(body) > limit_bytes:
        raise OutgoingError(f"sent more than {limit_bytes >> 20} MiB")
    return bytes(body)
