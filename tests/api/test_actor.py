"""The actor: both ports answer, and both are let go when a stop comes."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import httpx
import trio

from dunetrace.actors.api import ApiActor
from dunetrace.config import load
from dunetrace.serving.sockets import address_of, listen
from dunetrace.store.gateway import Gateway
from tests.api.conftest import HEALTHY
from tests.api.rows import Rows


async def test_it_serves_the_api_and_the_page_until_it_is_stopped(gateway: Gateway, rows: Rows, tmp_path: Path) -> None:
    await rows.agent("a")
    stopping = trio.Event()
    with listen("127.0.0.1:0", "API") as api, listen("127.0.0.1:0", "DASHBOARD") as dashboard:
        lent = SimpleNamespace(
            gateway=gateway,
            stopping=stopping,
            settings=load({}, tmp_path),
            health=lambda _port: (200, HEALTHY),
            socket={"api": api, "dashboard": dashboard}.__getitem__,
        )
        with trio.fail_after(20):
            async with trio.open_nursery() as nursery:
                await nursery.start(ApiActor().run, lent)
                async with httpx.AsyncClient(trust_env=False) as client:
                    for sock in (api, dashboard):
                        answer = await client.get(f"http://{address_of(sock)}/v1/agents")
                        assert [agent["agent_id"] for agent in answer.json()["agents"]] == ["a"]
                    page = await client.get(f"http://{address_of(dashboard)}/")
                    assert page.headers["content-type"].startswith("text/html")
                    assert (await client.get(f"http://{address_of(api)}/")).status_code == 404
                stopping.set()
