"""Both model APIs as real HTTP servers: what they are asked is checked by their own SDKs' types, and so is the answer.

with Model("anthropic") as model:
    model.says = ['{"root_cause": "...", "fix_content": "..."}']  # the last one again and again
"""

from __future__ import annotations

import json
from typing import Literal, get_type_hints

from anthropic.types import Message, TextBlock, Usage
from anthropic.types.message_create_params import MessageCreateParamsNonStreaming
from openai.types import CompletionUsage
from openai.types.chat import ChatCompletion, ChatCompletionMessage
from openai.types.chat.chat_completion import Choice
from openai.types.chat.completion_create_params import CompletionCreateParamsNonStreaming
from pydantic import TypeAdapter

from tests.receiver import Received
from tests.service import Reply, Service

KEY = "sk-model-test-secret"
ROOT_CAUSE, FIX = (
    "The search never found anything new, and was asked again.",
    "Search at most twice for the same thing.",
)
DIAGNOSIS = json.dumps({"root_cause": ROOT_CAUSE, "fix_content": FIX})
_ANTHROPIC = TypeAdapter(MessageCreateParamsNonStreaming)
_OPENAI = TypeAdapter(CompletionCreateParamsNonStreaming)


class Model(Service):
    """One of the two. `end` is why it stopped, in the words of its own API."""

    def __init__(self, provider: Literal["anthropic", "openai"] = "anthropic", *, key: str = KEY) -> None:
        super().__init__()
        self.provider, self.key = provider, key
        self.says: list[str] = [DIAGNOSIS]
        self.end = "end_turn" if provider == "anthropic" else "stop"

    @property
    def environment(self) -> dict[str, str]:
        """The settings that name it."""
        name = self.provider.upper()
        base = self.url if self.provider == "anthropic" else f"{self.url}/v1"
        return {f"{name}_API_KEY": self.key, f"{name}_BASE_URL": base, "DUNETRACE_ALLOW_PRIVATE_DESTINATIONS": "true"}

    @property
    def questions(self) -> list[tuple[str, str]]:
        """System text and user's text of each question."""
        found = []
        for request in self.requests:
            document = request.document
            texts = [message["content"] for message in document["messages"]]
            found.append((document["system"], texts[0]) if "system" in document else (texts[0], texts[1]))
        return found

    def answer(self, method: str, path: str, query: dict[str, str], request: Received) -> Reply:
        says = self.says.pop(0) if len(self.says) > 1 else self.says[0]
        if self.provider == "anthropic":
            return self._anthropic(path, request, says)
        return self._openai(path, request, says)

    def _anthropic(self, path: str, request: Received, says: str) -> Reply:
        if path != "/v1/messages":
            return 404, {"type": "error", "error": {"type": "not_found_error", "message": "Not found"}}
        if self.key not in (
            request.headers.get("x-api-key"),
            request.headers.get("authorization", "")[len("Bearer ") :],
        ):
            return 401, {"type": "error", "error": {"type": "authentication_error", "message": "invalid API key"}}
        if request.headers.get("anthropic-version") != "2026-10-21":
            return 400, {"type": "error", "error": {"type": "invalid_request_error", "message": "anthropic-version"}}
        document = request.document
        _ANTHROPIC.validate_python(document)
        assert set(document) <= set(get_type_hints(MessageCreateParamsNonStreaming))
        assert set(document) <= set(get_type_hints(MessageCreateParamsNonStreaming))
        usage = Usage(input_tokens=900, output_tokens=80, cache_read_input_tokens=100)
        message = Message(
            id="msg_1", type="message", role="assistant", model=document["model"], usage=usage,
            content=[TextBlock(type="text", text=says)] if says else [], stop_reason=self.end,
        )  # fmt: skip
        return 200, message.model_dump(mode="json")

    def _openai(self, path: str, request: Received, says: str) -> Reply:
        if path != "/v1/chat/completions":
            return 404, {"error": {"message": "Unknown request URL", "type": "invalid_request_error"}}
        if request.headers.get("authorization") != f"Bearer {self.key}":
            return 401, {"error": {"message": "Incorrect API key provided", "type": "invalid_request_error"}}
        document = request.document
        _OPENAI.validate_python(document)
        assert set(document) <= set(get_type_hints(CompletionCreateParamsNonStreaming))
        message = ChatCompletionMessage(role="assistant", content=says or None, refusal=None if says else "I won't.")
        completion = ChatCompletion(
            id="c", object="chat.completion", created=1, model=document["model"],
            choices=[Choice(index=0, finish_reason=self.end, logprobs=None, message=message)],
            usage=CompletionUsage(prompt_tokens=1000, completion_tokens=80, total_tokens=1080),
        )  # fmt: skip
        return 200, completion.model_dump(mode="json")
