"""A small fleet of example agents, so that the page has something to show. `python -m dunetrace --demo` starts it.

First a burst of about fifty runs, most of them healthy and one for each kind of failure; then, with ``--forever``, one
more run every few seconds, until SIGTERM, Ctrl-C or the end of the process that started it.

    python examples/demo.py --endpoint http://127.0.0.1:8001 [--forever] [--seed 7]
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import threading
from concurrent.futures import ThreadPoolExecutor

import basic_agent
from failures import FAILURES, Behaviour
from fleet import billing, posting_fails, research

from dunetrace import Dunetrace

PARENT_LOOK_S = 0.5  # how often it looks whether the process that started it is still there
SETTLE_S = 0.8  # the server learns what is normal from the healthy runs before the long run comes
BETWEEN_RUNS_S = (2.0, 6.0)

HEALTHY: tuple[Behaviour, ...] = (*(research,) * 14, *(billing,) * 9, *(basic_agent.healthy,) * 9, posting_fails)
# a run is only long beside others, so the healthy ones are judged first
AFTER_BURST: tuple[Behaviour, ...] = (FAILURES["STEP_COUNT_INFLATION"], basic_agent.loop, basic_agent.healthy, research)
BURST = (*HEALTHY, *(failure for failure in FAILURES.values() if failure not in AFTER_BURST))
STEADY = (*HEALTHY, *FAILURES.values(), basic_agent.loop, basic_agent.loop)


def burst(dt: Dunetrace, rng: random.Random, stop: threading.Event) -> None:
    """About fifty runs in two to three seconds."""
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
