"""`--demo` as a new user meets it: from nothing to a page that shows agents, signals and explanations, in a browser."""

from __future__ import annotations

import os
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
from playwright.sync_api import Browser

from dunetrace.signals import FailureType
from tests.harness.server import Server
from tests.page.conftest import browser  # noqa: F401 - a fixture
from tests.page.watching import Watched

EXPECTED = set(FailureType)
WITHIN_S = 30  # seconds on a quiet machine; the tests share theirs


def shown(server: Server) -> set[str]:
    agents = httpx.get(f"{server.api_url}/v1/agents", trust_env=False).json()["agents"]
    return {name for agent in agents for name in agent["failure_types"]}


def test_the_demo_shows_every_kind_of_failure_on_a_clean_page(tmp_path: Path, browser: Browser) -> None:  # noqa: F811
    with Server(tmp_path, args=["--demo"], env={"DUNETRACE_STALL_TIMEOUT": "3"}) as server:
        deadline = time.monotonic() + WITHIN_S
        while not shown(server) >= EXPECTED:
            assert time.monotonic() < deadline, (shown(server), server.log_tail())
        context = browser.new_context(viewport={"width": 1440, "height": 900})
        address: Any = SimpleNamespace(url=server.dashboard_url)
        watched = Watched(context.new_page(), address)
        page = watched.go()
        for agent in ("support-agent", "research-agent", "billing-agent"):
            assert page.get_by_role("link", name=agent, exact=True).is_visible()
        page = watched.go("#/agents/support-agent/signals")
        page.get_by_text("Tool loop: ").first.click()
        text = page.inner_text("main")
        assert "same call of" in text
        assert "Suggested fixes" in text
        (run, *_) = httpx.get(
            f"{server.api_url}/v1/agents/support-agent/signals", params={"failure_type": "TOOL_LOOP"}, trust_env=False
        ).json()["signals"]
        page = watched.go(f"#/runs/{run['run_id']}")
        assert "Tool loop" in page.inner_text("main")
        if pictures := os.environ.get("DUNETRACE_TEST_PICTURES"):
            page.screenshot(path=f"{pictures}/run.png", full_page=True)
            watched.go().screenshot(path=f"{pictures}/agents.png")
            page = watched.go("#/agents/support-agent/signals")
            page.get_by_text("Tool loop: ").first.click()
            page.screenshot(path=f"{pictures}/signals.png")
        watched.assert_clean()
        context.close()
