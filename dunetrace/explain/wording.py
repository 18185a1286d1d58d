"""Fills a template with evidence. Used by `explain` alone.

Evidence comes from rows that may be older than the template, and names in it from other people's agents: a value that
is missing or of another kind is written ``n/a``, and every name is shown cleaned and shortened by `shown_name`.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Mapping, Sequence
from string import Formatter
from typing import Any

MAX_SHOWN_CHARS = 60
_MISSING = "n/a"
UNSEEN = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})  # control, format (such as RTL marks), unassigned


def shown_name(name: object, limit: int = MAX_SHOWN_CHARS) -> str:
    """A name as a person may see it: one line, no unseen characters, no backticks, at most `limit` characters."""
    head = str(name)[: limit * 4]
    seen = "".join(" " if unicodedata.category(c) in UNSEEN else c for c in head.replace("`", "'"))
    text = " ".join(seen.split())
    shortened = len(text) > limit or len(head) < len(str(name))
    return f"{text[: limit - 1]}…" if shortened else text or "(no name)"


def fill(template: str, evidence: Mapping[str, Any]) -> str:
    """The template with the evidence's values in it. Never raises on any evidence."""
    return _EvidenceFormatter().vformat(template, (), evidence)


def _name(value: Any) -> str:
    return f"`{shown_name(value)}`" if isinstance(value, str) else _MISSING


def _names(value: Any) -> str:
    listed = [_name(v) for v in value[:10]] if isinstance(value, Sequence) and not isinstance(value, str) else []
    return ", ".join(listed) or "(no label)"


def _ms(value: Any) -> str:
    if not _is_number(value):
        return _MISSING
    if value < 1_000:
        return f"{value:.0f} ms"
    number, unit = (value / 1_000, "s") if value < 120_000 else (value / 60_000, "min")
    return f"{f'{number:.1f}'.removesuffix('.0')} {unit}"


def _count(value: Any) -> str:
    return f"{value:,}" if _is_number(value) else _MISSING


def _tokens(value: Any) -> str:
    if not _is_number(value):
        return _MISSING
    return f"about {value:,} tokens" if value else "no tokens known"


def _counted(value: Any, singular: str, plural: str) -> str:
    return f"{_count(value)} {singular if value == 1 else plural}"


def _literal(value: Any) -> str:
    """A Python literal, safe to paste: names are cleaned first."""
    if isinstance(value, str):
        return ascii(shown_name(value))
    return repr(value) if _is_number(value) else "None"


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 1e18


_FORMATS: dict[str, Callable[[Any], str]] = {
    "name": _name,
    "names": _names,
    "ms": _ms,
    "count": _count,
    "tokens": _tokens,
    "literal": _literal,
}


class _EvidenceFormatter(Formatter):
    """`str.format` syntax without attribute access. Beside the usual formats of numbers it has those above, and
    ``{acts:act|acts}`` for a count with its noun."""

    def get_field(self, field_name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> tuple[Any, str]:  # noqa: ARG002
        return kwargs.get(field_name), field_name

    def format_field(self, value: Any, format_spec: str) -> str:
        if "|" in format_spec:
            return _counted(value, *format_spec.split("|", 1))
        own = _FORMATS.get(format_spec)
        if own is not None:
            return own(value)
        return format(value, format_spec) if _is_number(value) else _MISSING
