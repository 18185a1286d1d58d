"""The ways to ask a model that are instrumented, each whole and streamed; the same for sync and async clients."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import anthropic
import openai

from dunetrace.hashing import Hasher
from tests.sdk.instrument.provider import CACHED_TOKENS, COMPLETION_TOKENS, PROMPT_TOKENS, Provider, Reply

MODEL = "model-1"
_USER = [{"role": "user", "content": "How are you?"}]
_MESSAGES = {"model": MODEL, "messages": _USER, "max_tokens": 100}
USAGE = {
    "prompt_tokens": PROMPT_TOKENS,
    "cached_prompt_tokens": CACHED_TOKENS,
    "completion_tokens": COMPLETION_TOKENS,
}


class Api(NamedTuple):
    """`streamed` tells its usage without being asked to where `counts` is true; `truncated` is its word for it."""

    name: str
    whole: Callable[[Any], Any]
    streamed: Callable[[Any], Any]
    truncated: str
    counts: bool = True
    asks_for_tools: bool = True

    def __str__(self) -> str:
        return self.name

    @property
    def library(self) -> Any:
        return anthropic if self.name.startswith("anthropic") else openai

    def client(self, provider: Provider, **more: Any) -> Any:
        kind = anthropic.Anthropic if self.library is anthropic else openai.OpenAI
        return kind(**_where(self.library, provider), **more)

    def async_client(self, provider: Provider, **more: Any) -> Any:
        kind = anthropic.AsyncAnthropic if self.library is anthropic else openai.AsyncOpenAI
        return kind(**_where(self.library, provider), **more)


def _where(library: Any, provider: Provider) -> dict[str, Any]:
    base = provider.url if library is anthropic else f"{provider.url}/v1"
    return {"base_url": base, "api_key": "k", "max_retries": 0}


CHAT = Api(
    "openai chat completions",
    lambda client: client.chat.completions.create(model=MODEL, messages=_USER),
    lambda client: client.chat.completions.create(model=MODEL, messages=_USER, stream=True),
    "length",
    counts=False,
)
COMPLETIONS = Api(
    "openai completions",
    lambda client: client.completions.create(model=MODEL, prompt="How are you?"),
    lambda client: client.completions.create(model=MODEL, prompt="How are you?", stream=True),
    "length",
    counts=False,
    asks_for_tools=False,
)
RESPONSES = Api(
    "openai responses",
    lambda client: client.responses.create(model=MODEL, input="How are you?"),
    lambda client: client.responses.create(model=MODEL, input="How are you?", stream=True),
    "max_output_tokens",
)
MESSAGES = Api(
    "anthropic messages",
    lambda client: client.messages.create(**_MESSAGES),
    lambda client: client.messages.create(**_MESSAGES, stream=True),
    "max_tokens",
)
BETA_MESSAGES = Api(
    "anthropic beta messages",
    lambda client: client.beta.messages.create(**_MESSAGES),
    lambda client: client.beta.messages.create(**_MESSAGES, stream=True),
    "max_tokens",
)
APIS = (CHAT, COMPLETIONS, RESPONSES, MESSAGES, BETA_MESSAGES)
USUAL = (CHAT, RESPONSES, MESSAGES)


def helper(api: Api, client: Any) -> Any:
    """The library's own helper for streams of this API, a context manager."""
    if api is CHAT:
        return client.chat.completions.stream(model=MODEL, messages=_USER)
    if api is RESPONSES:
        return client.responses.stream(model=MODEL, input="How are you?")
    messages = client.messages if api is MESSAGES else client.beta.messages
    return messages.stream(**_MESSAGES)


def raw(api: Api, client: Any, *, stream: bool = False, whole: str = "with_raw_response") -> Any:
    """The same request for the raw response, or through `with_streaming_response`."""
    more: dict[str, Any] = {"stream": True} if stream else {}
    if api is CHAT:
        return getattr(client.chat.completions, whole).create(model=MODEL, messages=_USER, **more)
    if api is RESPONSES:
        return getattr(client.responses, whole).create(model=MODEL, input="How are you?", **more)
    return getattr(client.messages, whole).create(**_MESSAGES, **more)


def answer(text: str = Reply().text, finish: str = "stop", *, usage: bool = True) -> dict[str, Any]:
    """The payload of an answer, latency and call apart."""
    said = {"finish_reason": finish, "output_hash": Hasher().text(text), "output_length": len(text)}
    return said | (USAGE if usage else {})


def without_times(payload: dict[str, Any]) -> dict[str, Any]:
    """A payload without `latency_ms` and `call_id`, both of which it must have."""
    assert payload["latency_ms"] >= 0
    assert payload["call_id"] >= 1
    return {name: value for name, value in payload.items() if name not in ("latency_ms", "call_id")}
