"""Query parameters, declared once: how each is read from a request and how the OpenAPI document shows it.

Used by routes.py. A parameter given twice counts as its last; an empty choice or flag counts as not given, because
some clients write their unset options that way. A value it cannot have is a 422 that names what is allowed.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, ClassVar, TypeAlias

from dunetrace.events import storable
from dunetrace.serving.answers import RefusedError, invalid

_WHOLE = re.compile(r"[+-]?[0-9]{1,19}")


@dataclass(frozen=True, slots=True)
class Whole:
    """A whole number from `low` to `high`."""

    name: str
    default: int
    low: int
    high: int
    what: str

    def read(self, text: str | None) -> int:
        if text is None:
            return self.default
        number = int(text) if _WHOLE.fullmatch(text) else self.low - 1
        if not self.low <= number <= self.high:
            raise _refused(self.name, f"must be a whole number from {self.low} to {self.high}", "whole_number")
        return number

    def schema(self) -> dict[str, Any]:
        return {"type": "integer", "minimum": self.low, "maximum": self.high, "default": self.default}


@dataclass(frozen=True, slots=True)
class Choice:
    """One of `choices`, in any case; None when not given and without a default."""

    name: str
    choices: tuple[str, ...]
    default: str | None
    what: str

    def read(self, text: str | None) -> str | None:
        return self.named(text, "query") if text else self.default

    def named(self, text: str, place: str) -> str:
        """The choice that `text` names. `place` is where it was given: query or path."""
        for choice in self.choices:
            if choice.casefold() == text.casefold():
                return choice
        raise _refused(self.name, f"must be one of {', '.join(self.choices)}", "choice", place)

    def schema(self) -> dict[str, Any]:
        schema: dict[str, Any] = {"type": "string", "enum": list(self.choices)}
        return schema if self.default is None else schema | {"default": self.default}


@dataclass(frozen=True, slots=True)
class Flag:
    """True or false; None when not given and without a default."""

    name: str
    default: bool | None
    what: str

    WORDS: ClassVar[dict[str, bool]] = {"true": True, "1": True, "false": False, "0": False}

    def read(self, text: str | None) -> bool | None:
        if not text:
            return self.default
        if (value := self.WORDS.get(text.lower())) is None:
            raise _refused(self.name, "must be true or false", "flag")
        return value

    def schema(self) -> dict[str, Any]:
        return {"type": "boolean"} if self.default is None else {"type": "boolean", "default": self.default}


@dataclass(frozen=True, slots=True)
class Text:
    """Any text; "" when not given. What Postgres cannot hold becomes U+FFFD."""

    name: str
    what: str

    def read(self, text: str | None) -> str:
        return storable(text or "")

    def schema(self) -> dict[str, Any]:
        return {"type": "string"}


Parameter: TypeAlias = Whole | Choice | Flag | Text


def _refused(name: str, allowed: str, kind: str, place: str = "query") -> RefusedError:
    return invalid([place, name], f"{name}: {allowed}", kind)
