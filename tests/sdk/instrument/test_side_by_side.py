"""Many runs at once, each with calls of its own: none sees another's."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from itertools import zip_longest
from typing import Any

import anyio
import httpx
import pytest
import requests

from tests.sdk.instrument.asking import CHAT, MESSAGES, USUAL, Api, answer, without_times
from tests.sdk.instrument.conftest import Recording
from tests.sdk.instrument.provider import Provider

# as in `test_streams`
pytestmark = pytest.mark.filterwarnings("ignore:Async generator '(openai|anthropic|httpx2|httpcore2):ResourceWarning")

EACH = ["run.started", "llm.called", "llm.responded", "tool.called", "tool.responded", "run.completed"]


def by_run(recording: Recording) -> dict[str, list[str]]:
    runs: dict[str, list[str]] = {}
    for event in recording.events():
        runs.setdefault(event["run_id"], []).append(event["event_type"])
    return runs


def test_in_threads(provider: Provider, recording: Recording) -> None:
    ids: list[str] = []

    def agent(client: Any) -> None:
        for _ in range(5):
            with recording.run() as run:
                ids.append(run.run_id)
                CHAT.whole(client)
                requests.get(f"{provider.url}/{run.run_id}")

    with CHAT.client(provider) as client:
        threads = [threading.Thread(target=agent, args=(client,)) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    runs = by_run(recording)
    assert sorted(runs) == sorted(ids)
    assert Counter(map(tuple, runs.values())) == {tuple(EACH): 40}


@pytest.mark.parametrize("api", USUAL, ids=str)
def test_streams_in_tasks(api: Api, provider: Provider, recording: Recording, run_async: Callable[..., Any]) -> None:
    """Their pieces come in turns, and other requests between them."""

    async def agent() -> None:
        async with api.async_client(provider) as client, httpx.AsyncClient() as http:

            async def one(number: int) -> None:
                with recording.run():
                    async for _ in await api.streamed(client):
                        await anyio.sleep(0)
                    await http.get(f"{provider.url}/{number}")

            async with anyio.create_task_group() as group:
                for number in range(15):
                    group.start_soon(one, number)

    run_async(agent)
    assert Counter(map(tuple, by_run(recording).values())) == {tuple(EACH): 15}
    assert all(without_times(answered) == answer(usage=api.counts) for _, answered in recording.calls())


def test_two_streams_of_one_run_in_turns(provider: Provider, recording: Recording) -> None:
    with CHAT.client(provider) as one, MESSAGES.client(provider) as other, recording.run():
        turns = 0
        for _ in zip_longest(CHAT.streamed(one), MESSAGES.streamed(other)):
            requests.get(f"{provider.url}/between")
            turns += 1
    assert recording.types().count("tool.called") == turns
    assert [without_times(answered) for _, answered in recording.calls()] == [answer(usage=False), answer()]
