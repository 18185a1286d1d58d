"""The two model APIs: a question in each one's own form, and what came back of it. Used by `analyst.py`.

Both are asked for JSON of a given schema. Anthropic's is `output_config`: its newer models refuse a forced tool.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgspec

from dunetrace.fixes.question import SCHEMA, Question
from dunetrace.fixes.services import ServiceError, checked, read
from dunetrace.outgoing.client import OutgoingError, Request

if TYPE_CHECKING:
    from dunetrace.fixes.services import ModelAccess
    from dunetrace.outgoing.client import Client

MODEL_TIMEOUT_S: Final = 75.0  # of one try; thinking models take their time
MODEL_ANSWER_BYTES: Final = 4 << 20
MAX_OUTPUT_TOKENS: Final = 16_000  # with what a model thinks before it answers
ANTHROPIC_VERSION: Final = "2026-10-21"


class Answer(NamedTuple):
    """What a model wrote, "" when it refused or wrote nothing, and what that took in tokens."""

    text: str
    input_tokens: int
    output_tokens: int
    is_cut: bool = False  # it reached the limit of its length


class _Form(NamedTuple):
    """A question as one of the APIs takes it, and how its answer is read."""

    path: str
    headers: dict[str, str]
    document: dict[str, Any]
    read: Callable[[bytes], Answer]


async def ask(client: Client, access: ModelAccess, question: Question) -> Answer:
    """One question to the model that is set up. Raises ServiceError."""
    form = _FORMS[access.provider](access, question)
    body = msgspec.json.encode(form.document)
    request = Request("POST", access.url + form.path, form.headers, MODEL_TIMEOUT_S, MODEL_ANSWER_BYTES, body)
    try:
        reply = await client.ask(request)
    except OutgoingError as error:
        raise ServiceError(f"{access.provider} {error}") from None
    checked(access.provider, reply, f"{access.provider.upper()}_API_KEY", "DUNETRACE_EXPLAIN_MODEL")
    return form.read(reply.body)


class _Block(msgspec.Struct):
    type: str
    text: str = ""


class _AnthropicUsage(msgspec.Struct):
    input_tokens: int = 0
    output_tokens: int = 0
    cache_creation_input_tokens: int | None = None
    cache_read_input_tokens: int | None = None


class _Message(msgspec.Struct):
    content: list[_Block]
    usage: _AnthropicUsage
    stop_reason: str | None = None


def _anthropic(access: ModelAccess, question: Question) -> _Form:
    headers = {"x-api-key": access.key, "anthropic-version": ANTHROPIC_VERSION}
    document = {
        "model": access.model,
        "max_tokens": MAX_OUTPUT_TOKENS,
        "system": question.system,
        "messages": [{"role": "user", "content": question.user}],
        "output_config": {"format": {"type": "json_schema", "schema": SCHEMA}},
    }
    return _Form("/v1/messages", headers, document, _of_anthropic)


def _of_anthropic(body: bytes) -> Answer:
    message = read("Anthropic", body, _Message)
    usage = message.usage
    sent = usage.input_tokens + (usage.cache_creation_input_tokens or 0) + (usage.cache_read_input_tokens or 0)
    text = "".join(block.text for block in message.content if block.type == "text")
    return Answer(text, sent, usage.output_tokens, message.stop_reason == "max_tokens")


class _Said(msgspec.Struct):
    content: str | None = None


class _Choice(msgspec.Struct):
    message: _Said
    finish_reason: str | None = None


class _OpenAIUsage(msgspec.Struct):
    prompt_tokens: int = 0
    completion_tokens: int = 0


class _Completion(msgspec.Struct):
    choices: list[_Choice]
    usage: _OpenAIUsage | None = None


def _openai(access: ModelAccess, question: Question) -> _Form:
    headers = {"Authorization": f"Bearer {access.key}"}
    form = {"name": "diagnosis", "strict": True, "schema": SCHEMA}
    document = {
        "model": access.model,
        "max_completion_tokens": MAX_OUTPUT_TOKENS,
        "messages": [{"role": "system", "content": question.system}, {"role": "user", "content": question.user}],
        "response_format": {"type": "json_schema", "json_schema": form},
    }
    return _Form("/chat/completions", headers, document, _of_openai)


def _of_openai(body: bytes) -> Answer:
    completion = read("OpenAI", body, _Completion)
    usage = completion.usage or _OpenAIUsage()
    text, end = "", None
    if completion.choices:
        text, end = completion.choices[0].message.content or "", completion.choices[0].finish_reason
    return Answer(text, usage.prompt_tokens, usage.completion_tokens, end == "length")


_FORMS = {"Anthropic": _anthropic, "OpenAI": _openai}
