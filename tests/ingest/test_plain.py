"""What is recognised while it is decoded is what the privacy door would have made of it."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dunetrace.door import door
from dunetrace.events import EVENT_TYPES, MAX_NUMBER, RAW_KEYS, Kind
from dunetrace.hashing import Hasher
from dunetrace.injection import scan
from dunetrace.serving.plain import Plain, read

DIGEST = "0123456789abcdef"


def _read(event_type: str, text: str) -> Any:
    return read(event_type, msgspec.Raw(text.encode("utf-8", "surrogatepass")), set())


_texts = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=5) | st.sampled_from(
    [
        DIGEST,
        DIGEST + "g",
        DIGEST + "\n",
        "a" * 128,
        "a" * 129,
        "x" * 256,
        "x" * 257,
        "é" * 256,
        "stop",
        "end_turn",
        "a b",
    ]
)
_numbers = (
    st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.sampled_from([0, -1, MAX_NUMBER, MAX_NUMBER + 1, -MAX_NUMBER, 2.0, 2.5, -0.0, float(MAX_NUMBER)])
)
_plain_values = st.none() | st.booleans() | _numbers | _texts
_values = _plain_values | st.lists(_plain_values, max_size=3) | st.dictionaries(_texts, _plain_values, max_size=3)
_LIKELY = {
    Kind.NAME: _texts,
    Kind.DIGEST: st.sampled_from(["", DIGEST, DIGEST.upper()]),
    Kind.COUNT: st.integers(0, MAX_NUMBER),
    Kind.FLAG: st.booleans(),
    Kind.NAMES: st.lists(_texts, max_size=3),
}


@st.composite
def _payloads(draw: st.DrawFn) -> tuple[str, str]:
    """A payload of mostly declared keys as JSON, in which a key may come twice."""
    event_type = draw(st.sampled_from(sorted(EVENT_TYPES)))
    keys = EVENT_TYPES[event_type]
    members = []
    for key in draw(st.lists(st.sampled_from([*keys, "undeclared"]), max_size=4)):
        likely = _LIKELY.get(keys.get(key, Kind.RAW), _values)
        value = draw(likely if draw(st.booleans()) else _values)
        members.append(f"{json.dumps(key)}: {json.dumps(value, ensure_ascii=draw(st.booleans()))}")
    return event_type, "{" + ", ".join(members) + "}"


@settings(max_examples=1_000, deadline=None)
@given(_payloads())
def test_a_plain_payload_is_what_the_door_makes_of_it(sent: tuple[str, str]) -> None:
    event_type, text = sent
    payload = _read(event_type, text)
    if isinstance(payload, Plain):
        kept, dropped = door(event_type, json.loads(text), Hasher(), scan)
        stored = json.loads(msgspec.json.encode(payload))
        assert (json.dumps(stored, sort_keys=True), 0) == (json.dumps(kept, sort_keys=True), dropped)
    else:
        assert payload == json.loads(text)


@pytest.mark.parametrize("event_type", [*EVENT_TYPES, "made.up"])
@pytest.mark.parametrize("name", [*RAW_KEYS, "undeclared", "meta", "injection_signal"])
@pytest.mark.parametrize("content", ["a canary sings", {"deep": ["a canary sings"]}, ["a canary sings"]])
def test_content_is_never_plain(event_type: str, name: str, content: Any) -> None:
    assert _read(event_type, json.dumps({name: content})) == {name: content}


def test_the_usual_payloads_are_plain() -> None:
    usual: dict[str, dict[str, Any]] = {
        "run.started": {"input_hash": DIGEST * 4, "model": "gpt-4o", "tools": ["search"], "sdk": "python"},
        "llm.called": {"model": "gpt-4o", "prompt_tokens": 3, "call_id": 1},
        "llm.responded": {"completion_tokens": 3, "latency_ms": 1.5, "finish_reason": "stop", "output_hash": ""},
        "tool.responded": {"tool_name": "search", "success": True, "latency_ms": 3, "error_hash": None},
        "retrieval.responded": {"index_name": "docs", "result_count": 0, "top_score": -0.5},
        "run.completed": {"total_steps": 2, "exit_reason": "final_answer", "tool_call_count": 1},
    }
    for event_type, payload in usual.items():
        assert isinstance(_read(event_type, json.dumps(payload)), Plain)


def test_after_one_payload_of_a_type_the_others_are_read_as_they_are() -> None:
    not_plain = set[str]()
    for text in (b'{"args": "x"}', b'{"tool_name": "search"}'):
        assert isinstance(read("tool.called", msgspec.Raw(text), not_plain), dict)
    assert isinstance(read("llm.called", msgspec.Raw(b"{}"), not_plain), Plain)
    assert read("llm.called", msgspec.Raw(b"null"), not_plain) is None


@pytest.mark.parametrize(
    "text", [b"[]", b"5", b'"text"', b'{"model": NaN}', b'{"model": "\\ud800"}', b'{"model": "\xff"}']
)
def test_what_is_not_strict_json_is_refused(text: bytes) -> None:
    with pytest.raises((msgspec.MsgspecError, ValueError)):
        read("llm.called", msgspec.Raw(text), set())
