"""Two more example agents beside the one of basic_agent.py, and what they do when all goes well.

Used by failures.py and demo.py. Nothing leaves this machine: models and tools are played by plain code.
"""

from __future__ import annotations

import random
import time
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass

import basic_agent

from dunetrace import Dunetrace, RunContext


@dataclass(frozen=True)
class Agent:
    """What an agent is and what it is asked to do. A played model thinks about `thinking_s` seconds at a time."""

    name: str
    model: str
    system_prompt: str
    tools: tuple[str, ...]
    tasks: tuple[str, ...]
    thinking_s: float = 0.02

    def run(self, dt: Dunetrace, rng: random.Random, user_input: str = "") -> AbstractContextManager[RunContext]:
        return dt.run(
            self.name,
            user_input=user_input or rng.choice(self.tasks),
            system_prompt=self.system_prompt,
            model=self.model,
            tools=list(self.tools),
        )

    def think(
        self,
        run: RunContext,
        rng: random.Random,
        finish_reason: str = "tool_calls",
        *,
        prompt_tokens: int | None = None,
        completion_tokens: int | None = None,
    ) -> None:
        """One call of the model that ends with `finish_reason`."""
        run.llm_called(self.model, prompt_tokens=prompt_tokens or rng.randint(400, 900))
        time.sleep(rng.uniform(0.5, 1.5) * self.thinking_s)
        run.llm_responded(
            completion_tokens=completion_tokens or rng.randint(30, 120),
            finish_reason=finish_reason,
            output=f"thought {rng.random()}",
        )

    def answer(self, run: RunContext, rng: random.Random) -> None:
        self.think(run, rng, "stop")
        run.final_answer()

    def use(self, run: RunContext, rng: random.Random, tool: str, query: str | None = None) -> None:
        """A call of `tool` that brings something new."""
        run.tool_called(tool, {"query": query or f"item {rng.random()}"})
        time.sleep(rng.uniform(0.2, 0.8) * self.thinking_s)
        run.tool_responded(tool, output=f"result {rng.random()}")

    def fail(self, run: RunContext, rng: random.Random, tool: str, error: str) -> None:
        """A call of `tool` that fails with `error`."""
        run.tool_called(tool, {"query": f"item {rng.random()}"})
        time.sleep(rng.uniform(0.2, 0.8) * self.thinking_s)
        run.tool_responded(tool, success=False, error=error)


SUPPORT = Agent(
    basic_agent.AGENT,
    basic_agent.MODEL,
    basic_agent.SYSTEM_PROMPT,
    tuple(basic_agent.TOOLS),
    ("Where is my order A-1002?", "Can I still add gift wrapping?", "My parcel is late"),
)
RESEARCH = Agent(
    "research-agent",
    "claude-sonnet-4",
    "You collect sources on a question, read them and write a summary with citations.",
    ("web_search", "read_page", "take_note"),
    ("Compare three bridge designs", "Who invented the zip?", "Summarise this year's harvest reports"),
)
BILLING = Agent(
    "billing-agent",
    "gpt-4o-mini",
    "You match payments with invoices and tell the accountant what does not fit.",
    ("list_payments", "find_invoice", "post_match"),
    ("Match the payments of Monday", "Match the payments of Tuesday", "Match the payments of Friday"),
)


def search_knowledge(run: RunContext, rng: random.Random, found: int, top_score: float | None) -> None:
    """One search of the vector index."""
    run.retrieval_called("knowledge-base", query=f"sources {rng.random()}")
    run.retrieval_responded("knowledge-base", found, top_score=top_score)


def research(dt: Dunetrace, rng: random.Random) -> None:
    """Searches the knowledge base, reads two pages, notes, answers."""
    with RESEARCH.run(dt, rng) as run:
        RESEARCH.think(run, rng)
        search_knowledge(run, rng, rng.randint(3, 8), round(rng.uniform(0.6, 0.9), 2))
        for tool in RESEARCH.tools[: rng.randint(2, 3)]:
            RESEARCH.think(run, rng)
            RESEARCH.use(run, rng, tool)
        RESEARCH.answer(run, rng)


def billing(dt: Dunetrace, rng: random.Random) -> None:
    """Lists, finds, matches, answers; now and then an invoice is missing and is found at the second try."""
    with BILLING.run(dt, rng) as run:
        BILLING.think(run, rng)
        BILLING.use(run, rng, "list_payments")
        BILLING.think(run, rng)
        if rng.random() < 0.3:
            BILLING.fail(run, rng, "find_invoice", "no such invoice")
            BILLING.think(run, rng)
        BILLING.use(run, rng, "find_invoice")
        BILLING.use(run, rng, "post_match")
        BILLING.answer(run, rng)


class LedgerClosedError(Exception):
    """The month's ledger takes no more entries."""


def posting_fails(dt: Dunetrace, rng: random.Random) -> None:
    """The ledger is closed: the run ends with an error after some work. An error alone is no failure of the agent."""
    with suppress(LedgerClosedError), BILLING.run(dt, rng) as run:
        BILLING.think(run, rng)
        BILLING.use(run, rng, "list_payments")
        BILLING.think(run, rng)
        BILLING.fail(run, rng, "post_match", "ledger closed")
        raise LedgerClosedError("ledger closed")
