"""What an agent does, in the arguments that the client in hand takes. Used by `agents.py`, in the client's process."""

from __future__ import annotations

import sys
from typing import Any

MODEL = "gpt-4o"


class Agent:
    """What an agent does, said in the arguments this client takes."""

    takes_content = "--content" in sys.argv

    def __init__(self, run: Any) -> None:
        self.run = run

    def think(self, finish: str = "tool_calls", text: str = "let me see", **counts: int) -> None:
        told: dict[str, Any] = {"output": text} if self.takes_content else {"output_length": len(text)}
        told |= {"completion_tokens": counts.get("tokens", 12), "latency_ms": counts.get("took_ms", 30)}
        self.run.llm_called(MODEL, prompt_tokens=counts.get("prompt", 400))
        self.run.llm_responded(finish_reason=finish, **told)

    def use(self, tool: str, argument: object, found: str = "something", *, took_ms: int = 4, error: str = "") -> None:
        self.run.tool_called(tool, {"q": argument})
        told: dict[str, Any] = {"error": error} if error else {"output_length": len(found)}
        if self.takes_content and not error:
            told = {"output": found}
        self.run.tool_responded(tool, success=not error, latency_ms=took_ms, **told)

    def retrieve(self, count: int, score: float | None) -> None:
        asked = {"query": "late parcels"} if self.takes_content else {"query_hash": "3b6c5b4537d53e44"}
        self.run.retrieval_called("articles", **asked)
        told = {"content": "an article" * count} if self.takes_content else {}
        self.run.retrieval_responded("articles", result_count=count, top_score=score, latency_ms=6, **told)

    def step(self, tool: str, argument: object, found: str = "something", **told: Any) -> None:
        self.think()
        self.use(tool, argument, found, **told)

    def answer(self, text: str = "here is what you asked for") -> None:
        self.think("stop", text)
        self.run.final_answer()
