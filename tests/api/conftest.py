"""The API on a real socket over a real Postgres."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, Literal

import httpcore
import httpx
import pytest
import trio

from dunetrace.fixes.desk import Desk
from dunetrace.fixes.services import Services
from dunetrace.outgoing.client import Client
from dunetrace.serving.api.app import ApiApp
from dunetrace.serving.asgi import ASGIApp, serve
from dunetrace.serving.auth import Gate, keys_of
from dunetrace.serving.sockets import address_of, listen
from dunetrace.store.gateway import Gateway
from tests.api.rows import NOON, Rows

HEALTHY = {"status": "ok", "db": "ok", "version": "1", "actors": {"api": {"state": "running", "restarts": 0}}}


def make_api(gateway: Any, mode: Literal["dev", "prod"] = "dev", **settings: Any) -> ApiApp:
    """The app as the actor makes it, with a clock that stands at NOON; without a `desk`, nothing is set up there."""
    gate = Gate(mode, keys_of(gateway), trio.current_time)
    settings.setdefault("health", lambda _port: (200, HEALTHY))
    settings.setdefault("desk", Desk(Client(httpcore.AsyncConnectionPool()), Services()))
    return ApiApp(gateway, gate, version="1", now=lambda: NOON, **settings)


@asynccontextmanager
async def serving(app: ASGIApp) -> AsyncIterator[httpx.AsyncClient]:
    """A client of `app` served by Hypercorn on a free port."""
    stop = trio.Event()
    with listen("127.0.0.1:0", "TEST_BIND") as sock:
        async with trio.open_nursery() as nursery:
            await nursery.start(partial(serve, app, sock, stop, read_timeout_s=60))
            try:
                async with httpx.AsyncClient(base_url=f"http://{address_of(sock)}", trust_env=False) as client:
                    yield client
            finally:
                stop.set()


@pytest.fixture
def rows(gateway: Gateway) -> Rows:
    return Rows(gateway)


@pytest.fixture
async def api(gateway: Gateway) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the API in dev mode."""
    async with serving(make_api(gateway)) as client:
        yield client


@pytest.fixture
async def prod(gateway: Gateway) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the API in prod mode, without a key."""
    async with serving(make_api(gateway, "prod")) as client:
        yield client
