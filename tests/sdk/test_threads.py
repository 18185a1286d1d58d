"""Runs follow into the threads and pools that are used inside them, and out of those that outlive them."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
import trio

from dunetrace import Dunetrace, RunContext, get_current_run

Make = Callable[..., Dunetrace]
Found = list[RunContext | None]


@pytest.fixture
def dt(client: Make) -> Dunetrace:
    return client()


def _look(found: Found) -> None:
    found.append(get_current_run())


class Looking(threading.Thread):
    """A thread of the kind that overrides `run`."""

    def __init__(self, found: Found) -> None:
        super().__init__()
        self.found = found

    def run(self) -> None:
        _look(self.found)


def test_a_thread_belongs_to_the_run_it_was_started_in(dt: Dunetrace) -> None:
    found: Found = []
    with dt.run("a") as run:
        for thread in (threading.Thread(target=_look, args=(found,)), Looking(found)):
            thread.start()
            thread.join()
    outside = Looking(found)
    outside.start()
    outside.join()
    assert found == [run, run, None]


def test_a_pool_works_for_the_run_that_gave_the_task(dt: Dunetrace) -> None:
    with ThreadPoolExecutor(1) as pool:
        with dt.run("a") as first:
            assert pool.submit(get_current_run).result() is first
        assert pool.submit(get_current_run).result() is None
        with dt.run("b") as second:
            assert list(pool.map(lambda _: get_current_run(), range(2))) == [second, second]
        assert pool.submit(get_current_run).result() is None


def test_a_thread_that_outlives_its_run_is_outside_of_any(dt: Dunetrace) -> None:
    found: Found = []
    ended = threading.Event()

    def look_later() -> None:
        _look(found)
        ended.wait(10)
        _look(found)

    with dt.run("a") as run:
        thread = threading.Thread(target=look_later)
        thread.start()
    ended.set()
    thread.join()
    assert found == [run, None]


def test_threads_of_asyncio_and_trio(dt: Dunetrace) -> None:
    async def on_asyncio() -> None:
        with dt.run("a") as run:
            assert await asyncio.to_thread(get_current_run) is run
            assert await asyncio.get_running_loop().run_in_executor(None, get_current_run) is run
        assert await asyncio.to_thread(get_current_run) is None

    async def on_trio() -> None:
        with dt.run("a") as run:
            assert await trio.to_thread.run_sync(get_current_run) is run
        assert await trio.to_thread.run_sync(get_current_run) is None

    asyncio.run(on_asyncio())
    trio.run(on_trio)


def test_two_clients_change_nothing_twice(client: Make) -> None:
    client()
    start, submit = threading.Thread.start, ThreadPoolExecutor.submit
    client()
    assert (threading.Thread.start, ThreadPoolExecutor.submit) == (start, submit)
