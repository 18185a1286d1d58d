"""The stand-ins are true: the services' own clients get on with them, and read in their answers what was meant."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import anthropic
import httpx
import openai
import pytest

from tests.langfuse import PUBLIC_KEY, SECRET_KEY, Langfuse, observation
from tests.models import DIAGNOSIS, KEY, Model

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from langfuse.api import LangfuseAPI, NotFoundError, UnauthorizedError
    from langfuse.api.prompts.types import CreateChatPromptRequest, CreateTextPromptRequest


@pytest.fixture
def langfuse() -> Iterator[Langfuse]:
    with Langfuse() as running:
        running.traces["t"] = [
            observation("first", input="hello", prompt=("support", 3)),
            observation("second", at=1, kind="TOOL", output={"found": 0}),
        ]
        yield running


@contextmanager
def client(langfuse: Langfuse, secret: str = SECRET_KEY) -> Iterator[LangfuseAPI]:
    with httpx.Client(trust_env=False) as plain:
        yield LangfuseAPI(base_url=langfuse.url, username=PUBLIC_KEY, password=secret, httpx_client=plain)


def test_langfuses_client_reads_a_trace_page_by_page(langfuse: Langfuse) -> None:
    asked = {"trace_id": "t", "fields": "core,basic,io,model,prompt", "limit": 1}
    with client(langfuse) as api:
        page = api.observations.get_many(**asked)
        assert [(one.name, one.output) for one in page.data] == [("second", '{"found": 0}')]
        page = api.observations.get_many(**asked, cursor=page.meta.cursor)
        (first,) = page.data
        assert (first.prompt_name, first.prompt_version, first.input, page.meta.cursor) == ("support", 3, "hello", None)
        assert api.observations.get_many(trace_id="t").data[0].output is None  # a group nobody asked for
        assert api.observations.get_many(trace_id="unknown").data == []


def test_langfuses_client_reads_and_writes_prompts(langfuse: Langfuse) -> None:
    chat = [{"role": "system", "content": "Be kind."}, {"type": "placeholder", "name": "history"}]
    plain = CreateTextPromptRequest(name="support", prompt="Be kind.", labels=["production"], tags=["a"])
    nested = CreateChatPromptRequest.model_validate({"name": "a/b", "type": "chat", "prompt": chat, "labels": []})
    with client(langfuse) as api:
        api.prompts.create(request=plain)
        api.prompts.create(request=nested)
        text = api.prompts.get("support")
        assert (text.type, text.version, text.labels, text.prompt) == ("text", 1, ["production", "latest"], "Be kind.")
        with pytest.raises(NotFoundError):
            api.prompts.get("a%2Fb")
        assert len(api.prompts.get("a%2Fb", label="latest").prompt) == 2
        assert api.projects.get().data[0].id == "project-1"


def test_an_older_langfuse_has_not_the_newer_route(langfuse: Langfuse) -> None:
    langfuse.older = True  # the SDK's present versions do not know the route it has instead
    with client(langfuse) as api, pytest.raises(NotFoundError):
        api.observations.get_many(trace_id="t")


def test_a_wrong_key_is_refused(langfuse: Langfuse) -> None:
    with client(langfuse, "wrong") as api, pytest.raises(UnauthorizedError):
        api.prompts.get("support")
    with Model("anthropic") as model, pytest.raises(anthropic.AuthenticationError):
        ask_anthropic(model, "wrong")
    with Model("openai") as model, pytest.raises(openai.AuthenticationError):
        ask_openai(model, "wrong")


def ask_anthropic(model: Model, key: str = KEY) -> anthropic.types.Message:
    with anthropic.Anthropic(base_url=model.url, api_key=key, max_retries=0) as api:
        return api.messages.create(
            model="m",
            max_tokens=10,
            messages=[{"role": "user", "content": "?"}],
            output_config={"format": {"type": "json_schema", "schema": {"type": "object"}}},
        )


def ask_openai(model: Model, key: str = KEY) -> openai.types.chat.ChatCompletion:
    with openai.OpenAI(base_url=f"{model.url}/v1", api_key=key, max_retries=0) as api:
        return api.chat.completions.create(
            model="m",
            messages=[{"role": "user", "content": "?"}],
            response_format={"type": "json_schema", "json_schema": {"name": "n", "schema": {}}},
        )


def test_the_models_clients_are_answered() -> None:
    with Model("anthropic") as model:
        message = ask_anthropic(model)
        assert [block.text for block in message.content if block.type == "text"] == [DIAGNOSIS]
        assert message.stop_reason == "end_turn"
    with Model("openai") as model:
        completion = ask_openai(model)
        assert (completion.choices[0].message.content, completion.choices[0].finish_reason) == (DIAGNOSIS, "stop")
