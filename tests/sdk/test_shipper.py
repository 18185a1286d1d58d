"""Delivery against a server that misbehaves: nothing is lost that could have arrived, nothing arrives twice."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable

import pytest

from dunetrace import Dunetrace
from tests.sdk.sink import RESET, Answer, Sink, running_sink

Make = Callable[..., Dunetrace]


def some_run(dt: Dunetrace, calls: int = 1, agent: str = "a") -> None:
    with dt.run(agent) as run:
        for _ in range(calls):
            run.tool_called("t", {"q": 1})


def answering(*answers: Answer) -> Callable[[str, bytes], Answer]:
    """These answers in turn, then 202 for ever."""
    left = list(answers)
    return lambda path, body: left.pop(0) if left else Answer()


@pytest.mark.parametrize(
    "trouble",
    [Answer(500), Answer(503, {"Retry-After": "0.05"}), Answer(429), Answer(408), RESET],
    ids=lambda answer: str(answer.status),
)
def test_a_passing_trouble_is_tried_again_with_the_same_bytes_and_key(
    client: Make, sink: Sink, trouble: Answer
) -> None:
    sink.answer = answering(trouble, trouble)
    dt = client()
    some_run(dt)
    assert dt.flush(10)
    assert len({(r.body, r.headers["idempotency-key"]) for r in sink.requests}) == 1
    assert [r.status for r in sink.requests] == [trouble.status, trouble.status, 202]
    assert len(sink.accepted) == 3
    assert dt.stats()["http"] | {"attempts": 0} == {
        "emitted": 3, "acknowledged": 3, "rejected": 0, "dropped": 0, "waiting": 0, "attempts": 0
    }  # fmt: skip


def test_retry_after_is_obeyed(client: Make, sink: Sink) -> None:
    sink.answer = answering(Answer(503, {"Retry-After": "1"}))
    dt = client()
    began = time.monotonic()
    some_run(dt)
    assert dt.flush(10)
    assert time.monotonic() - began >= 1.0


@pytest.mark.parametrize(
    ("status", "remedy"), [(401, "DUNETRACE_API_KEY"), (403, "key"), (422, "update"), (404, "8001")]
)
def test_a_final_refusal_is_said_once_and_its_losses_are_reported(
    client: Make, sink: Sink, capfd: pytest.CaptureFixture[str], status: int, remedy: str
) -> None:
    sink.answer = answering(Answer(status), Answer(status))
    dt = client()
    for _ in range(3):
        some_run(dt)
        flushed = dt.flush(10)
    assert flushed
    said = capfd.readouterr().err.splitlines()
    assert len(said) == 1
    assert str(status) in said[0]
    assert remedy in said[0]
    assert sink.batches()[0].json()["dropped_events"] == 6
    assert dt.stats()["http"] | {"attempts": 0} == {
        "emitted": 9, "acknowledged": 3, "rejected": 0, "dropped": 6, "waiting": 0, "attempts": 0
    }  # fmt: skip


def test_flush_is_false_when_something_was_lost_and_true_again_after(client: Make, sink: Sink) -> None:
    sink.answer = answering(Answer(401))
    dt = client()
    some_run(dt)
    assert dt.flush(10) is False
    some_run(dt)
    assert dt.flush(10) is True


def test_rejected_events_are_counted(client: Make, sink: Sink) -> None:
    sink.answer = answering(Answer(202, body={"accepted": 2, "rejected": [{"index": 1, "error": "x"}]}))
    dt = client()
    some_run(dt)
    assert dt.flush(10) is False
    assert (dt.stats()["http"]["rejected"], dt.stats()["http"]["acknowledged"]) == (1, 2)


def test_a_batch_too_large_is_halved_until_it_fits(client: Make, sink: Sink, capfd: pytest.CaptureFixture[str]) -> None:
    sink.answer = lambda path, body: Answer(413 if len(body) > 3_000 else 202)
    dt = client()
    some_run(dt, calls=60)
    assert dt.flush(10)
    assert len(sink.accepted) == 62
    assert max(len(b.body) for b in sink.batches()) <= 3_000
    assert capfd.readouterr().err == ""


def test_a_single_event_too_large_is_given_up(client: Make, sink: Sink, capfd: pytest.CaptureFixture[str]) -> None:
    sink.answer = lambda path, body: Answer(413 if b"tool.called" in body else 202)
    dt = client()
    some_run(dt)
    assert dt.flush(10) is False
    assert sorted(e["event_type"] for e in sink.accepted) == ["run.completed", "run.started"]
    assert "DUNETRACE_MAX_BODY_BYTES" in capfd.readouterr().err


def test_a_server_that_goes_away_and_comes_back_gets_every_event_once(client: Make) -> None:
    with running_sink() as first:
        port = first.server_port
        dt = client(endpoint=first.url)
        some_run(dt, 5)
        assert dt.flush(10)
    down_at = time.monotonic()
    while time.monotonic() - down_at < 2.0:
        some_run(dt, 5)
        time.sleep(0.02)  # the agent's own pace, while nobody listens
    with running_sink(port) as second:
        assert dt.flush(15)
        events = first.accepted + second.accepted
    assert len({(e["run_id"], e["event_id"]) for e in events}) == len(events) == dt.stats()["http"]["emitted"]
    assert set(Counter(e["run_id"] for e in events).values()) == {7}


def test_a_server_that_hangs_costs_the_agent_nothing(client: Make, sink: Sink) -> None:
    go_on = threading.Event()

    def hang(path: str, body: bytes) -> Answer:
        go_on.wait(20)
        return Answer()

    sink.answer = hang
    dt = client()
    some_run(dt)
    began = time.monotonic()
    some_run(dt, 200)
    assert time.monotonic() - began < 1
    assert dt.flush(0.2) is False
    go_on.set()
    assert dt.flush(10)
    assert len(sink.accepted) == 205


def test_a_closed_kept_connection_is_opened_anew(client: Make, sink: Sink) -> None:
    sink.answer = lambda path, body: Answer(headers={"Connection": "close"})
    dt = client()
    for _ in range(3):
        some_run(dt)
        assert dt.flush(10)
    assert len(sink.accepted) == 9
    assert dt.stats()["http"]["attempts"] == 3


def test_one_connection_serves_many_batches(client: Make, sink: Sink) -> None:
    dt = client()
    for _ in range(5):
        some_run(dt)
        assert dt.flush(10)
    assert len(sink.connections) == 1


def test_batches_hold_a_hundred_events_and_more_when_more_wait(client: Make, sink: Sink) -> None:
    gate = threading.Event()
    sink.answer = lambda path, body: (gate.wait(20), Answer())[1]
    dt = client()
    some_run(dt)
    sink.wait_for(lambda: False, 0.1)
    some_run(dt, 1500)
    gate.set()
    assert dt.flush(20)
    sizes = [len(b.json()["events"]) for b in sink.batches()]
    assert sum(sizes) == 1505
    assert max(sizes) == 500


def test_what_a_request_says(client: Make, sink: Sink) -> None:
    dt = client(api_key="dt_key")
    some_run(dt, agent="étude")
    dt.mark_deploy("étude", "v1.4.2")
    assert dt.flush(10)
    ingest = next(r for r in sink.requests if r.path == "/v1/ingest")
    deploy = next(r for r in sink.requests if r.path == "/v1/deploy")
    assert deploy.json() == {"agent_id": "étude", "version": "v1.4.2"}
    assert ingest.json().keys() == {"agent_id", "events"}
    for request in (ingest, deploy):
        assert request.headers["authorization"] == "Bearer dt_key"
        assert request.headers["content-type"] == "application/json"
        assert request.headers["x-dunetrace-agent"] == "%C3%A9tude"
        assert len(request.headers["idempotency-key"]) == 32


@pytest.mark.parametrize(
    "endpoint", ["nonsense", "ftp://x", "http://", "http://[bad", "http://h:notaport", "http://\x00"]
)
def test_a_bad_endpoint_is_said_once_and_nothing_is_raised(
    client: Make, capfd: pytest.CaptureFixture[str], endpoint: str
) -> None:
    dt = client(endpoint=endpoint)
    some_run(dt)
    some_run(dt)
    assert dt.flush(5) is False
    assert capfd.readouterr().err.count("DUNETRACE_ENDPOINT") == 1


def test_a_bad_key_is_said_and_nothing_is_raised(client: Make, capfd: pytest.CaptureFixture[str]) -> None:
    dt = client(api_key="line\nbreak")
    some_run(dt)
    assert dt.flush(5) is False
    assert "API key" in capfd.readouterr().err


def test_twenty_threads_and_a_thousand_runs_arrive_once(client: Make, sink: Sink) -> None:
    dt = client(buffer_size=100_000)

    def agent(name: str) -> None:
        for _ in range(50):
            some_run(dt, 8, name)

    threads = [threading.Thread(target=agent, args=(f"agent-{i}",)) for i in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert dt.flush(30)
    events = sink.accepted
    assert len({(e["run_id"], e["event_id"]) for e in events}) == len(events) == 10_000
    assert set(Counter(e["run_id"] for e in events).values()) == {10}
    for agent_id in {e["agent_id"] for e in events}:
        assert len({e["run_id"] for e in events if e["agent_id"] == agent_id}) == 50


def test_after_shutdown_events_are_counted_as_dropped(client: Make, sink: Sink) -> None:
    dt = client()
    some_run(dt)
    assert dt.shutdown(10)
    some_run(dt)
    assert len(sink.accepted) == 3
    assert dt.stats()["http"]["dropped"] == 3
    assert dt.shutdown(1) is False


def test_a_forgotten_client_still_ships_and_ends_its_thread(sink: Sink) -> None:
    with Dunetrace(sink.url).run("a") as run:
        run.tool_called("t")
    del run
    assert sink.wait_for(lambda: len(sink.accepted) == 3)
    deadline = time.monotonic() + 10
    while any(t.name == "dunetrace-http" for t in threading.enumerate()) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not any(t.name == "dunetrace-http" for t in threading.enumerate())
