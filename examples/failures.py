"""Every kind of failure Dunetrace finds, one small run each: what it looks like when an agent goes wrong.

    python examples/failures.py [--endpoint http://127.0.0.1:8001] [TOOL_LOOP SLOW_STEP ...]

Without names it plays them all. STEP_COUNT_INFLATION plays ten ordinary runs first, for a run is only long beside
others; GOAL_ABANDONMENT leaves its run open, and shows once that was silent for the stall timeout (90 seconds).
"""

from __future__ import annotations

import argparse
import os
import random
from collections.abc import Callable
from contextlib import suppress
from contextvars import copy_context

import basic_agent
from fleet import BILLING, RESEARCH, SUPPORT, research, search_knowledge

from dunetrace import Dunetrace

Behaviour = Callable[[Dunetrace, random.Random], None]
ORDINARY_RUNS = 10  # completed runs a baseline needs
SETTLE_S = 20.0  # how long they may take to arrive


class CardDeclinedError(Exception):
    """What the payment provider says, and the agent doesn't catch."""


def thrashing(dt: Dunetrace, rng: random.Random) -> None:
    """Searches, opens a page, searches the same again, opens the same page again, and so on."""
    with RESEARCH.run(dt, rng) as run:
        for _ in range(4):
            for tool, query in (("web_search", "bridge cost"), ("read_page", "page 1")):
                RESEARCH.think(run, rng)
                run.tool_called(tool, {"query": query})
                run.tool_responded(tool, output=f"the same result for {query}")
        RESEARCH.answer(run, rng)


def avoidance(dt: Dunetrace, rng: random.Random) -> None:
    """Is asked about an order, and answers from thin air: both tools stay unused."""
    with SUPPORT.run(dt, rng, "Where is my order A-1001?") as run:
        SUPPORT.think(run, rng, "stop")
        SUPPORT.answer(run, rng)


def abandonment(dt: Dunetrace, rng: random.Random) -> None:
    """Uses a tool, then only talks to itself, and is never heard of again."""
    # in a context of its own: the next run of this thread must not open inside the one that is left open
    copy_context().run(_left_open, dt, rng)


def _left_open(dt: Dunetrace, rng: random.Random) -> None:
    run = BILLING.run(dt, rng).__enter__()
    BILLING.think(run, rng)
    BILLING.use(run, rng, "list_payments")
    for _ in range(4):
        BILLING.think(run, rng, "stop")


def empty_retrieval(dt: Dunetrace, rng: random.Random) -> None:
    """Finds nothing in the knowledge base, and writes its summary all the same."""
    with RESEARCH.run(dt, rng, "What did the board decide in March?") as run:
        RESEARCH.think(run, rng)
        search_knowledge(run, rng, 0, None)
        RESEARCH.answer(run, rng)


def truncation(dt: Dunetrace, rng: random.Random) -> None:
    """Asks for a summary that doesn't fit the token limit, three times over."""
    with RESEARCH.run(dt, rng) as run:
        RESEARCH.think(run, rng)
        RESEARCH.use(run, rng, "read_page")
        for _ in range(3):
            RESEARCH.think(run, rng, "length", completion_tokens=1024)
        RESEARCH.answer(run, rng)


def context_bloat(dt: Dunetrace, rng: random.Random) -> None:
    """Pastes every page it reads into the next prompt."""
    with RESEARCH.run(dt, rng) as run:
        for turn, tool in enumerate((*RESEARCH.tools, "read_page")):
            RESEARCH.think(run, rng, prompt_tokens=1_200 + 2_900 * turn)
            RESEARCH.use(run, rng, tool)
        RESEARCH.think(run, rng, "stop", prompt_tokens=13_400)
        run.final_answer()


def slow_step(dt: Dunetrace, rng: random.Random) -> None:
    """One page takes 48 seconds to load. (The time is told, not spent.)"""
    with RESEARCH.run(dt, rng) as run:
        RESEARCH.think(run, rng)
        run.tool_called("read_page", {"query": "a slow archive"})
        run.tool_responded("read_page", output="the archive's page", latency_ms=48_000)
        RESEARCH.answer(run, rng)


