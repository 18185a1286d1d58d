"""What pieces of answers say, also those of other providers that speak a protocol in their own way."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dunetrace.sdk.instrument import answers
from dunetrace.sdk.instrument.answers import Answer, Said, field
from dunetrace.sdk.instrument.anthropic import MessagePieces
from dunetrace.sdk.instrument.openai import ChatPieces, ResponsePieces

KINDS = (ChatPieces, ResponsePieces, MessagePieces)
KEYS = st.sampled_from(
    ["choices", "message", "delta", "content", "text", "type", "object", "output", "usage", "status", "finish_reason",
     "prompt_tokens", "input_tokens", "stop_reason", "tool_calls", "content_block", "response", "error"]
)  # fmt: skip
WORDS = st.sampled_from(
    ["message", "text", "response", "response.completed", "response.output_text.delta", "message_start", "error",
     "message_delta", "content_block_start", "content_block_delta", "completed", "incomplete", "failed", "stop", "x"]
)  # fmt: skip
PIECES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | WORDS | st.binary(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=12,
)


class Extra(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="allow")
    declared: int = 1


@pytest.mark.parametrize("value", [Extra(extra=2), SimpleNamespace(declared=1, extra=2), {"declared": 1, "extra": 2}])
def test_a_field_wherever_it_is_kept(value: Any) -> None:
    assert field(value, "declared") == 1
    assert field(value, "extra") == 2
    assert field(value, "missing") is None
    assert field(value, "declared", "deeper") is None
    assert field({"in": value}, "in", "extra") == 2


@pytest.mark.parametrize("value", [None, 7, "text", [1], object()])
def test_no_field_of_what_has_none(value: object) -> None:
    assert field(value, "anything", "more") is None


@given(pieces=st.lists(PIECES, max_size=4))
def test_pieces_of_any_shape_leave_an_answer(pieces: list[Any]) -> None:
    """Taking one may fail, which costs a debug line; what is known by then is still told."""
    for kind in KINDS:
        taken = kind()
        for piece in pieces:
            try:
                taken.take(piece)
            except (TypeError, ValueError, AttributeError):
                continue
        answer = taken.answer()
        assert isinstance(answer, Answer)
        assert answer.text is None or answer.length == len(answer.text)


def test_content_in_parts_is_not_empty() -> None:
    pieces = ChatPieces()
    message = {"role": "assistant", "content": [{"type": "image", "data": "…"}]}
    pieces.take({"choices": [{"index": 0, "finish_reason": "stop", "message": message}]})
    assert pieces.answer().length is None


def test_spoken_answers_have_their_transcript() -> None:
    pieces = ChatPieces()
    message = {"role": "assistant", "content": None, "audio": {"id": "a", "data": "…", "transcript": "Good day."}}
    pieces.take({"choices": [{"index": 0, "finish_reason": "stop", "message": message}]})
    assert pieces.answer().text == "Good day."


def test_a_very_long_answer_is_measured_and_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answers, "_MOST_CHARS", 10)
    said = Said()
    for _ in range(5):
        said.say("four")
    assert said.answer("stop") == Answer("stop", None, 20)


def test_thinking_is_not_said() -> None:
    pieces = MessagePieces()
    content = [{"type": "thinking", "thinking": "Hm."}, {"type": "text", "text": "Yes."}]
    pieces.take({"type": "message", "content": content, "stop_reason": "end_turn", "usage": {}})
    assert pieces.answer().text == "Yes."


def test_a_search_of_the_providers_own_is_not_empty() -> None:
    pieces = MessagePieces()
    content = [{"type": "server_tool_use", "id": "s", "name": "web_search", "input": {}}]
    pieces.take({"type": "message", "content": content, "stop_reason": "end_turn", "usage": {}})
    assert pieces.answer() == Answer("end_turn")
