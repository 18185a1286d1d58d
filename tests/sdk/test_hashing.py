"""Digests: the same for equal content from every client, whatever the content is."""

from __future__ import annotations

import dataclasses
import enum
import hashlib
import hmac
import json
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dunetrace.hashing import _VOLATILE, Hasher, agent_version, canonical, canonical_text, masked, snapshot


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def test_text() -> None:
    assert Hasher().text("") == Hasher(b"k").text("") == ""
    assert Hasher().text("é") == sha("é".encode())
    assert Hasher(b"k").text("é") == hmac.digest(b"k", "é".encode(), "sha256").hex()
    assert Hasher(b"").text("x") == sha(b"x")
    assert Hasher().text("a\ud800b") == sha("a\ufffdb".encode())
    assert Hasher().text("\ud83d\ude00") == sha("😀".encode())


@given(st.text(st.characters()), st.none() | st.binary())
def test_any_text_has_a_digest_and_a_shape(text: str, key: bytes | None) -> None:
    for digest in (Hasher(key).text(text), Hasher(key).shape(text)):
        assert len(digest) == (64 if text else 0)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("req 550e8400-e29b-41d4-a716-446655440000 failed", "req 6ba7b810-9dad-11d1-80b4-00c04fd430c8 failed"),
        ("commit deadbeef1 missing", "commit 0123456789abcdef missing"),
        ("order 1234567 late", "order 7654321 late"),
        ("at 2026-11-22T03:16:37.837Z", "at 2026-11-22T03:18:00+01:00"),
        ("open /tmp/tmpab12/x.txt", "open /tmp/tmpcd34/y.txt"),
        ("open /private/var/folders/a/b", "open /private/var/folders/c/d"),
        (r"open C:\Users\x\AppData\Local\Temp\a.txt", r"open C:\Users\x\AppData\Local\Temp\b.txt"),
        ("pointer 0x7f3a2b10", "pointer 0x7f3a2b18c0"),
    ],
)
def test_shapes_are_equal_where_only_an_id_differs(one: str, other: str) -> None:
    assert Hasher().shape(one) == Hasher().shape(other) != Hasher().text(one)


@given(
    st.lists(
        st.sampled_from(
            ["/tmp/x", "tmp", "/var/folders/ab", "\\Temp\\q", "\\tmp\\a", "/private/var/tmp/z", "deadbeef",
             "0xDEADBEEF", "12345", "123456", "2024-01-02T03:04", "2024-01-02", "é", "\ud800",
             "empty", "folder", " ", "-", "F"]
        ) | st.text("0123456789abcdefTtempxX/\\ -:", max_size=12),
        max_size=5,
    ).map("".join)
)  # fmt: skip
def test_no_text_is_taken_for_one_without_ids(text: str) -> None:
    assert masked(text) == _VOLATILE.sub("<id>", text)


@pytest.mark.parametrize(
    ("one", "other"),
    [("page 1", "page 2"), ("flight on 2024-05-20", "flight on 2024-05-21"), ("word", "ward"), ("v 12345", "v 12346")],
)
def test_shapes_differ_where_content_does(one: str, other: str) -> None:
    assert Hasher().shape(one) != Hasher().shape(other)


@pytest.mark.parametrize("unit", ["a", "1", "\\", "/tmp/", "0x", "2024-01-01T", "12345 ", "deadbeef-", "f"])
def test_shapes_take_linear_time(unit: str) -> None:
    def took(size: int) -> float:
        text = unit * (size // len(unit)) + "g"
        began = time.process_time()
        Hasher().shape(text)
        return time.process_time() - began

    assert took(400_000) < 0.5 + 40 * took(40_000)


def test_agent_version_is_every_clients() -> None:
    assert agent_version("You are a helpful assistant.", "gpt-4o", ["web_search", "calculator"]) == "6ddeb0c4"
    assert agent_version("", "unknown", []) == "4cf70175"
    assert len(agent_version("\ud800", "m", [])) == 8


class Colour(enum.Enum):
    RED = "red"


@dataclasses.dataclass
class Point:
    x: int
    y: Any


class Plain:
    def __init__(self, a: int) -> None:
        self.a = a


def test_canonical() -> None:
    assert canonical({"b": 1, "a": [True, None, 1.5, "é"]}) == '{"a":[true,null,1.5,"é"],"b":1}'
    assert canonical([float("nan"), float("inf")]) == "[null,null]"
    assert canonical({2: "x", None: "y"}) == '{"2":"x","null":"y"}'
    assert canonical({"s": {3, 1, 2}}) == canonical({"s": {2, 3, 1}})
    assert canonical(Colour.RED) == '"red"'
    assert canonical(Point(1, [2])) == canonical({"x": 1, "y": [2]})
    assert canonical((1, 2)) == canonical([1, 2])
    assert canonical(Plain(1)) == canonical(Plain(1)) != canonical(Plain(2))
    assert canonical(b"x") == canonical(bytearray(b"x")) != canonical(b"y")
    assert canonical(10**5000) == canonical(10**5000) != canonical(10**5000 + 1)


def test_canonical_text_parses_json_and_leaves_the_rest() -> None:
    assert canonical_text('{"b": 1,\n "a": 2}') == canonical({"a": 2, "b": 1})
    for text in ("plain", "", "{'a': 1}", "[" * 100_000, "1" * 5000):
        assert canonical_text(text) == text


def test_a_snapshot_is_out_of_reach_of_later_changes() -> None:
    value: dict[str, Any] = {"a": [1, {"b": 2}]}
    taken = snapshot(value)
    value["a"][1]["b"] = 3
    assert taken == {"a": [1, {"b": 2}]}


def test_large_deep_and_circular_values_are_bounded() -> None:
    circle: list[Any] = []
    circle.append(circle)
    deep: Any = 1
    for _ in range(50_000):
        deep = {"k": deep}
    wide = list(range(200_000))
    for value in (circle, deep, wide, {str(i): i for i in wide}, [wide] * 100):
        assert len(canonical(value)) < 1_000_000
    other = [*wide[:-1], 0]
    assert canonical(wide) != canonical(other) != canonical(wide[:-1])


@given(
    st.recursive(
        st.none()
        | st.booleans()
        | st.integers(-(2**60), 2**60)
        | st.floats(allow_nan=False, allow_infinity=False)
        | st.text(),
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
        max_leaves=12,
    )
)
def test_json_survives_its_canonical_form(value: Any) -> None:
    assert json.loads(canonical(value)) == value
    assert canonical_text(json.dumps(value)) == canonical(value)
