"""A run's trace as text for a model: what happened in order, cut to a size that can be read and paid. Pure."""

from __future__ import annotations

from typing import Any, Final

import msgspec

VALUE_CHARS: Final = 4_000  # of one input or output
TRACE_CHARS: Final = 80_000  # of all of it, about 20,000 tokens


class Observation(msgspec.Struct, rename="camel"):
    """One step of a trace, under the names both of Langfuse's routes have. Inputs and outputs are any JSON."""

    id: str
    type: str | None = None
    name: str | None = None
    start_time: str | None = None  # ISO 8601, UTC
    level: str | None = None
    status_message: str | None = None
    model: str | None = None
    input: Any = None
    output: Any = None
    prompt_name: str | None = None
    prompt_version: int | None = None


class Trace(msgspec.Struct):
    """What Langfuse knows of one run, oldest first. `is_whole` is false when there was more than was read."""

    observations: list[Observation]
    is_whole: bool = True

    @property
    def prompt(self) -> tuple[str, int | None] | None:
        """Name and version of the prompt behind the last generation that has one."""
        named = [(one.prompt_name, one.prompt_version) for one in self.observations if one.prompt_name]
        return (str(named[-1][0]), named[-1][1]) if named else None

    def text(self) -> str:
        """All of it, values and whole cut in their middles where they are too long."""
        steps = [_step(number, one) for number, one in enumerate(self.observations, 1)]
        if not self.is_whole:
            steps.insert(0, "[earlier steps were left out]")
        return cut("\n\n".join(steps), TRACE_CHARS)


def in_order(observations: list[Observation], *, is_whole: bool = True) -> Trace:
    """A trace of observations that came in any order."""
    return Trace(sorted(observations, key=lambda one: one.start_time or ""), is_whole)


def cut(text: str, limit: int) -> str:
    """`text`, or its beginning and end with a note of how much is missing between, `limit` characters in all."""
    if len(text) <= limit:
        return text
    note = f"\n[... {len(text) - limit:,} characters or more cut out ...]\n"
    kept = limit - len(note)
    return f"{text[: kept // 2]}{note}{text[len(text) - (kept - kept // 2) :]}"


def _step(number: int, one: Observation) -> str:
    head = f"{number}. {one.type or 'STEP'} {one.name or ''}".rstrip()
    facts = [
        ("model", one.model),
        ("level", one.level if one.level != "DEFAULT" else None),
        ("status", one.status_message),
        ("input", one.input),
        ("output", one.output),
    ]
    lines = [f"{name}: {cut(_plain(value), VALUE_CHARS)}" for name, value in facts if value not in (None, "")]
    return "\n".join([cut(head, VALUE_CHARS), *lines])


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()
