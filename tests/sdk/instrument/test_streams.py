"""Streamed answers: a call is answered once, when its stream has ended, however it ends."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable
from typing import Any

import anyio
import pytest

from dunetrace.hashing import Hasher
from tests.sdk.instrument.asking import (
    APIS,
    BETA_MESSAGES,
    CHAT,
    MESSAGES,
    MODEL,
    RESPONSES,
    USAGE,
    USUAL,
    Api,
    answer,
    helper,
    raw,
    without_times,
)  # fmt: skip
from tests.sdk.instrument.conftest import Recording
from tests.sdk.instrument.provider import PROMPT_TOKENS, Provider, Reply

# The libraries leave their own generators to the garbage collector, instrumented or not, which trio remarks upon.
pytestmark = pytest.mark.filterwarnings("ignore:Async generator '(openai|anthropic|httpx2|httpcore2):ResourceWarning")

every_api = pytest.mark.parametrize("api", APIS, ids=str)
usual_api = pytest.mark.parametrize("api", USUAL, ids=str)
with_helper = pytest.mark.parametrize("api", (CHAT, RESPONSES, MESSAGES, BETA_MESSAGES), ids=str)


@every_api
def test_a_stream_is_answered_at_its_end(api: Api, provider: Provider, recording: Recording) -> None:
    with api.client(provider) as client, recording.run():
        stream = api.streamed(client)
        assert type(stream) is api.library.Stream or isinstance(stream, api.library.Stream)
        first = next(stream)
        assert recording.types() == ["llm.called"]
        assert [first, *stream][1:]
    assert without_times(recording.call()[1]) == answer(usage=api.counts)


@every_api
def test_async_too(api: Api, provider: Provider, recording: Recording, run_async: Callable[..., Any]) -> None:
    async def agent() -> None:
        async with api.async_client(provider) as client, recording.run():
            stream = await api.streamed(client)
            assert isinstance(stream, api.library.AsyncStream)
            await anext(stream)
            assert [piece async for piece in stream]

    run_async(agent)
    assert without_times(recording.call()[1]) == answer(usage=api.counts)


def test_usage_that_was_asked_for_is_counted(provider: Provider, recording: Recording) -> None:
    with CHAT.client(provider) as client, recording.run():
        options = {"include_usage": True}
        for _ in client.chat.completions.create(model=MODEL, messages=[], stream=True, stream_options=options):
            pass
    assert without_times(recording.call()[1]) == answer()


def test_usage_is_not_asked_for(provider: Provider, recording: Recording) -> None:
    with CHAT.client(provider) as client, recording.run():
        list(CHAT.streamed(client))
    assert b"include_usage" not in provider.asked[0].body


@with_helper
def test_helpers(api: Api, provider: Provider, recording: Recording) -> None:
    with api.client(provider) as client, recording.run():
        with helper(api, client) as stream:
            assert list(stream)
    assert without_times(recording.call()[1]) == answer(usage=api.counts)


@with_helper
def test_async_helpers(api: Api, provider: Provider, recording: Recording, run_async: Callable[..., Any]) -> None:
    async def agent() -> None:
        async with api.async_client(provider) as client, recording.run():
            async with helper(api, client) as stream:
                assert [event async for event in stream]

    run_async(agent)
    assert without_times(recording.call()[1]) == answer(usage=api.counts)


@pytest.mark.parametrize("api", [api for api in APIS if api.asks_for_tools], ids=str)
def test_a_stream_that_only_asks_for_a_tool(api: Api, provider: Provider, recording: Recording) -> None:
    provider.script(Reply(text="", tool="search"))
    with api.client(provider) as client, recording.run():
        list(api.streamed(client))
    expected = {"finish_reason": "tool_calls", "output_hash": "", **(USAGE if api.counts else {})}
    assert without_times(recording.call()[1]) == expected


@every_api
def test_a_truncated_stream(api: Api, provider: Provider, recording: Recording) -> None:
    provider.script(Reply(text="Good da", finish=api.truncated))
    with api.client(provider) as client, recording.run():
        list(api.streamed(client))
    assert without_times(recording.call()[1]) == answer("Good da", "length", usage=api.counts)


# ---- streams that break


@usual_api
@pytest.mark.parametrize("how", ["cut_after", "error_after"])
def test_a_stream_that_breaks(api: Api, how: str, provider: Provider, recording: Recording) -> None:
    provider.script(Reply(**{how: 3}))  # type: ignore[arg-type]
    with api.client(provider) as client, recording.run() as run:
        with pytest.raises(Exception) as raised:
            list(api.streamed(client))
        assert run.state.answers.empty.count == 0
        assert run.state.hanging is None
    _, answered = recording.call()
    assert answered["error_hash"] == Hasher().text(str(raised.value))
    assert "finish_reason" not in answered
    assert "completion_tokens" not in answered


@usual_api
def test_an_async_stream_that_breaks(
    api: Api, provider: Provider, recording: Recording, run_async: Callable[..., Any]
) -> None:
    provider.script(Reply(cut_after=3))

    async def agent() -> None:
        async with api.async_client(provider) as client, recording.run():
            with pytest.raises(Exception):  # noqa: B017
                async for _ in await api.streamed(client):
                    pass

    run_async(agent)
    _, answered = recording.call()
    assert answered["error_hash"]
    assert "finish_reason" not in answered


# ---- streams that are left


LEFT = {
    "closed": lambda stream: stream.close(),
    "its response closed": lambda stream: stream.response.close(),
    "with": lambda stream: stream.__exit__(None, None, None),
}


@usual_api
@pytest.mark.parametrize("leave", LEFT.values(), ids=LEFT)
def test_a_stream_that_is_left(api: Api, leave: Callable[[Any], Any], provider: Provider, recording: Recording) -> None:
    provider.script(Reply(held_after=6))
    with api.client(provider) as client, recording.run():
        stream = api.streamed(client)
        for _ in range(3):
            next(stream)
        assert recording.types() == ["llm.called"]
        leave(stream)
        assert recording.types() == ["llm.called", "llm.responded"]
        assert stream.response.is_closed
        assert "close" not in vars(stream.response)
    _, answered = recording.call()
    assert "finish_reason" not in answered
    assert "error_hash" not in answered
    if api is MESSAGES:
        assert answered["prompt_tokens"] == PROMPT_TOKENS


@usual_api
def test_a_stream_that_is_dropped(api: Api, provider: Provider, recording: Recording) -> None:
    provider.script(Reply(held_after=6))
    with api.client(provider) as client, recording.run():
        stream = api.streamed(client)
        next(stream)
        response = stream.response
        del stream
        gc.collect()
        assert recording.types() == ["llm.called", "llm.responded"]
        response.close()
    assert "finish_reason" not in recording.call()[1]


@usual_api
def test_a_stream_that_nobody_reads(api: Api, provider: Provider, recording: Recording) -> None:
    with api.client(provider) as client, recording.run():
        api.streamed(client).close()
    assert without_times(recording.call()[1]) == {"output_hash": ""}


@usual_api
def test_a_cancelled_stream(api: Api, provider: Provider, recording: Recording, run_async: Callable[..., Any]) -> None:
    provider.script(Reply(held_after=3))

    async def agent() -> None:
        async with api.async_client(provider) as client, recording.run():
            with anyio.move_on_after(0.2) as scope:
                async for _ in await api.streamed(client):
                    pass
            assert scope.cancelled_caught

    run_async(agent)
    _, answered = recording.call()
    assert answered["error_hash"]
    assert "finish_reason" not in answered


@usual_api
def test_an_async_stream_that_is_left(
    api: Api, provider: Provider, recording: Recording, run_async: Callable[..., Any]
) -> None:
    provider.script(Reply(held_after=6))

    async def agent() -> None:
        async with api.async_client(provider) as client, recording.run():
            async with await api.streamed(client) as stream:
                await anext(stream)
            assert recording.types() == ["llm.called", "llm.responded"]

    run_async(agent)
    assert "error_hash" not in recording.call()[1]


# ---- raw streams


@usual_api
def test_a_raw_stream(api: Api, provider: Provider, recording: Recording) -> None:
    with api.client(provider) as client, recording.run():
        response = raw(api, client, stream=True)
        stream = response.parse()
        assert response.parse() is stream
        list(stream)
    assert without_times(recording.call()[1]) == answer(usage=api.counts)


@usual_api
def test_a_raw_stream_read_line_by_line(api: Api, provider: Provider, recording: Recording) -> None:
    with api.client(provider) as client, recording.run():
        with raw(api, client, stream=True, whole="with_streaming_response") as response:
            assert list(response.iter_lines())
    assert without_times(recording.call()[1]) == {"output_hash": ""}


# ---- who reads


@usual_api
def test_read_in_another_thread(api: Api, provider: Provider, recording: Recording) -> None:
    """The run that made the call gets the answer, wherever the stream is read."""
    with api.client(provider) as client, recording.run():
        stream = api.streamed(client)
        reader = threading.Thread(target=list, args=(stream,))
        reader.start()
        reader.join()
    assert without_times(recording.call()[1]) == answer(usage=api.counts)
