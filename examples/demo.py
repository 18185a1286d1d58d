"""A small fleet of example agents, so that the page has something to show. `python -m dunetrace --demo` starts it.

First a burst of about forty runs, mostly healthy; then, with ``--forever``, one more run every few seconds, until
SIGTERM, Ctrl-C or the end of the process that started it.

    python examples/demo.py --endpoint http://127.0.0.1:8001 [--forever] [--seed 7]
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass

import basic_agent

from dunetrace import Dunetrace, RunContext

PARENT_LOOK_S = 0.5  # how often it looks whether the process that started it is still there
SETTLE_S = 0.8  # the server learns what is normal from the healthy runs before the long run comes
BETWEEN_RUNS_S = (2.0, 6.0)
Behaviour = Callable[[Dunetrace, random.Random], None]


@dataclass(frozen=True)
class Agent:
    """What an agent is and what it is asked to do. A played model thinks about `thinking_s` seconds at a time."""

    name: str
    model: str
    system_prompt: str
    tools: tuple[str, ...]
    tasks: tuple[str, ...]
    thinking_s: float = 0.02

    def run(self, dt: Dunetrace, rng: random.Random) -> AbstractContextManager[RunContext]:
        return dt.run(
            self.name,
            user_input=rng.choice(self.tasks),
            system_prompt=self.system_prompt,
            model=self.model,
            tools=list(self.tools),
        )

    def think(self, run: RunContext, rng: random.Random, finish_reason: str = "tool_calls") -> None:
        run.llm_called(self.model, prompt_tokens=rng.randint(400, 900))
        time.sleep(rng.uniform(0.5, 1.5) * self.thinking_s)
        run.llm_responded(
            completion_tokens=rng.randint(30, 120), finish_reason=finish_reason, output=f"thought {rng.random()}"
        )

    def use(self, run: RunContext, rng: random.Random, tool: str) -> None:
        run.tool_called(tool, {"query": f"item {rng.random()}"})
        time.sleep(rng.uniform(0.2, 0.8) * self.thinking_s)
        run.tool_responded(tool, output=f"result {rng.random()}")


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


def research(dt: Dunetrace, rng: random.Random) -> None:
    """Searches the knowledge base, reads two pages, notes, answers."""
    with RESEARCH.run(dt, rng) as run:
        RESEARCH.think(run, rng)
        run.retrieval_called("knowledge-base", query=f"sources {rng.random()}")
        run.retrieval_responded("knowledge-base", rng.randint(3, 8), top_score=round(rng.uniform(0.6, 0.9), 2))
        for tool in ("web_search", "read_page", "take_note")[: rng.randint(2, 3)]:
            RESEARCH.think(run, rng)
            RESEARCH.use(run, rng, tool)
        RESEARCH.think(run, rng, "stop")
        run.final_answer()


def endless_research(dt: Dunetrace, rng: random.Random) -> None:
    """Gets there, but with several times the steps a research run normally takes."""
    with RESEARCH.run(dt, rng) as run:
        for turn in range(10):
            RESEARCH.think(run, rng)
            RESEARCH.use(run, rng, RESEARCH.tools[turn % 3])
        RESEARCH.think(run, rng, "stop")
        run.final_answer()


def brooding(dt: Dunetrace, rng: random.Random) -> None:
    """Thinks and thinks, and acts once."""
    with BILLING.run(dt, rng) as run:
        BILLING.think(run, rng)
        BILLING.use(run, rng, "list_payments")
        for _ in range(9):
            BILLING.think(run, rng, "other")
        run.final_answer()


def billing(dt: Dunetrace, rng: random.Random) -> None:
    """Lists, finds, matches, answers; now and then an invoice is missing and is found at the second try."""
    with BILLING.run(dt, rng) as run:
        BILLING.think(run, rng)
        BILLING.use(run, rng, "list_payments")
        BILLING.think(run, rng)
        if rng.random() < 0.3:
            run.tool_called("find_invoice", {"number": rng.randint(1, 999)})
            run.tool_responded("find_invoice", success=False, error="no such invoice")
            BILLING.think(run, rng)
        BILLING.use(run, rng, "find_invoice")
        BILLING.use(run, rng, "post_match")
        BILLING.think(run, rng, "stop")
        run.final_answer()


def posting_fails(dt: Dunetrace, rng: random.Random) -> None:
    """The ledger is closed: the run ends with an error."""
    with suppress(LedgerClosedError), BILLING.run(dt, rng) as run:
        BILLING.think(run, rng)
        BILLING.use(run, rng, "list_payments")
        run.tool_called("post_match", {"number": rng.randint(1, 999)})
        run.tool_responded("post_match", success=False, error="ledger closed")
        post_match()


class LedgerClosedError(Exception):
    """The month's ledger takes no more entries."""


def post_match() -> None:
    raise LedgerClosedError("ledger closed")


BURST: tuple[Behaviour, ...] = (
    *(research,) * 14, *(billing,) * 9, *(basic_agent.healthy,) * 9, posting_fails,
    basic_agent.loop, basic_agent.injection, brooding,
)  # fmt: skip
AFTER_BURST: tuple[Behaviour, ...] = (endless_research, basic_agent.loop, basic_agent.healthy, research)
STEADY = (*BURST, endless_research, basic_agent.loop, basic_agent.loop, brooding)


def burst(dt: Dunetrace, rng: random.Random, stop: threading.Event) -> None:
    """About forty runs in two to three seconds."""
    first = list(BURST)
    rng.shuffle(first)
    for part in (first, list(AFTER_BURST)):
        with ThreadPoolExecutor(8) as pool:
            running = [pool.submit(behaviour, dt, random.Random(rng.random())) for behaviour in part]
        for run in running:
            run.result()  # raises what the run raised
        dt.flush(5)
        if stop.wait(SETTLE_S):
            return


def steady(dt: Dunetrace, rng: random.Random, stop: threading.Event) -> None:
    """One run after the other, until told to stop."""
    while not stop.wait(rng.uniform(*BETWEEN_RUNS_S)):
        rng.choice(STEADY)(dt, rng)


def stop_when_left_alone(parent: int, stop: threading.Event) -> None:
    """Sets `stop` once the process that started this one is gone, however it ended."""
    while not stop.wait(PARENT_LOOK_S):
        if os.getppid() != parent:
            stop.set()


def main() -> None:
    parser = argparse.ArgumentParser(description="A small fleet of example agents.")
    parser.add_argument("--endpoint", default=os.environ.get("DUNETRACE_ENDPOINT", "http://127.0.0.1:8001"))
    parser.add_argument("--forever", action="store_true", help="go on after the first burst of runs")
    parser.add_argument("--parent", type=int, default=os.getppid(), help="stop when this process is gone (its parent)")
    parser.add_argument("--seed", type=int, default=None, help="the same seed makes the same runs")
    options = parser.parse_args()
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    threading.Thread(target=stop_when_left_alone, args=(options.parent, stop), daemon=True).start()
    rng = random.Random(options.seed)
    dt = Dunetrace(options.endpoint)
    burst(dt, rng, stop)
    if options.forever:
        steady(dt, rng, stop)
    dt.shutdown(2)


if __name__ == "__main__":
    main()
