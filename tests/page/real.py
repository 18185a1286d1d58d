"""The page over the real server and Postgres, with rows a test puts straight into the tables."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import trio
from playwright.sync_api import Browser, Page, Route

from dunetrace.store.gateway import open_gateway
from tests.api.rows import Rows
from tests.harness.server import Server
from tests.page.watching import Watched

Given = TypeVar("Given")
VERSION = "8c1f2a3b"
PRICES = 'models:\n  "gpt-4o": {input: 2.50, output: 10.00}\n'
MIX = {"gpt-4o": [800_000, 0, 100_000]}  # 900,000 tokens for 3 USD
LOOP = {
    "kind": "equal", "tool_name": "web_search", "same_arguments": True, "call_count": 5, "threshold": 3, "window": 5,
    "first_step": 2, "last_step": 6, "wasted_calls": 4, "wasted_ms": 8100, "wasted_tokens": 90_000,
}  # fmt: skip


class Real:
    """A running server and the address of its database."""

    def __init__(self, server: Server, database: str) -> None:
        self.server, self.database = server, database

    def put(self, rows: Callable[[Rows], Awaitable[Given]]) -> Given:
        """Runs `rows` over the server's own database; on a thread, as Playwright has this one's loop."""

        async def main() -> Given:
            async with open_gateway(self.database) as gateway:
                return await rows(Rows(gateway))

        with ThreadPoolExecutor(1) as pool:
            return pool.submit(trio.run, main).result()


@contextmanager
def real(directory: Path, database: str, env: dict[str, str] | None = None) -> Iterator[Real]:
    (directory / "prices.yml").write_text(PRICES)
    with Server(directory, database_url=database, env=env or {}) as server:
        yield Real(server, database)


def watch(browser: Browser, server: Server, **options: Any) -> Watched:
    """A page of the server's dashboard port."""
    address: Any = type("Address", (), {"url": server.dashboard_url})()
    context = browser.new_context(**{"viewport": {"width": 1440, "height": 900}, **options})
    context.set_default_timeout(10_000)
    return Watched(context.new_page(), address)


def holding(page: Page, address: str) -> list[Route]:
    """Requests to `address` go no further; they are in the list, for the test to let go."""
    held: list[Route] = []

    def hold(route: Route) -> None:
        held.append(route)

    page.route(address, hold)
    return held


async def looping(rows: Rows, agent_id: str, *, failure_type: str = "TOOL_LOOP", run: str = "", ago: float = 60) -> int:
    """An agent with one priced run that shows the failure, and the issue of it. Gives the signal's id."""
    now, run_id = time.time(), run or f"run-of-{agent_id}"
    await rows.agent(agent_id, seen=now)
    await rows.signal_hour(agent_id, hour=now - now % 3600, failure_type=failure_type)
    await rows.run(run_id, agent_id, started=now - ago, token_mix=MIX, total_tokens=900_000, signal_count=1)
    await rows.issue(agent_id, failure_type=failure_type, first=now - ago, last=now - 5)
    return await rows.signal(run_id, agent_id, failure_type=failure_type, detected=now - ago, evidence=LOOP)
