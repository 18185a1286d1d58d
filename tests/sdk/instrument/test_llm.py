"""Calls of models through the real packages: what a run is told of whole answers."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any

import httpx
import httpx2
import openai
import pydantic
import pytest

from dunetrace.hashing import Hasher
from dunetrace.sdk import instrument
from tests.sdk.instrument.asking import (
    APIS,
    CHAT,
    COMPLETIONS,
    MESSAGES,
    MODEL,
    RESPONSES,
    USAGE,
    USUAL,
    Api,
    answer,
    raw,
    without_times,
)  # fmt: skip
from tests.sdk.instrument.conftest import Recording
from tests.sdk.instrument.provider import Provider, Reply

every_api = pytest.mark.parametrize("api", APIS, ids=str)
usual_api = pytest.mark.parametrize("api", USUAL, ids=str)


@every_api
def test_an_answer_is_counted_and_hashed(api: Api, provider: Provider, recording: Recording) -> None:
    with api.client(provider) as client, recording.run():
        api.whole(client)
    called, answered = recording.call()
    assert called["model"] == MODEL
    assert without_times(answered) == answer()


@every_api
def test_async_too(api: Api, provider: Provider, recording: Recording, run_async: Callable[..., Any]) -> None:
    async def agent() -> None:
        async with api.async_client(provider) as client, recording.run():
            await api.whole(client)

    run_async(agent)
    called, answered = recording.call()
    assert called["model"] == MODEL
    assert without_times(answered) == answer()


@pytest.mark.parametrize("finish", ["", "stop"])
@pytest.mark.parametrize("api", [api for api in APIS if api.asks_for_tools], ids=str)
def test_an_answer_that_only_asks_for_a_tool_is_not_empty(
    api: Api, finish: str, provider: Provider, recording: Recording
) -> None:
    """Also where the API says `stop`, as it does when it was told which tool to ask for."""
    provider.script(Reply(text="", tool="search", finish=finish if api is CHAT else ""))
    with api.client(provider) as client, recording.run() as run:
        api.whole(client)
        assert run.state.answers.empty.count == 0
    _, answered = recording.call()
    assert without_times(answered) == {"finish_reason": "tool_calls", "output_hash": "", **USAGE}


@pytest.mark.parametrize("api", [api for api in APIS if api.asks_for_tools], ids=str)
def test_words_beside_a_tool_call_are_output(api: Api, provider: Provider, recording: Recording) -> None:
    provider.script(Reply(text="Let me look.", tool="search"))
    with api.client(provider) as client, recording.run():
        api.whole(client)
    assert without_times(recording.call()[1]) == answer("Let me look.", "tool_calls")


@every_api
def test_a_truncated_answer_says_so(api: Api, provider: Provider, recording: Recording) -> None:
    provider.script(Reply(text="Good da", finish=api.truncated))
    with api.client(provider) as client, recording.run():
        api.whole(client)
    assert without_times(recording.call()[1]) == answer("Good da", "length")


@usual_api
def test_an_answer_with_nothing_in_it_is_empty(api: Api, provider: Provider, recording: Recording) -> None:
    provider.script(Reply(text=""))
    with api.client(provider) as client, recording.run() as run:
        api.whole(client)
        assert run.state.answers.empty.count == 1
    assert without_times(recording.call()[1]) == answer("")


@pytest.mark.parametrize(
    ("api", "document"),
    [
        (
            CHAT,
            {"choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "refusal": "No."}}]},
        ),
        (
            RESPONSES,
            {
                "status": "completed",
                "output": [{"type": "message", "content": [{"type": "refusal", "refusal": "No."}]}],
            },
        ),
    ],
    ids=str,
)
def test_a_refusal_is_what_was_said(
    api: Api, document: dict[str, Any], provider: Provider, recording: Recording
) -> None:
    kind = "chat.completion" if api is CHAT else "response"
    provider.script(Reply(document={"id": "x", "object": kind, "model": MODEL, **document}))
    with api.client(provider) as client, recording.run():
        api.whole(client)
    assert without_times(recording.call()[1]) == answer("No.", usage=False)


@pytest.mark.parametrize(
    "document",
    [
        {"status": "completed", "output": [{"type": "image_generation_call", "id": "i", "result": "aGk="}]},
        {"status": "in_progress", "output": []},
    ],
    ids=["an image", "in the background"],
)
def test_what_is_no_text_is_not_empty(document: dict[str, Any], provider: Provider, recording: Recording) -> None:
    provider.script(Reply(document={"id": "x", "object": "response", "model": MODEL, **document}))
    with RESPONSES.client(provider) as client, recording.run() as run:
        RESPONSES.whole(client)
        assert run.state.answers.empty.count == 0
    assert "output_length" not in recording.call()[1]


def test_a_response_that_failed_says_why(provider: Provider, recording: Recording) -> None:
    failed = {"status": "failed", "output": [], "error": {"code": "server_error", "message": "Out of order."}}
    provider.script(Reply(document={"id": "x", "object": "response", "model": MODEL, **failed}))
    with RESPONSES.client(provider) as client, recording.run():
        RESPONSES.whole(client)
    _, answered = recording.call()
    assert answered["error_hash"] == Hasher().text("Out of order.")
    assert "finish_reason" not in answered


# ---- errors


@every_api
@pytest.mark.parametrize("status", [400, 429, 500])
def test_an_error_is_an_answer_of_which_nothing_is_known(
    api: Api, status: int, provider: Provider, recording: Recording
) -> None:
    provider.script(Reply(status=status))
    with api.client(provider) as client, recording.run() as run:
        with pytest.raises(api.library.APIStatusError) as raised:
            api.whole(client)
        state = run.state
        assert state.hanging is None
        assert state.answers.empty.count == 0
        assert not state.answered
    _, answered = recording.call()
    told = Hasher().text(str(raised.value))
    assert without_times(answered) == {"output_hash": "", "error_hash": told, "error_shape_hash": told}


@usual_api
def test_without_a_connection(api: Api, recording: Recording) -> None:
    class Nowhere:
        url = "http://127.0.0.1:9"

    with api.client(Nowhere()) as client, recording.run():  # type: ignore[arg-type]
        with pytest.raises(api.library.APIConnectionError):
            api.whole(client)
    _, answered = recording.call()
    assert answered["error_hash"]
    assert "finish_reason" not in answered


@usual_api
def test_retries_are_part_of_one_call(api: Api, provider: Provider, recording: Recording) -> None:
    provider.script(Reply(status=429), Reply(status=500))
    with api.client(provider) as client, recording.run():
        api.whole(client.with_options(max_retries=3))
    assert len(provider.asked) == 3
    assert without_times(recording.call()[1]) == answer()


@usual_api
def test_a_cancelled_call_is_answered(
    api: Api, provider: Provider, recording: Recording, run_async: Callable[..., Any]
) -> None:
    provider.script(Reply(held_after=0))

    async def agent() -> None:
        import anyio

        async with api.async_client(provider) as client, recording.run():
            with anyio.move_on_after(0.1):
                async for _ in await api.streamed(client):
                    raise AssertionError("nothing was sent")

    run_async(agent)
    _, answered = recording.call()
    assert answered["error_hash"]
    assert "finish_reason" not in answered


# ---- raw responses


@usual_api
def test_a_raw_response_is_read_without_being_changed(api: Api, provider: Provider, recording: Recording) -> None:
    with api.client(provider) as client, recording.run():
        response = raw(api, client)
        assert "parse" not in vars(response)
        assert response.parse() is response.parse()
    assert without_times(recording.call()[1]) == answer()


@usual_api
@pytest.mark.parametrize(
    "read", [lambda r: r.parse(), lambda r: r.read(), lambda r: r.json()], ids=["parse", "read", "json"]
)
def test_a_streamed_response_is_followed(
    api: Api, read: Callable[[Any], Any], provider: Provider, recording: Recording
) -> None:
    with api.client(provider) as client, recording.run():
        with raw(api, client, whole="with_streaming_response") as response:
            read(response)
        assert pickle.loads(pickle.dumps(response.http_response)).content
    assert without_times(recording.call()[1]) == answer()


@usual_api
def test_an_async_streamed_response_is_followed(
    api: Api, provider: Provider, recording: Recording, run_async: Callable[..., Any]
) -> None:
    async def agent() -> None:
        async with api.async_client(provider) as client, recording.run():
            async with raw(api, client, whole="with_streaming_response") as response:
                await response.parse()

    run_async(agent)
    assert without_times(recording.call()[1]) == answer()


@usual_api
def test_a_streamed_response_that_nobody_reads_is_answered(api: Api, provider: Provider, recording: Recording) -> None:
    with api.client(provider) as client, recording.run():
        with raw(api, client, whole="with_streaming_response") as response:
            assert response.status_code == 200
        del response
    assert without_times(recording.call()[1]) == {"output_hash": ""}


# ---- parsing


class Mood(pydantic.BaseModel):
    mood: str


@pytest.mark.parametrize("api", [CHAT, RESPONSES], ids=str)
def test_a_parsed_answer(api: Api, provider: Provider, recording: Recording) -> None:
    text = '{"mood": "good"}'
    provider.script(Reply(text=text))
    with api.client(provider) as client, recording.run():
        if api is CHAT:
            said = client.chat.completions.parse(model=MODEL, messages=[], response_format=Mood)
            assert said.choices[0].message.parsed == Mood(mood="good")
        else:
            assert client.responses.parse(model=MODEL, input="x", text_format=Mood).output_parsed == Mood(mood="good")
    assert without_times(recording.call()[1]) == answer(text)


def test_an_answer_too_short_to_be_parsed_is_an_answer(provider: Provider, recording: Recording) -> None:
    provider.script(Reply(text='{"mood":', finish="length"))
    with CHAT.client(provider) as client, recording.run():
        with pytest.raises(openai.LengthFinishReasonError) as raised:
            client.chat.completions.parse(model=MODEL, messages=[], response_format=Mood)
    _, answered = recording.call()
    assert answered["error_hash"] == Hasher().text(str(raised.value))
    expected = answer('{"mood":', "length")
    assert {name: answered[name] for name in expected} == expected


# ---- what is not recorded, and what is not changed


def _http(api: Api) -> Any:
    """The HTTP library that its clients take from outside: OpenAI's take both."""
    return httpx if api.library is openai else httpx2


