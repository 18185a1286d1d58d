"""What an event is, as data: every type with its keys and their kinds, the limits, and an event's identity.

Pure and shared: the SDK emits by these tables, `door.py` is the one interpreter of them, the fold reads what the door
let through, and ``docs/events.md`` is written from them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from enum import StrEnum
from hashlib import blake2b
from types import MappingProxyType
from typing import Any, Final, NamedTuple


class Event(NamedTuple):
    """One event behind the privacy door, as it is stored and folded. Times are float Unix seconds."""

    event_type: str
    run_id: str
    agent_id: str
    agent_version: str
    step_index: int
    timestamp: float
    payload: dict[str, Any]
    parent_run_id: str | None
    received_at: float


class Kind(StrEnum):
    """What a payload value may be. `docs` is the sentence of the generated page."""

    docs: str

    def __new__(cls, value: str, docs: str) -> Kind:
        member = str.__new__(cls, value)
        member._value_ = value
        member.docs = docs
        return member

    NAME = "name", "text the developer chose, cut at 256 characters"
    LABEL = "label", "`[A-Za-z0-9_.-]`, at most 64 characters"
    DIGEST = "digest", "16 to 128 hex digits or empty; any other text is hashed"
    COUNT = "count", "a number from 0 to 2^53, stored as an integer"
    DURATION = "duration", "milliseconds: a number from 0 to 2^53"
    SCORE = "score", "a number from -2^53 to 2^53"
    FLAG = "flag", "true or false"
    FINISH_REASON = "finish reason", "one of `stop`, `length`, `tool_calls`, `content_filter`, `other`"
    CALL_ID = "call id", "an integer, or text cut at 256 characters"
    NAMES = "names", "a list of names, or of objects of which the `name` is kept; at most 512"
    RULE_LABELS = "rule labels", "a list of `[a-z0-9_]{1,64}`, at most 5"
    INJECTION = "injection", "an object with the keys of the injection table"
    META = "meta", "an object, at most 32 keys: numbers and flags stay, the rest becomes `<key>_hash`, `<key>_length`"
    RAW = "raw", "content: hashed at the door by the raw table and never stored"


class RawKey(NamedTuple):
    """How one content-bearing key of a published client is turned into digests."""

    hash_key: str
    length_key: str
    shape_key: str | None = None  # also hashed with ids and times masked
    canonical: bool = False  # JSON in it is brought into sorted, compact form before it is hashed
    scanned: bool = False  # the user's input: scanned for injection before it is hashed


MAX_EVENT_TYPE_CHARS: Final = 64
MAX_NAME_CHARS: Final = 256
MAX_STEP_INDEX: Final = 2_147_483_647
TIMESTAMP_END: Final = 4_102_444_800  # 2100-01-01, exclusive
MAX_NUMBER: Final = 2**53  # what every JSON reader still counts exactly
MAX_NAMES: Final = 512
MAX_META_KEYS: Final = 32
MAX_RULE_LABELS: Final = 5

RAW_KEYS: Final[Mapping[str, RawKey]] = MappingProxyType(
    {
        "input_text": RawKey("input_hash", "input_length", scanned=True),
        "system_prompt": RawKey("system_prompt_hash", "system_prompt_length"),
        "args": RawKey("args_hash", "args_length", "args_shape_hash", canonical=True),
        "output": RawKey("output_hash", "output_length"),
        "query": RawKey("query_hash", "query_length"),
        "content": RawKey("content_hash", "content_length"),
        "error": RawKey("error_hash", "error_length", "error_shape_hash"),
        "source_file": RawKey("source_file_hash", "source_file_length"),
        "key": RawKey("key_hash", "key_length"),
        "value": RawKey("value_hash", "value_length"),
    }
)

INJECTION_KEYS: Final[Mapping[str, Kind]] = MappingProxyType(
    {
        "matched_pattern_count": Kind.COUNT,
        "matched_patterns": Kind.RULE_LABELS,
        "input_length": Kind.COUNT,
        "scan_truncated": Kind.FLAG,
        "scanned_chars": Kind.COUNT,
    }
)


def _keys(*raw: str, **declared: Kind) -> Mapping[str, Kind]:
    """The declared keys, `conversation_hash`, and for each raw key itself and what it turns into."""
    keys = {**declared, "conversation_hash": Kind.DIGEST}
    for name in raw:
        rule = RAW_KEYS[name]
        keys |= {name: Kind.RAW, rule.hash_key: Kind.DIGEST, rule.length_key: Kind.COUNT}
        if rule.shape_key:
            keys[rule.shape_key] = Kind.DIGEST
        if rule.scanned:
            keys["injection_signal"] = Kind.INJECTION
    return MappingProxyType(keys)


EVENT_TYPES: Final[Mapping[str, Mapping[str, Kind]]] = MappingProxyType(
    {
        "run.started": _keys(
            "input_text",
            "system_prompt",
            "source_file",
            model=Kind.NAME,
            tools=Kind.NAMES,
            task_hash=Kind.DIGEST,
            sdk=Kind.NAME,
            sdk_version=Kind.NAME,
        ),
        "user.message": _keys("input_text"),
        "llm.called": _keys(
            model=Kind.NAME, prompt_tokens=Kind.COUNT, cached_prompt_tokens=Kind.COUNT, call_id=Kind.CALL_ID
        ),
        "llm.responded": _keys(
            "output",
            "error",
            completion_tokens=Kind.COUNT,
            prompt_tokens=Kind.COUNT,
            cached_prompt_tokens=Kind.COUNT,
            latency_ms=Kind.DURATION,
            finish_reason=Kind.FINISH_REASON,
            call_id=Kind.CALL_ID,
        ),
        "tool.called": _keys("args", tool_name=Kind.NAME, call_id=Kind.CALL_ID),
        "tool.responded": _keys(
            "output",
            "error",
            tool_name=Kind.NAME,
            success=Kind.FLAG,
            latency_ms=Kind.DURATION,
            call_id=Kind.CALL_ID,
        ),
        "retrieval.called": _keys("query", index_name=Kind.NAME, call_id=Kind.CALL_ID),
        "retrieval.responded": _keys(
            "content",
            index_name=Kind.NAME,
            result_count=Kind.COUNT,
            top_score=Kind.SCORE,
            latency_ms=Kind.DURATION,
            call_id=Kind.CALL_ID,
        ),
        "external.signal": _keys(signal_name=Kind.NAME, source=Kind.NAME, meta=Kind.META),
        "memory.written": _keys("key", "value", source=Kind.NAME),
        "memory.read": _keys("key", "value", source=Kind.NAME),
        "run.completed": _keys(
            total_steps=Kind.COUNT,
            exit_reason=Kind.LABEL,
            tool_call_count=Kind.COUNT,
            dropped_events=Kind.COUNT,
        ),
        "run.errored": _keys(
            "error",
            error_type=Kind.NAME,
            step_index=Kind.COUNT,
            dropped_events=Kind.COUNT,
        ),
    }
)

FINISH_REASONS: Final[Mapping[str, str]] = MappingProxyType(
    {
        spelling: reason
        for reason, spellings in {
            "length": ("length", "max_tokens", "MAX_TOKENS", "model_length"),
            "tool_calls": ("tool_calls", "tool_use", "function_call"),
            "stop": ("stop", "end_turn", "STOP", "stop_sequence"),
            "content_filter": ("content_filter", "SAFETY", "refusal"),
        }.items()
        for spelling in spellings
    }
)


def normalise_finish_reason(value: str | None) -> str | None:
    """One of `stop`, `length`, `tool_calls`, `content_filter`, `other`; None, which is unknown, stays None."""
    return None if value is None else FINISH_REASONS.get(value, "other")


_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")


def storable(text: str) -> str:
    """The text with U+0000 and lone surrogates, which Postgres refuses, as U+FFFD."""
    if text.isascii() and "\x00" not in text:
        return text
    return _UNSTORABLE.sub("\ufffd", text)


_OF_AN_ID: Final = blake2b(digest_size=16, person=b"event id")
_OF_A_POSITION: Final = blake2b(digest_size=16, person=b"position")


# The identity of an event inside its customer and run, at most 50 characters, is one of these two, or else the id of
# its batch with its position there, which is a new identity each time it is sent. Both digests are 128 bits in hex over
# parts that have each its length in front, so that no two lists of them read the same.


def id_key(event_id: str, timestamp: float | None) -> str:
    """Of an event with an id: that id and the client's own `timestamp`, as sent, None when it sent none."""
    sent = "" if timestamp is None else repr(float(timestamp))
    whole = _OF_AN_ID.copy()
    whole.update(f"{len(event_id)}:{event_id}{len(sent)}:{sent}".encode("utf-8", "replace"))
    return whole.hexdigest()


def position_key(idempotency_key: str, body_sha256: bytes, position: int) -> str:
    """Of an event without one, under an Idempotency-Key: that, the inflated body's SHA-256, the event's position."""
    whole = _OF_A_POSITION.copy()
    for part in (idempotency_key, body_sha256.hex(), str(position)):
        whole.update(f"{len(part)}:{part}".encode("utf-8", "replace"))
    return whole.hexdigest()


DAY_S: Final = 86_400
_DAYS_BEFORE, _DAYS_AFTER = 7, 1


def event_day(timestamp: float, received_at: float) -> int:
    """The UTC day of the event's own clock, held between seven days before and one day after its receipt.

    Both are Unix seconds; the day counts from 1970-01-01.
    """
    day, today = int(timestamp // DAY_S), int(received_at // DAY_S)
    return min(max(day, today - _DAYS_BEFORE), today + _DAYS_AFTER)
