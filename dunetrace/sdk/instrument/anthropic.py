"""`anthropic`: messages, beta ones too, of every client that is built on its own."""

from __future__ import annotations

from typing import Any

from dunetrace.sdk.instrument.answers import Answer, Said, field
from dunetrace.sdk.instrument.llm import watching
from dunetrace.sdk.instrument.patching import Library, Target, defining

_COUNTS = ("input_tokens", "cache_read_input_tokens", "cache_creation_input_tokens", "output_tokens")


class MessagePieces:
    """Of a message. A stream says the prompt's tokens at its start and the rest at its end, as running totals."""

    def __init__(self) -> None:
        self._said = Said()
        self._finish_reason: str | None = None
        self._ended = False
        self._tokens: dict[str, int] = {}

    def take(self, piece: Any) -> None:
        match field(piece, "type"):
            case "message":
                for block in field(piece, "content") or ():
                    self._block(block)
                self._end(piece)
                self._count(piece)
            case "message_start":
                self._count(field(piece, "message"))
            case "content_block_start":
                self._block(field(piece, "content_block"))
            case "content_block_delta":
                self._said.say(field(piece, "delta", "text"))
            case "message_delta":
                self._end(field(piece, "delta"))
                self._count(piece)

    def _block(self, block: Any) -> None:
        match field(block, "type"):
            case "text":
                self._said.say(field(block, "text"))
            case "tool_use":
                self._said.asked = True
            case "thinking" | "redacted_thinking":
                pass
            case _:
                self._said.showed = True

    def _end(self, piece: Any) -> None:
        self._finish_reason = field(piece, "stop_reason") or self._finish_reason
        self._ended = self._finish_reason is not None

    def _count(self, piece: Any) -> None:
        usage = field(piece, "usage")
        self._tokens |= {name: told for name in _COUNTS if isinstance(told := field(usage, name), int)}

    def answer(self) -> Answer:
        tokens = self._tokens
        prompt = sum(tokens.get(name, 0) for name in _COUNTS[:3]) if "input_tokens" in tokens else None
        return self._said.answer(self._finish_reason)._replace(
            prompt_tokens=prompt,
            cached_prompt_tokens=tokens.get("cache_read_input_tokens"),
            completion_tokens=tokens.get("output_tokens") if self._ended else None,
        )


_begin = watching({"/v1/messages": MessagePieces})


def _targets(module: Any) -> list[Target]:
    clients = (module.Anthropic, module.AsyncAnthropic)
    return [Target(defining(client, "request", "options"), "request", _begin) for client in clients]


ANTHROPIC = Library("anthropic", _targets)