@usual_api
def test_the_request_under_a_call_is_no_tool(api: Api, provider: Provider, recording: Recording) -> None:
    """Over `httpx` as over what the library brings along, with redirects and retries."""
    provider.script(Reply(status=429))
    with _http(api).Client() as http, api.client(provider, http_client=http) as client, recording.run():
        api.whole(client.with_options(max_retries=1))
        for _ in api.streamed(client):
            pass
    assert recording.types() == ["llm.called", "llm.responded"] * 2


@usual_api
def test_a_client_within_a_client_counts_once(api: Api, provider: Provider, recording: Recording) -> None:
    library = _http(api)
    with api.client(provider) as inner:

        class Gateway(library.BaseTransport):  # type: ignore[misc, name-defined]
            def handle_request(self, request: Any) -> Any:
                return library.Response(200, json=api.whole(inner).model_dump(mode="json"))

        http = library.Client(transport=Gateway())
        with http, api.client(provider, http_client=http) as client, recording.run():
            assert api.whole(client).model == MODEL
    assert without_times(recording.call()[1]) == answer()


def test_a_run_within_a_call_is_recorded(provider: Provider, recording: Recording) -> None:
    """As where the service that is asked runs in the same process and has agents of its own."""
    with CHAT.client(provider) as inner:

        class Service(httpx.BaseTransport):
            def handle_request(self, request: httpx.Request) -> httpx.Response:
                with recording.run("inner"):
                    return httpx.Response(200, json=CHAT.whole(inner).model_dump(mode="json"))

        with httpx.Client(transport=Service()) as http, CHAT.client(provider, http_client=http) as client:
            with recording.run("outer"):
                CHAT.whole(client)
    agents = [e["agent_id"] for e in recording.events() if e["event_type"] == "llm.responded"]
    assert sorted(agents) == ["inner", "outer"]


