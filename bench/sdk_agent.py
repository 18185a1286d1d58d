"""An agent's thread, timed: run by `bench.sdk` under any client's interpreter, ours or a published one.

Reads commands on stdin, a line each: ``runs N`` times N runs of 22 events one by one, ``large N`` N runs with 1 MB of
input. Answers with the nanoseconds of each on one line. Uses only what all clients have in common.
"""

import json
import sys
import time
from typing import Any

from dunetrace import Dunetrace

PAUSE_S = 0.002  # between runs: an agent waits for its model, and the drain thread has its turn
PROMPT = "You help customers of a shop with their orders, politely and briefly. " * 20
QUESTION = "Where is my order, and can I still change its address? " * 10
ARGUMENTS = {"query": "order 4711 status", "limit": 5, "filters": {"open": True, "since": "2024-05-01"}}
LARGE = "a long document, pasted by the user; " * 28_340


def usual(dt: Any) -> None:
    """22 events."""
    with dt.run(
        "bench-agent", user_input=QUESTION, system_prompt=PROMPT, model="gpt-4o", tools=["search", "read", "write"]
    ) as run:
        for turn in range(5):
            run.llm_called("gpt-4o", prompt_tokens=900 + turn)
            run.llm_responded(completion_tokens=80, latency_ms=812, finish_reason="tool_calls", output_length=300)
            run.tool_called("search", dict(ARGUMENTS, page=turn))
            run.tool_responded("search", success=True, output_length=512, latency_ms=40)
        run.final_answer()


def large(dt: Any) -> None:
    """A run whose input is 1 MB."""
    with dt.run("bench-agent", user_input=LARGE, model="gpt-4o") as run:
        run.final_answer()


def main() -> None:
    dt = Dunetrace(endpoint=sys.argv[1])
    work = {"runs": usual, "large": large}
    for line in sys.stdin:
        name, count = line.split()
        took_ns = []
        for _ in range(int(count)):
            began_ns = time.perf_counter_ns()
            work[name](dt)
            took_ns.append(time.perf_counter_ns() - began_ns)
            time.sleep(PAUSE_S)
        print(json.dumps(took_ns), flush=True)


if __name__ == "__main__":
    main()
