"""``python -m bench.sdk``: what the SDK costs an agent's thread, beside the published clients, alternating in one run.

Each client is a process of its own under its own interpreter, all post to one sink in another process that answers at
once, and their rounds take turns. Published clients are installed once, into the checkout's cache, and only run.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from multiprocessing.connection import Connection
from typing import IO, cast

from dunetrace import Dunetrace
from tests.published import python_of
from tests.shared import CHECKOUT

AGENT = CHECKOUT / "bench" / "sdk_agent.py"
PUBLISHED = ("0.3.9", "0.5.7")
OURS = "this one"
ROUNDS, RUNS, LARGE_RUNS = 15, 100, 5
EMITTED = 20_000  # events a round of `_emit` alone
IMPORTS = 20


class _Sink(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", "0")))
        self._answer(202, b'{"accepted":1,"batch_id":"00000000-0000-4000-8000-000000000000","queued_at":1.0}')

    def do_GET(self) -> None:
        self._answer(200, b'{"policies":[]}')

    def _answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Nothing on the console."""


def _serve(pipe: Connection) -> None:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Sink)
    server.daemon_threads = True
    pipe.send(server.server_port)
    server.serve_forever()


@contextmanager
def sink() -> Iterator[str]:
    """The URL of a server that takes everything."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(theirs,), daemon=True)
    process.start()
    try:
        yield f"http://127.0.0.1:{ours.recv()}"
    finally:
        process.kill()
        process.join()


class Agent:
    """A client in its own process; `ask` gives nanoseconds."""

    def __init__(self, python: str, url: str, *, from_checkout: bool) -> None:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("DUNETRACE_")}
        environment["PYTHONPATH"] = str(CHECKOUT) if from_checkout else ""
        self._process = subprocess.Popen(
            [python, str(AGENT), url], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            env=environment, cwd="/", text=True,
        )  # fmt: skip

    def ask(self, what: str, count: int) -> list[int]:
        stdin, stdout = cast("IO[str]", self._process.stdin), cast("IO[str]", self._process.stdout)
        stdin.write(f"{what} {count}\n")
        stdin.flush()
        took_ns: list[int] = json.loads(stdout.readline())
        return took_ns

    def __enter__(self) -> Agent:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()


def runs(url: str) -> Iterator[str]:
    """Lines of the table: a usual run, and a large one."""
    with ExitStack() as stack:
        agents = {OURS: stack.enter_context(Agent(sys.executable, url, from_checkout=True))}
        for version in PUBLISHED:
            agents[version] = stack.enter_context(Agent(str(python_of(version)), url, from_checkout=False))
        for what, words, rounds, count, asked in (
            ("runs", "a run of 22 events", ROUNDS, RUNS, "p50 ≤ 0.3.9, and ≥ 4 × faster than 0.5.7"),
            ("large", "a run with 1 MB of input", 3, LARGE_RUNS, "≤ 1 ms"),
        ):
            took_ns: dict[str, list[int]] = {name: [] for name in agents}
            for agent in agents.values():
                agent.ask(what, count)  # warm
            for _ in range(rounds):
                for name, agent in agents.items():
                    took_ns[name] += agent.ask(what, count)
            p50_us = {name: statistics.median(values) / 1000 for name, values in took_ns.items()}
            others = ", ".join(f"{v} {p50_us[v]:,.0f} µs ({p50_us[v] / p50_us[OURS]:.1f} ×)" for v in PUBLISHED)
            p99_us = statistics.quantiles(took_ns[OURS], n=100)[-1] / 1000
            seen = f"p50 {p50_us[OURS]:,.0f} µs, p99 {p99_us:,.0f}; {others}"
            yield f"| {words}, on the agent's thread | {asked} | {seen} |"


def emit(url: str) -> str:
    """`RunContext._emit` alone, with a drain thread and a ring that holds it all."""
    dt = Dunetrace(url, buffer_size=1_000_000)
    rounds_ns = []
    for _ in range(ROUNDS):
        with dt.run("bench-agent") as run:
            payload = {"model": "gpt-4o", "prompt_tokens": 900}
            emit_one = run._emit  # what is asked about is just this method
            began_ns = time.perf_counter_ns()
            for step in range(EMITTED):
                emit_one("llm.called", step, payload)
            rounds_ns.append((time.perf_counter_ns() - began_ns) / EMITTED)
        dt.flush(30)
    dt.shutdown()
    return f"| one event (`_emit`) | < 1 µs | p50 {statistics.median(rounds_ns):,.0f} ns, least {min(rounds_ns):,.0f} |"


def importing() -> str:
    """``from dunetrace import Dunetrace`` in fresh processes."""
    code = "import time; t = time.perf_counter(); from dunetrace import Dunetrace; print(time.perf_counter() - t)"
    environment = {**os.environ, "PYTHONPATH": str(CHECKOUT)}
    took_ms = [
        float(
            subprocess.run([sys.executable, "-S", "-c", code], env=environment, capture_output=True, check=True).stdout
        )
        * 1000
        for _ in range(IMPORTS)
    ]
    seen = f"p50 {statistics.median(took_ms):.0f} ms, most {max(took_ms):.0f}"
    return f"| `from dunetrace import Dunetrace` | ≤ 60 ms | {seen} |"


def main() -> None:
    argparse.ArgumentParser(description="What the SDK costs an agent.").parse_args()
    print("| what | asked | seen |\n|---|---|---|", flush=True)
    with sink() as url:
        for line in runs(url):
            print(line, flush=True)
        print(emit(url), flush=True)
    print(importing(), flush=True)


if __name__ == "__main__":
    main()
