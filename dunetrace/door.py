"""The privacy door: the one interpreter of the tables in `events.py`.

Called for every payload that arrives, before it is queued, logged or stored, except where `serving/plain.py` knows by
the same tables that it would change nothing. Nothing gets past it that the tables do not name; content that published
clients still send leaves it as digests and lengths.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from dunetrace.events import (
    EVENT_TYPES,
    INJECTION_KEYS,
    MAX_META_KEYS,
    MAX_NAME_CHARS,
    MAX_NAMES,
    MAX_NUMBER,
    MAX_RULE_LABELS,
    RAW_KEYS,
    Kind,
    normalise_finish_reason,
    storable,
)
from dunetrace.hashing import canonical, canonical_text

if TYPE_CHECKING:
    from dunetrace.hashing import Hasher
    from dunetrace.injection import InjectionScan

    Scan = Callable[[str], InjectionScan | None]
    Reader = Callable[[Any, "_Passage"], Any]


def door(event_type: str, payload: Mapping[str, Any], hasher: Hasher, scan: Scan) -> tuple[dict[str, Any], int]:
    """The payload that may be stored, and how many keys or list items were dropped on the way.

    `payload` is any JSON object as decoded. Values are what `events.Kind` says of each key: text without U+0000 and
    lone surrogates, integers within 64 bits, finite numbers. An unknown event type keeps nothing. Never raises.
    """
    plan = _PLANS.get(event_type)
    if plan is None:
        return {}, len(payload)
    passage = _Passage(hasher)
    kept = passage.keep(plan, payload)
    for name, value in passage.raw.items():
        _hash_raw(name, value, kept, hasher, scan)
    return kept, passage.dropped


class _Passage:
    """One payload on its way through: what it is hashed with, what was dropped, and the content put aside."""

    __slots__ = ("dropped", "hasher", "raw")

    def __init__(self, hasher: Hasher) -> None:
        self.hasher = hasher
        self.dropped = 0
        self.raw: dict[str, Any] = {}

    def keep(self, plan: Mapping[str, Reader | None], values: Mapping[str, Any]) -> dict[str, Any]:
        """The declared keys whose value is of the declared kind. Null is the same as absent."""
        kept = {}
        for key, value in values.items():
            if value is None:
                continue
            reader = plan.get(key, _undeclared)
            if reader is None:
                self.raw[key] = value
                continue
            read = reader(value, self)
            if read is _WRONG:
                self.dropped += 1
            else:
                kept[key] = read
        return kept


_WRONG: Final = object()  # what a reader returns for a value that is not of its kind


def _undeclared(_value: Any, _passage: _Passage) -> Any:
    return _WRONG


def _name(value: Any, _passage: _Passage) -> Any:
    return storable(value)[:MAX_NAME_CHARS] if isinstance(value, str) else _WRONG


_LABEL = re.compile(r"[A-Za-z0-9_.-]{1,64}")


def _label(value: Any, _passage: _Passage) -> Any:
    return value if isinstance(value, str) and _LABEL.fullmatch(value) else _WRONG


_DIGEST = re.compile(r"[0-9a-fA-F]{16,128}")


def _digest(value: Any, passage: _Passage) -> Any:
    if not isinstance(value, str):
        return _WRONG
    return value if not value or _DIGEST.fullmatch(value) else passage.hasher.text(storable(value))


_NUMBERS: Final = (int, float)  # and not bool, which is an int


def _number(value: Any, least: int) -> bool:
    """True for a number within bounds. NaN compares false with everything."""
    return type(value) in _NUMBERS and bool(least <= value <= MAX_NUMBER)


def _count(value: Any, _passage: _Passage) -> Any:
    return int(value) if _number(value, 0) else _WRONG


def _duration(value: Any, _passage: _Passage) -> Any:
    return value if _number(value, 0) else _WRONG


def _score(value: Any, _passage: _Passage) -> Any:
    return value if _number(value, -MAX_NUMBER) else _WRONG


def _flag(value: Any, _passage: _Passage) -> Any:
    return value if isinstance(value, bool) else _WRONG


def _finish_reason(value: Any, _passage: _Passage) -> Any:
    return normalise_finish_reason(value) if isinstance(value, str) else _WRONG


def _call_id(value: Any, passage: _Passage) -> Any:
    if isinstance(value, int):
        return _score(value, passage)
    return _name(value, passage)


def _names(value: Any, passage: _Passage) -> Any:
    if not isinstance(value, list):
        return _WRONG
    named = (item.get("name") if isinstance(item, dict) else item for item in value[:MAX_NAMES])
    names = [_name(item, passage) for item in named if isinstance(item, str)]
    passage.dropped += len(value) - len(names)
    return names


_RULE_LABEL = re.compile(r"[a-z0-9_]{1,64}")


def _rule_labels(value: Any, passage: _Passage) -> Any:
    if not isinstance(value, list):
        return _WRONG
    labels = [item for item in value if isinstance(item, str) and _RULE_LABEL.fullmatch(item)]
    labels = list(dict.fromkeys(labels))[:MAX_RULE_LABELS]
    passage.dropped += len(value) - len(labels)
    return labels


def _injection(value: Any, passage: _Passage) -> Any:
    return (passage.keep(_INJECTION_PLAN, value) or _WRONG) if isinstance(value, dict) else _WRONG


def _meta(value: Any, passage: _Passage) -> Any:
    if not isinstance(value, dict):
        return _WRONG
    kept: dict[str, Any] = {}
    for position, (key, item) in enumerate(value.items()):
        if item is None:
            continue
        if position >= MAX_META_KEYS:
            passage.dropped += 1
            continue
        name = storable(key)[: MAX_NAME_CHARS - len("_length")]
        if isinstance(item, bool) or _number(item, -MAX_NUMBER):
            kept[name] = item
        elif isinstance(item, int | float):
            passage.dropped += 1
        elif isinstance(item, str) and name.endswith("_hash"):
            kept[name] = _digest(item, passage)
        else:
            text = _text_of(item)
            kept[f"{name}_hash"] = passage.hasher.text(text)
            kept[f"{name}_length"] = len(text)
    return kept


_READERS: Final[Mapping[Kind, Reader | None]] = MappingProxyType(
    {
        Kind.NAME: _name,
        Kind.LABEL: _label,
        Kind.DIGEST: _digest,
        Kind.COUNT: _count,
        Kind.DURATION: _duration,
        Kind.SCORE: _score,
        Kind.FLAG: _flag,
        Kind.FINISH_REASON: _finish_reason,
        Kind.CALL_ID: _call_id,
        Kind.NAMES: _names,
        Kind.RULE_LABELS: _rule_labels,
        Kind.INJECTION: _injection,
        Kind.META: _meta,
        Kind.RAW: None,
    }
)
_INJECTION_PLAN: Final = {key: _READERS[kind] for key, kind in INJECTION_KEYS.items()}
_PLANS: Final = {
    event_type: {key: _READERS[kind] for key, kind in keys.items()} for event_type, keys in EVENT_TYPES.items()
}


def _text_of(value: Any) -> str:
    """Text as it is; anything else as canonical JSON."""
    return storable(value if isinstance(value, str) else canonical(value))


def _hash_raw(name: str, value: Any, kept: dict[str, Any], hasher: Hasher, scan: Scan) -> None:
    """Put the digests and the length of a piece of content into `kept`, after the scan of it where it is the input.

    A length the client sent wins; a digest it sent stays only beside empty content.
    """
    rule = RAW_KEYS[name]
    text = _text_of(value)
    if rule.scanned and text and (found := scan(text)) is not None:
        kept["injection_signal"] = _merged(kept.get("injection_signal", {}), found)
    kept.setdefault(rule.length_key, len(text))
    form = canonical_text(text) if rule.canonical else text
    if text or rule.hash_key not in kept:
        kept[rule.hash_key] = hasher.text(form)
    if rule.shape_key is not None and (text or rule.shape_key not in kept):
        kept[rule.shape_key] = hasher.shape(form)


def _merged(theirs: Mapping[str, Any], found: InjectionScan) -> dict[str, Any]:
    """The client's injection signal and ours as one: the union of the labels, the larger of the counts."""
    labels = list(dict.fromkeys([*theirs.get("matched_patterns", ()), *found.matched_patterns]))
    return {
        "matched_pattern_count": max(theirs.get("matched_pattern_count", 0), found.matched_pattern_count, len(labels)),
        "matched_patterns": labels[:MAX_RULE_LABELS],
        "input_length": theirs.get("input_length", found.input_length),
        "scan_truncated": theirs.get("scan_truncated", False) or found.scan_truncated,
        "scanned_chars": max(theirs.get("scanned_chars", 0), found.scanned_chars),
    }
