"""``python -m bench.guard``: what the guard costs the agent's thread, an event.

One process, no output, so that nothing but the guard differs: runs without and with it in turn, in blocks. The digests
that the guard needs at once are counted as its cost, though with an output they spare the drain thread the same work.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections import deque
from collections.abc import Callable, Sequence

from dunetrace import Dunetrace, DunetraceSignal, RunContext

EVENTS_A_RUN = 22
ASKED_US = 10.0  # an event, over a normal run
LARGE_CHARS = 200_000

_told: deque[DunetraceSignal] = deque(maxlen=100)


def _turns(run: RunContext, turns: int, size: int = 0) -> None:
    """Four events a turn: the model is asked, asks for a tool, and gets something new each time."""
    for turn in range(turns):
        call = run.llm_called("gpt-4o", 900 + 40 * turn)
        run.llm_responded(60, finish_reason="tool_calls", output=f"Let me look at page {turn}.", call_id=call)
        call = run.tool_called("search", {"query": "flights to Lisbon in May", "page": turn, "limit": 20})
        found = f"page {turn}: " + "TP 1351 London Lisbon 09:40 EUR 120; " * 12 + "x" * size
        run.tool_responded("search", output=found, call_id=call)


def _normal(dt: Dunetrace) -> None:
    with dt.run(
        "bench", user_input="Find me a flight to Lisbon in May, please.", model="gpt-4o", tools=["search"]
    ) as run:
        _turns(run, 5)
        run.final_answer()


def _large(dt: Dunetrace) -> None:
    with dt.run("bench", user_input="And now something long.", model="gpt-4o", tools=["search"]) as run:
        _turns(run, 5, LARGE_CHARS)


def _looping(dt: Dunetrace) -> None:
    with dt.run("bench", model="gpt-4o", tools=["search"]) as run:
        for _ in range(10):
            call = run.tool_called("search", {"query": "the same"})
            run.tool_responded("search", output="the same", call_id=call)


def compare(name: str, play: Callable[[Dunetrace], None], runs: int, blocks: int) -> float:
    """Blocks of runs without and with the guard in turn; the line, and the guard's share in µs an event."""
    clients = [Dunetrace(None), Dunetrace(None, on_signal=_told.append)]
    for dt in clients:
        play(dt)
    spent: tuple[list[float], list[float]] = ([], [])
    for _ in range(blocks):
        for dt, took in zip(clients, spent, strict=True):
            began = time.perf_counter()
            for _ in range(runs):
                play(dt)
            took.append((time.perf_counter() - began) / runs / EVENTS_A_RUN * 1e6)
    off, on = map(statistics.median, spent)
    print(f"{name:<28}off {off:6.2f}   on {on:6.2f}   guard {on - off:6.2f} µs an event   ratio {on / off:.2f}")
    return on - off


def long_run(events: int) -> None:
    """One run of so many events: what one costs at its beginning and at its end."""
    dt = Dunetrace(None, on_signal=_told.append)
    part = events // 10
    took: list[float] = []
    with dt.run("bench", model="gpt-4o", tools=["search"]) as run:
        for _ in range(10):
            began = time.perf_counter()
            _turns(run, part // 4)
            took.append((time.perf_counter() - began) / part * 1e6)
    shown: Sequence[str] = [f"{us:.1f}" for us in took]
    print(f"one run of {events:,} events, µs an event on (everything), in tenths: {' '.join(shown)}")


def main() -> None:
    parser = argparse.ArgumentParser(description="What the guard costs the agent's thread.")
    parser.add_argument("--runs", type=int, default=200, help="a block (%(default)s)")
    parser.add_argument("--blocks", type=int, default=15, help="of each kind (%(default)s)")
    parser.add_argument("--events", type=int, default=100_000, help="of the long run (%(default)s)")
    asked = parser.parse_args()
    cost_us = compare("a normal run", _normal, asked.runs, asked.blocks)
    compare("a run that loops", _looping, asked.runs, asked.blocks)
    compare(f"outputs of {LARGE_CHARS:,} chars", _large, max(1, asked.runs // 20), asked.blocks)
    long_run(asked.events)
    print(f"asked: below {ASKED_US:g} µs an event over a normal run: {'met' if cost_us < ASKED_US else 'MISSED'}")


if __name__ == "__main__":
    main()
