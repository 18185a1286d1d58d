"""A fix in a prompt: where it goes, that it is found again, and that taking it out gives back what was."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from dunetrace.fixes.prompts import Prompt

FIX = "Search at most twice."
SYSTEM, USER = {"role": "system", "content": "Be kind."}, {"role": "user", "content": "{{question}}"}
HISTORY = {"type": "placeholder", "name": "history"}


def test_a_text_prompt_gets_a_paragraph() -> None:
    prompt = Prompt("p", 3, "Be kind.", labels=["production"], tags=["t"], config={"a": 1})
    fixed = prompt.with_fix(FIX)
    assert fixed.prompt == "Be kind.\n\nSearch at most twice."
    assert (fixed.labels, fixed.tags, fixed.config, fixed.type) == (["production"], ["t"], {"a": 1}, "text")
    assert Prompt("p", 1, "").with_fix(FIX).prompt == FIX


def test_a_chat_prompt_gets_it_in_its_last_system_message() -> None:
    other = {"role": "system", "content": "Be brief.", "type": "chatmessage"}
    prompt = Prompt("p", 1, [SYSTEM, HISTORY, other, USER], type="chat")
    fixed = prompt.with_fix(FIX)
    assert fixed.prompt == [SYSTEM, HISTORY, {**other, "content": f"Be brief.\n\n{FIX}"}, USER]
    assert prompt.prompt == [SYSTEM, HISTORY, other, USER]
    assert (prompt.text, fixed.text) == ("Be brief.", f"Be brief.\n\n{FIX}")


def test_a_chat_prompt_without_one_gets_a_system_message_first() -> None:
    fixed = Prompt("p", 1, [HISTORY, USER], type="chat").with_fix(FIX)
    assert fixed.prompt == [{"role": "system", "content": FIX}, HISTORY, USER]


def test_a_fix_is_found_as_a_paragraph_only() -> None:
    for text in (FIX, f"a\n\n{FIX}", f"{FIX}\n\nb", f"a\n\n{FIX}\n\nb"):
        assert Prompt("p", 1, text).holds(FIX), text
    for text in ("", f"a {FIX}", f"{FIX} b", f"a\n{FIX}", FIX[:-1]):
        assert not Prompt("p", 1, text).holds(FIX), text


texts = st.text(alphabet="ab\n .", max_size=20)
parts: Any = st.one_of(texts, st.lists(st.sampled_from([SYSTEM, USER, HISTORY]), max_size=4))


@given(parts, texts.map(str.strip).filter(bool))
def test_what_was_put_in_is_held_and_comes_out_again(prompt: Any, fix: str) -> None:
    before = Prompt("p", 1, prompt, type="text" if isinstance(prompt, str) else "chat")
    after = before.with_fix(fix)
    assert after.holds(fix)
    if not before.holds(fix):
        assert after.without(fix) == before.text
