"""A support agent, driven by our SDK: it answers a question with a search, and a hard one with the same search again
and again, unless its prompt says how often it may. A prompt that holds the fix is all it takes to mend it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Self

from dunetrace import Dunetrace
from tests.e2e.crashing import PATIENCE_S
from tests.models import FIX

AGENT, MODEL, TOOL = "support", "gpt-4o", "search"
EASY, HARD = "When do you open?", "Where is my parcel?"


class Support:
    """`prompt` is asked for the system prompt before each run, as agents ask their prompts' store."""

    def __init__(self, endpoint: str, prompt: Callable[[], str], *, api_key: str | None = None) -> None:
        self._dt = Dunetrace(endpoint, api_key, flush_interval_ms=20)
        self._prompt = prompt

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._dt.shutdown()

    def answer(self, question: str) -> str:
        """One run, from the question to the server's 202; its run_id."""
        prompt = self._prompt()
        searches = 3 if question.startswith(HARD) and FIX not in prompt else 1
        with self._dt.run(AGENT, user_input=question, system_prompt=prompt, model=MODEL, tools=[TOOL]) as run:
            for n in range(searches):
                run.llm_called(MODEL, prompt_tokens=400)
                run.llm_responded(completion_tokens=12, finish_reason="tool_calls", output=f"I look up: {question}")
                run.tool_called(TOOL, {"q": question})
                run.tool_responded(TOOL, output=f"page {n}: nothing about {question}")
            run.llm_called(MODEL, prompt_tokens=450)
            run.llm_responded(completion_tokens=30, finish_reason="stop", output=f"Nobody knows. {question}")
            run.final_answer()
        assert self._dt.flush(PATIENCE_S), self._dt.stats()
        return run.run_id
