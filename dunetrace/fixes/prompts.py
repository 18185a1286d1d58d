"""A prompt of Langfuse's, and a fix in it: where it goes, and whether it is there already. Pure.

A text prompt is its text; of a chat prompt, the text is that of its last system message. A fix is a paragraph of its
own at the end, so that the same fix is recognised wherever it stands by then.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

LATEST = "latest"  # Langfuse moves this label itself
PRODUCTION = "production"


class Prompt(msgspec.Struct, rename="camel"):
    """One version of a prompt. What Langfuse adds beside these fields is not carried over to a new version."""

    name: str
    version: int
    prompt: str | list[dict[str, Any]]
    type: Literal["text", "chat"] = "text"
    config: Any = None
    labels: list[str] = []
    tags: list[str] = []

    @property
    def text(self) -> str:
        """What a fix is appended to."""
        if isinstance(self.prompt, str):
            return self.prompt
        place = self._place()
        content = "" if place is None else self.prompt[place].get("content")
        return content if isinstance(content, str) else ""

    def holds(self, fix: str) -> bool:
        """Whether the fix stands in it as a paragraph, or paragraphs, of its own."""
        return _framed(fix) in _framed(self.text)

    def without(self, fix: str) -> str:
        """The text before the fix came into it."""
        return _framed(self.text).replace(_framed(fix), "\n\n", 1).removeprefix("\n\n").removesuffix("\n\n")

    def with_fix(self, fix: str) -> Prompt:
        """The prompt with the fix at the end of its text; of a chat prompt without one, in a system message first."""
        text = f"{self.text}\n\n{fix}" if self.text else fix
        if isinstance(self.prompt, str):
            return msgspec.structs.replace(self, prompt=text)
        messages = list(self.prompt)
        place = self._place()
        if place is None:
            messages.insert(0, {"role": "system", "content": text})
        else:
            messages[place] = {**messages[place], "content": text}
        return msgspec.structs.replace(self, prompt=messages)

    def _place(self) -> int | None:
        systems = [place for place, message in enumerate(self.prompt) if _is_system(message)]
        return systems[-1] if systems else None


def _is_system(message: Any) -> bool:
    return message.get("role") == "system" and isinstance(message.get("content"), str)


def _framed(text: str) -> str:
    return f"\n\n{text}\n\n"
