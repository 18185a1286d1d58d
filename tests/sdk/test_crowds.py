"""Many agents in one process: their runs never mix, keep their order, and arrive once."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Callable

import pytest
import trio

from dunetrace import Dunetrace, get_current_run
from tests.sdk.programs.work import CALLS, EVENTS, some_runs, whole_runs
from tests.sdk.sink import Sink

Make = Callable[..., Dunetrace]


def full(*sizes: int) -> object:
    return pytest.param(*sizes, id="full", marks=pytest.mark.prove)


@pytest.mark.parametrize(("threads", "runs"), [(20, 20), full(50, 200)])
def test_threads(client: Make, sink: Sink, threads: int, runs: int) -> None:
    dt = client(buffer_size=100_000)
    crowd = [threading.Thread(target=some_runs, args=(dt, runs, f"agent-{n}")) for n in range(threads)]
    switching, _ = sys.getswitchinterval(), sys.setswitchinterval(1e-5)
    try:
        for thread in crowd:
            thread.start()
        for thread in crowd:
            thread.join()
    finally:
        sys.setswitchinterval(switching)
    assert dt.flush(60)
    assert len(whole_runs(sink.accepted)) == threads * runs
    assert len(sink.accepted) == threads * runs * EVENTS


async def one_run(dt: Dunetrace, pause: Callable[[float], object]) -> None:
    """As `work.one_run`, giving way to the other tasks at each step, with a look at which run is the current one."""
    async with dt.run("agent") as run:
        for _ in range(CALLS):
            await pause(0)  # type: ignore[misc]
            assert get_current_run() is run
            run.tool_called(run.run_id)
        await pause(0)  # type: ignore[misc]


def test_a_thousand_asyncio_tasks(client: Make, sink: Sink) -> None:
    dt = client(buffer_size=100_000)

    async def main() -> None:
        async with asyncio.TaskGroup() as group:
            for _ in range(1_000):
                group.create_task(one_run(dt, asyncio.sleep))

    thread = threading.Thread(target=lambda: asyncio.run(main()))
    thread.start()
    thread.join()
    assert dt.flush(30)
    assert len(whole_runs(sink.accepted)) == 1_000


async def test_a_thousand_trio_tasks(client: Make, sink: Sink) -> None:
    dt = client(buffer_size=100_000)
    async with trio.open_nursery() as nursery:
        for _ in range(1_000):
            nursery.start_soon(one_run, dt, trio.sleep)
    assert await trio.to_thread.run_sync(dt.flush, 30)
    assert len(whole_runs(sink.accepted)) == 1_000
