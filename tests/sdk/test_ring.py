"""What is lost when too much waits: whole runs, oldest first, and never more than is counted."""

from __future__ import annotations

import threading
from collections.abc import Callable

from hypothesis import given
from hypothesis import strategies as st

from dunetrace import Dunetrace
from dunetrace.sdk.ring import Record, Ring, RunKey, Segment
from tests.sdk.sink import Answer, Sink

Make = Callable[..., Dunetrace]


def event(number: int, edge: str = "", run: str = "r") -> Record:
    return Record("x", RunKey(run, "a", "v", None), 0, 0.0, number, {}, (), edge)  # type: ignore[arg-type]


def test_the_oldest_whole_run_goes_first() -> None:
    ring = Ring(6, lambda: None)
    old, young = Segment(ring), Segment(ring)
    for number in range(3):
        old.push(event(number))
    for number in range(3, 7):
        young.push(event(number))
    assert [taken.record.number for taken in ring.take(10)] == [3, 4, 5, 6]
    assert (old.lost, young.lost, ring.report_lost(), ring.report_lost()) == (3, 0, 3, 0)


def test_a_run_alone_loses_its_oldest_events_but_not_its_edges() -> None:
    ring = Ring(5, lambda: None)
    run = Segment(ring)
    run.push(event(0, "start"))
    for number in range(1, 20):
        run.push(event(number))
    run.push(event(20, "end"))
    assert [taken.record.number for taken in ring.take(10)] == [0, 17, 18, 19, 20]
    assert run.lost == 16


def test_what_is_on_its_way_counts_until_it_is_settled() -> None:
    ring = Ring(4, lambda: None)
    first, second = Segment(ring), Segment(ring)
    for number in range(4):
        first.push(event(number))
    sent = ring.take(3)
    second.push(event(4))
    assert ring.waiting == 4
    assert (first.lost, second.lost) == (1, 0)
    ring.settle(sent)
    assert ring.waiting == 1
    for number in range(5, 8):
        second.push(event(number))
    assert ring.stats() == {"emitted": 8, "acknowledged": 3, "rejected": 0, "dropped": 1, "waiting": 4}


@given(
    capacity=st.integers(1, 8),
    steps=st.lists(st.tuples(st.integers(0, 3), st.sampled_from(["push", "take", "settle", "lose"])), max_size=60),
)
def test_every_event_is_in_exactly_one_count(capacity: int, steps: list[tuple[int, str]]) -> None:
    ring = Ring(capacity, lambda: None)
    runs = [Segment(ring) for _ in range(4)]
    flying: list[list[object]] = []
    pushed = 0
    for which, act in steps:
        if act == "push":
            runs[which].push(event(pushed))
            pushed += 1
        elif act == "take":
            flying.append(ring.take(2))  # type: ignore[arg-type]
        elif flying:
            (ring.settle if act == "settle" else ring.lose)(flying.pop())  # type: ignore[arg-type]
        stats = ring.stats()
        assert stats["emitted"] == pushed == stats["acknowledged"] + stats["dropped"] + stats["waiting"]
        assert stats["waiting"] <= capacity + (1 if flying else 0)
    assert sum(run.lost for run in runs) == ring.stats()["dropped"]


def test_an_outage_keeps_whole_runs_and_says_what_was_lost(client: Make, sink: Sink) -> None:
    gate = threading.Event()
    sink.answer = lambda path, body: (gate.wait(20), Answer())[1]
    dt = client(buffer_size=60)
    for index in range(30):
        with dt.run(f"agent-{index}") as run:
            for _ in range(8):
                run.tool_called("t")
    gate.set()
    assert dt.flush(10) is False
    lost = dt.stats()["http"]["dropped"]
    assert lost > 0
    whole = [index for index in range(30) if len([e for e in sink.accepted if e["agent_id"] == f"agent-{index}"]) == 10]
    assert {27, 28, 29} <= set(whole)  # half of the ring at least is for what comes meanwhile
    with dt.run("after"):
        pass
    assert dt.flush(10)
    assert sum(b.json().get("dropped_events", 0) for b in sink.batches()) == lost
    assert len(sink.accepted) + lost == dt.stats()["http"]["emitted"]


def test_a_run_that_lost_events_says_so_at_its_end(client: Make, sink: Sink) -> None:
    gate = threading.Event()
    sink.answer = lambda path, body: (gate.wait(20), Answer())[1]
    dt = client(buffer_size=50)
    with dt.run("a") as run:
        for _ in range(200):
            run.tool_called("t")
    gate.set()
    dt.flush(10)
    types = [e["event_type"] for e in sorted(sink.accepted, key=lambda e: (e["timestamp"], e["step_index"]))]
    assert (types[0], types[-1]) == ("run.started", "run.completed")
    end = next(e for e in sink.accepted if e["event_type"] == "run.completed")
    assert end["payload"]["dropped_events"] == dt.stats()["http"]["dropped"] == 202 - len(sink.accepted)
