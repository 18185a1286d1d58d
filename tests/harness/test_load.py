"""The load generator keeps an honest ledger, whatever the server answers."""

from __future__ import annotations

import json
import random
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import trio

from tests.harness.load import Ledger, drive
from tests.harness.shapes import SHAPES, Script, run_events


class Door(ThreadingHTTPServer):
    """Answers each body with the next of `answers` (None = hang up), the last one for ever; keeps what it took."""

    daemon_threads = True

    def __init__(self, *answers: dict[str, Any] | None) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answers = list(answers)
        self.taken: list[dict[str, Any]] = []
        self.seen: list[tuple[str, bytes]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    server: Door
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.seen.append((self.headers["Idempotency-Key"], body))
        answer = self.server.answers.pop(0) if len(self.server.answers) > 1 else self.server.answers[0]
        if answer is None:
            self.close_connection = True
            return
        if answer["status"] == 202:
            self.server.taken += json.loads(body)["events"]
        text = json.dumps(answer.get("body", {})).encode()
        self.send_response(answer["status"])
        if "retry_after" in answer:
            self.send_header("Retry-After", answer["retry_after"])
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *_: object) -> None:
        """Nothing on stderr."""


@contextmanager
def door(*answers: dict[str, Any] | None) -> Iterator[Door]:
    with Door(*answers) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


TAKEN: dict[str, Any] = {"status": 202, "body": {"accepted": 1}}


def names(events: list[dict[str, Any]]) -> Counter[tuple[str, float]]:
    return Counter((event["run_id"], event["timestamp"]) for event in events)


async def test_what_a_202_promised_is_in_the_ledger_once() -> None:
    with door(TAKEN) as server:
        ledger = await drive(server.url, Ledger(), clients=3, runs=8)
    assert names(server.taken) == Counter(ledger.accepted)
    assert ledger.sent == ledger.accepted
    assert ledger.answers["202"] == len(server.seen)


async def test_it_comes_back_with_the_same_batch_after_an_outage() -> None:
    with door(None, {"status": 503, "retry_after": "0"}, {"status": 429}, {"status": 500}, TAKEN) as server:
        ledger = await drive(server.url, Ledger(), clients=1, runs=1)
    assert len({key for key, _ in server.seen[:5]}) == 1
    assert len({body for _, body in server.seen[:5]}) == 1
    assert ledger.unsettled == set()
    assert ledger.retry_after_missing == 1  # the 429
    assert ledger.answers["503"] == ledger.answers["429"] == ledger.answers["500"] == 1
    assert ledger.answers["RemoteProtocolError"] == 1


async def test_what_was_refused_was_not_promised() -> None:
    some = {"status": 202, "body": {"accepted": 1, "rejected": [{"index": 1, "error": "step_index: must be >= 0"}]}}
    with door(some, TAKEN) as server:
        ledger = await drive(server.url, Ledger(), clients=1, runs=1)
    assert len(ledger.unsettled) == 1
    with door({"status": 401}) as server:
        ledger = await drive(server.url, Ledger(), clients=1, runs=1)
    assert ledger.accepted == set()
    assert set(ledger.answers) == {"401"}


async def test_it_gives_up_and_it_stops_when_told() -> None:
    with door({"status": 503, "retry_after": "0"}) as server:
        ledger = await drive(server.url, Ledger(), clients=1, runs=1, give_up_s=0.2)
        assert ledger.unsettled
    with door(TAKEN) as server:
        stop = trio.Event()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lambda: drive(server.url, ledger, clients=2, runs=None, stop=stop))
            with trio.fail_after(20):
                while len(server.taken) < 200:
                    await trio.sleep(0.01)
            stop.set()


def test_every_event_has_a_name_of_its_own_and_the_runs_are_as_the_contract_has_them() -> None:
    rng = random.Random(1)
    kinds: Counter[str] = Counter()
    for _ in range(300):
        events = run_events(rng, "agent", 1777888800.0)
        assert max(names(events).values()) == 1
        for event in events:
            kinds[event["event_type"]] += 1
            assert event["step_index"] >= 0
            assert isinstance(event["payload"], dict)
    assert set(kinds) == {
        "run.started", "llm.called", "llm.responded", "tool.called", "tool.responded", "run.completed", "run.errored",
    }  # fmt: skip
    assert kinds["run.started"] > kinds["run.completed"] + kinds["run.errored"]  # some never end


def test_the_same_seed_makes_the_same_runs() -> None:
    for shape, _ in SHAPES:
        first, second = (Script(random.Random(3), "agent", 5.0) for _ in range(2))
        shape(first)
        shape(second)
        assert first.events == second.events