def test_other_requests_are_neither_models_calls_nor_tools(provider: Provider, recording: Recording) -> None:
    with httpx.Client() as http, CHAT.client(provider, http_client=http) as client, recording.run():
        client.get("/models", cast_to=httpx.Response)
        client.post("/embeddings", cast_to=httpx.Response, body={"model": MODEL})
    assert recording.types() == []


@every_api
def test_outside_of_a_run_nothing_is_recorded(api: Api, provider: Provider, recording: Recording) -> None:
    with api.client(provider) as client:
        assert api.whole(client)
    assert recording.events() == []


@every_api
def test_results_are_what_they_are_without(api: Api, provider: Provider, recording: Recording) -> None:
    with api.client(provider) as client, recording.run():
        watched, stream = api.whole(client), api.streamed(client)
        watched_pieces = list(stream)
        instrument.remove()
        plain, plain_stream = api.whole(client), api.streamed(client)
        assert type(watched) is type(plain)
        assert watched == plain
        assert pickle.loads(pickle.dumps(watched)) == plain
        assert type(stream) is type(plain_stream)
        assert watched_pieces == list(plain_stream)


@every_api
def test_wrong_arguments_are_the_librarys_to_refuse(api: Api, provider: Provider, recording: Recording) -> None:
    with api.client(provider) as client, recording.run():
        for call in (client.request, lambda: client.request(1, 2, 3, 4), lambda: client.request(x=1)):
            with pytest.raises(TypeError) as with_it:
                call()
            instrument.remove()
            with pytest.raises(TypeError) as without:
                call()
            instrument.install(None)
            assert str(with_it.value) == str(without.value)
    assert recording.types() == []


def test_legacy_completions_have_no_tools() -> None:
    assert [api for api in APIS if not api.asks_for_tools] == [COMPLETIONS]


def test_cached_tokens_are_part_of_the_prompt(provider: Provider, recording: Recording) -> None:
    """Anthropic counts them beside it."""
    with MESSAGES.client(provider) as client, recording.run():
        message = MESSAGES.whole(client)
    _, answered = recording.call()
    usage = message.usage
    assert answered["prompt_tokens"] == usage.input_tokens + usage.cache_read_input_tokens
    assert answered["cached_prompt_tokens"] == usage.cache_read_input_tokens