def retry_storm(dt: Dunetrace, rng: random.Random) -> None:
    """The ledger is down, and the agent tries and tries."""
    with BILLING.run(dt, rng) as run:
        BILLING.think(run, rng)
        BILLING.use(run, rng, "list_payments")
        for _ in range(5):
            BILLING.fail(run, rng, "post_match", "503 from the ledger")
        BILLING.answer(run, rng)


def cascade(dt: Dunetrace, rng: random.Random) -> None:
    """The network is gone: one tool fails, then the next, then the first again."""
    with BILLING.run(dt, rng) as run:
        BILLING.think(run, rng)
        for tool in ("list_payments", "find_invoice", "post_match", "list_payments"):
            BILLING.fail(run, rng, tool, "connection refused")
            BILLING.think(run, rng)
        BILLING.answer(run, rng)


def empty_response(dt: Dunetrace, rng: random.Random) -> None:
    """The model is done, it says, and has said nothing."""
    with SUPPORT.run(dt, rng) as run:
        SUPPORT.think(run, rng)
        basic_agent.call_tool(run, "lookup_order", order_id="A-1002")
        run.llm_called(SUPPORT.model, prompt_tokens=640)
        run.llm_responded(finish_reason="stop", output="")
        run.final_answer()


def first_step(dt: Dunetrace, rng: random.Random) -> None:
    """The very first tool call raises, and nobody catches it."""
    with suppress(CardDeclinedError), BILLING.run(dt, rng) as run:
        BILLING.think(run, rng)
        BILLING.fail(run, rng, "list_payments", "card declined")
        raise CardDeclinedError


def brooding(dt: Dunetrace, rng: random.Random) -> None:
    """Thinks and thinks, and acts once."""
    with BILLING.run(dt, rng) as run:
        BILLING.think(run, rng)
        BILLING.use(run, rng, "list_payments")
        for _ in range(9):
            BILLING.think(run, rng, "other")
        BILLING.answer(run, rng)


def endless_research(dt: Dunetrace, rng: random.Random) -> None:
    """Gets there, but with several times the steps a research run normally takes."""
    with RESEARCH.run(dt, rng) as run:
        for turn in range(10):
            RESEARCH.think(run, rng)
            RESEARCH.use(run, rng, RESEARCH.tools[turn % 3])
        RESEARCH.answer(run, rng)


FAILURES: dict[str, Behaviour] = {
    "TOOL_LOOP": basic_agent.loop,
    "TOOL_THRASHING": thrashing,
    "TOOL_AVOIDANCE": avoidance,
    "GOAL_ABANDONMENT": abandonment,
    "PROMPT_INJECTION_SIGNAL": basic_agent.injection,
    "RAG_EMPTY_RETRIEVAL": empty_retrieval,
    "LLM_TRUNCATION_LOOP": truncation,
    "CONTEXT_BLOAT": context_bloat,
    "SLOW_STEP": slow_step,
    "RETRY_STORM": retry_storm,
    "EMPTY_LLM_RESPONSE": empty_response,
    "STEP_COUNT_INFLATION": endless_research,
    "CASCADING_TOOL_FAILURE": cascade,
    "FIRST_STEP_FAILURE": first_step,
    "REASONING_STALL": brooding,
}


def main() -> None:
    parser = argparse.ArgumentParser(description="One run for each kind of failure.")
    default = os.environ.get("DUNETRACE_ENDPOINT", "http://127.0.0.1:8001")
    parser.add_argument("--endpoint", default=default, help="the ingest address of the server (%(default)s)")
    parser.add_argument("types", nargs="*", metavar="TYPE", help="which failures to play (all)")
    options = parser.parse_args()
    unknown = set(options.types) - set(FAILURES)
    if unknown:
        parser.error(f"unknown type {', '.join(sorted(unknown))}; there are {', '.join(FAILURES)}")
    dt = Dunetrace(options.endpoint)
    rng = random.Random()
    for failure_type in options.types or FAILURES:
        if failure_type == "STEP_COUNT_INFLATION":
            for _ in range(ORDINARY_RUNS):
                research(dt, rng)
            dt.flush(SETTLE_S)
        FAILURES[failure_type](dt, rng)
        print(f"{failure_type}: played")
    if not dt.flush(10):
        raise SystemExit(f"{options.endpoint} did not take every event; is the server running there?")
    dt.shutdown()


if __name__ == "__main__":
    main()
