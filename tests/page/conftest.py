"""A real browser for each module, and for each test a server of its own and a watched page."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import Browser, sync_playwright

from tests.page.serving import PageServer, page_server
from tests.page.watching import Watched

CHROMIUM = "/usr/bin/chromium"
QUIET = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if not Path(CHROMIUM).exists():
        pytest.fail(f"the page's tests need Chromium at {CHROMIUM}: apt-get install chromium")
    with plain_asyncio(), sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        yield chromium
        chromium.close()


@contextmanager
def plain_asyncio() -> Iterator[None]:
    """Playwright runs asyncio in greenlets; once trio-asyncio is imported, a new loop would be one of its own."""
    asyncio.set_event_loop_policy(asyncio.DefaultEventLoopPolicy())
    try:
        yield
    finally:
        asyncio.set_event_loop_policy(None)


@pytest.fixture(scope="module")
def still() -> Iterator[PageServer]:
    """A server whose world no test changes."""
    with page_server() as running:
        yield running


@pytest.fixture(scope="module")
def shared(browser: Browser, still: PageServer) -> Iterator[Callable[..., Watched]]:
    """A page of the still server for each set of options of Playwright's `new_context`, opened once a module."""
    known: dict[str, Watched] = {}

    def find(**options: object) -> Watched:
        name = repr(sorted(options.items()))
        if name not in known:
            context = browser.new_context(**{"viewport": {"width": 1440, "height": 900}, **options})
            context.set_default_timeout(10_000)
            known[name] = Watched(context.new_page(), still)
        known[name].forget()
        return known[name]

    yield find
    for watched in known.values():
        watched.page.context.close()


@pytest.fixture
def server() -> Iterator[PageServer]:
    """A server of its own world, for the test to change."""
    with page_server() as running:
        yield running


@pytest.fixture
def open_page(browser: Browser, server: PageServer) -> Iterator[Callable[..., Watched]]:
    """Makes a page with options of Playwright's `new_context`."""
    contexts = []

    def make(**options: object) -> Watched:
        context = browser.new_context(**{"viewport": {"width": 1440, "height": 900}, **options})
        context.set_default_timeout(10_000)
        contexts.append(context)
        return Watched(context.new_page(), server)

    yield make
    for context in contexts:
        context.close()


@pytest.fixture
def watched(open_page: Callable[..., Watched]) -> Watched:
    return open_page()
