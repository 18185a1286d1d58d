"""`openai`: chat completions, the Responses API and legacy completions, of every client that is built on its own."""

from __future__ import annotations

from typing import Any

from dunetrace.sdk.instrument.answers import Answer, Said, field
from dunetrace.sdk.instrument.llm import watching
from dunetrace.sdk.instrument.patching import Library, Target, defining

_AGENTS_CALLS = {
    "function_call", "custom_tool_call", "computer_call", "local_shell_call", "shell_call", "apply_patch_call",
    "mcp_approval_request",
}  # fmt: skip
_ENDS = {"response.completed", "response.incomplete", "response.failed"}
_TEXTS = {"response.output_text.delta", "response.refusal.delta"}
_REASONS = {"max_output_tokens": "length", "content_filter": "content_filter"}


class ChatPieces:
    """Of chat completions and legacy completions. Usage comes with the last piece of a stream that was asked for it."""

    def __init__(self) -> None:
        self._said = Said()
        self._finish_reason: str | None = None
        self._usage: Any = None

    def take(self, piece: Any) -> None:
        for choice in field(piece, "choices") or ():
            message = field(choice, "message") or field(choice, "delta") or choice
            content, audio = field(message, "content"), field(message, "audio")
            for text in (content, field(message, "refusal"), field(choice, "text"), field(audio, "transcript")):
                self._said.say(text)
            if field(message, "tool_calls") or field(message, "function_call"):
                self._said.asked = True
            if audio or not isinstance(content, str | None):
                self._said.showed = True
            self._finish_reason = self._finish_reason or field(choice, "finish_reason")
        self._usage = field(piece, "usage") or self._usage

    def answer(self) -> Answer:
        usage = self._usage
        return self._said.answer(self._finish_reason)._replace(
            prompt_tokens=field(usage, "prompt_tokens"),
            cached_prompt_tokens=field(usage, "prompt_tokens_details", "cached_tokens"),
            completion_tokens=field(usage, "completion_tokens"),
        )


class ResponsePieces:
    """Of the Responses API. A stream's last event holds the whole response."""

    def __init__(self) -> None:
        self._said = Said()
        self._response: Any = None
        self._error: str | None = None

    def take(self, piece: Any) -> None:
        kind = field(piece, "type")
        if kind in _TEXTS:
            self._said.say(field(piece, "delta"))
        elif kind in _ENDS:
            self._whole(field(piece, "response"))
        elif kind == "error":
            self._error = field(piece, "message")
        elif field(piece, "object") == "response":
            self._whole(piece)

    def _whole(self, response: Any) -> None:
        self._response, self._said = response, Said()
        for item in field(response, "output") or ():
            kind = field(item, "type")
            if kind == "message":
                for part in field(item, "content") or ():
                    self._said.say(field(part, "text") or field(part, "refusal"))
            elif kind in _AGENTS_CALLS:
                self._said.asked = True
            elif kind != "reasoning":
                self._said.showed = True
        if field(response, "status") == "failed":
            self._error = field(response, "error", "message") or "failed"

    def answer(self) -> Answer:
        response = self._response
        usage = field(response, "usage")
        return self._said.answer(_finish_reason(response))._replace(
            prompt_tokens=field(usage, "input_tokens"),
            cached_prompt_tokens=field(usage, "input_tokens_details", "cached_tokens"),
            completion_tokens=field(usage, "output_tokens"),
            error=self._error,
        )


def _finish_reason(response: Any) -> str | None:
    """None for one that failed, was cancelled, or goes on in the background."""
    status = field(response, "status")
    if status == "incomplete":
        return _REASONS.get(field(response, "incomplete_details", "reason"), "other")
    return "stop" if status == "completed" else None


_begin = watching({"/chat/completions": ChatPieces, "/completions": ChatPieces, "/responses": ResponsePieces})


def _targets(module: Any) -> list[Target]:
    clients = (module.OpenAI, module.AsyncOpenAI)
    return [Target(defining(client, "request", "options"), "request", _begin) for client in clients]


OPENAI = Library("openai", _targets)
