"""What a model's answer says of itself, whole or piece by piece, as objects or as JSON. Used by `openai`, `anthropic`.

A whole answer is read as a stream of one piece.
"""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

_MOST_CHARS = 4 * 1024 * 1024  # of an answer's text that are kept to be hashed; of a longer one the length is told


class Answer(NamedTuple):
    """What is known of an answer; None is what is not.

    `text` is what it says; an answer that only asks for tools has none. `finish_reason` is in the words of its API.
    `prompt_tokens` include the cached ones. `error` is what the provider says went wrong.
    """

    finish_reason: str | None = None
    text: str | None = None
    length: int | None = None
    prompt_tokens: int | None = None
    cached_prompt_tokens: int | None = None
    completion_tokens: int | None = None
    error: str | None = None


class Pieces(Protocol):
    """Takes an answer's pieces as they come."""

    def take(self, piece: Any) -> None:
        """Look at a piece; one of an unknown kind says nothing."""

    def answer(self) -> Answer:
        """What is known by now."""


class Said:
    """What the pieces held: text, requests for tools, other things."""

    def __init__(self) -> None:
        self._parts: list[str] = []
        self.length = 0
        self.asked = False  # for a tool that the agent has to run
        self.showed = False  # something that is no text: an image, a search of the provider's own

    def say(self, part: object) -> None:
        """Add text; what is no text is left out."""
        if isinstance(part, str) and part:
            self.length += len(part)
            if self.length <= _MOST_CHARS:
                self._parts.append(part)

    def answer(self, finish_reason: str | None) -> Answer:
        """Its text and the reason it ended. Without text it is known to be empty only when it ended and asked for and
        showed nothing."""
        reason = "tool_calls" if self.asked and finish_reason in _DONE else finish_reason
        if self.length > _MOST_CHARS:
            return Answer(reason, None, self.length)
        if not self.length and (self.asked or self.showed or reason is None):
            return Answer(reason)
        return Answer(reason, "".join(self._parts), self.length)


_DONE = {"stop", "end_turn"}  # as an answer also ends that was told to ask for a certain tool


def field(value: Any, *names: str) -> Any:
    """The attribute or the entry at the end of this path, None where there is none.

    Looked up in the model's own dicts: asking a pydantic model for what it has not got takes a microsecond each time.
    """
    for name in names:
        if type(value) is dict:
            value = value.get(name)
            continue
        held = getattr(value, "__dict__", None)
        if held is not None and name not in held:
            held = getattr(value, "__pydantic_extra__", None)
        value = held.get(name) if held else None
    return value
