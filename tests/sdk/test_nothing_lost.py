"""Every event of a process arrives once, however the process ends, forks or is served, and whatever the server does.

Real programs (`tests/sdk/programs`) against a real sink, and against the real server with its counts in Postgres.
"""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path

import pytest

from dunetrace import Dunetrace
from tests.harness.invariants import rows
from tests.harness.server import Server
from tests.sdk.programs.running import program, running
from tests.sdk.programs.work import EVENTS, one_run, whole_runs
from tests.sdk.sink import Answer, Sink

Make = Callable[..., Dunetrace]


def full(size: int) -> object:
    return pytest.param(size, id="full", marks=pytest.mark.prove)


# ---- how a process ends

STATUS = {"sys.exit": {3}, "raise": {1}, "sigint": {1, -signal.SIGINT}}


@pytest.mark.parametrize("runs", [20, full(1_000)])
@pytest.mark.parametrize(
    "way", ["return", "sys.exit", "raise", "sigterm", "sigint", "thread", "atexit", "fork", "double fork"]
)
def test_the_end_of_a_process_ships_what_waits(sink: Sink, way: str, runs: int) -> None:
    done = program("ends", sink.url, runs, way)
    assert sink.wait_for(lambda: len(sink.accepted) >= runs * EVENTS)  # a grandchild's end is not ours
    assert done.returncode in STATUS.get(way, {0}), done.stderr
    assert len(whole_runs(sink.accepted)) == runs


def test_a_daemon_thread_may_go_on_while_the_process_ends(sink: Sink) -> None:
    done = program("ends", sink.url, 20, "daemon")
    assert (done.returncode, done.stderr) == (0, "")
    assert len(whole_runs(event for event in sink.accepted if event["agent_id"] == "agent")) == 20
    assert len({event["event_id"] for event in sink.accepted}) == len(sink.accepted)


def test_a_stop_does_not_hang_on_a_server_that_does_not_answer(client: Make) -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=128) as silent:  # the kernel takes connections, nobody reads
        dt = client(endpoint=f"http://127.0.0.1:{silent.getsockname()[1]}")
        one_run(dt)
        assert dt.shutdown(0.3) is False
        counts = dt.stats()["http"]
    assert counts["emitted"] == counts["waiting"] + counts["dropped"] == EVENTS


@pytest.mark.prove
def test_an_end_does_not_hang_on_a_server_that_does_not_answer() -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=128) as silent:
        done = program("ends", f"http://127.0.0.1:{silent.getsockname()[1]}", 20, "return")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


# ---- processes that fork


@pytest.mark.parametrize("forks", [10, full(300)])
@pytest.mark.parametrize("outputs", ["http", "json"])
def test_forks_in_the_middle_of_everything(sink: Sink, outputs: str, forks: int) -> None:
    sink.answer = lambda path, body: (time.sleep(0.002), Answer())[1]  # so that many forks find a request under way
    done = program("forks", sink.url, forks, outputs)
    assert (done.returncode, done.stderr) == (0, "")
    events = sink.accepted
    assert len({(event["run_id"], event["event_id"]) for event in events}) == len(events)
    shared = [event for event in events if event["agent_id"] == "shared"]
    assert len(shared) == 2 * forks + 2
    assert len({event["payload"].get("tool_name") for event in shared}) == 2 * forks + 1
    runs = whole_runs(event for event in events if event["agent_id"] != "shared")
    assert len({event["run_id"] for event in events if event["agent_id"] == "child"}) == forks
    assert len(runs) >= forks
    if outputs == "json":
        lines = done.stdout.splitlines()
        assert len(lines) == len(set(lines)) == len(events)


def test_a_fork_while_the_drain_thread_reads_an_answer(sink: Sink, tmp_path: Path) -> None:
    """The head of the parent's answer is there, its body comes only after the child's events."""
    stalled, childs_arrived = tmp_path / "stalled", threading.Event()

    def stall() -> None:
        stalled.touch()
        childs_arrived.wait(20)

    def answer(path: str, body: bytes) -> Answer:
        if b'"child"' in body:
            childs_arrived.set()
            return Answer()
        return Answer(between=stall)

    sink.answer = answer
    done = program("stalled", sink.url, stalled)
    assert (done.returncode, done.stderr) == (0, "")
    assert childs_arrived.is_set()
    assert len(whole_runs(sink.accepted)) == 2


@pytest.mark.parametrize("runs", [6, full(500)])
@pytest.mark.parametrize(
    ("kind", "method"),
    [("process", "forkserver"), ("pool", "fork"), ("pool", "spawn"), ("executor", "fork"), ("executor", "spawn")],
)
def test_children_of_the_standard_librarys_pools(sink: Sink, kind: str, method: str, runs: int) -> None:
    if kind == "process":
        runs = min(runs, 20)  # each is a process of its own
    done = program("pools", sink.url, runs, kind, method)
    assert (done.returncode, done.stderr) == (0, "")
    whole = whole_runs(event for event in sink.accepted if event["agent_id"].startswith("child"))
    assert len(whole) == runs


# ---- under servers that fork


@contextmanager
def gunicorn(log: Path, endpoint: str, *options: str) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """Four workers, and the port they serve."""
    command = ["-m", "gunicorn", "tests.sdk.programs.web:app", "--workers=4", "--bind=127.0.0.1:0", *options]
    with running(log, *command, "--no-control-socket", DUNETRACE_ENDPOINT=endpoint) as process:
        listens = re.compile(r"Listening at: http://127\.0\.0\.1:(\d+)")
        assert wait_until(lambda: listens.search(log.read_text()) is not None, 30), log.read_text()
        yield process, int(listens.findall(log.read_text())[0])
        process.send_signal(signal.SIGTERM)
        assert process.wait(40) == 0, log.read_text()


def ask(port: int) -> str:
    connection = HTTPConnection("127.0.0.1", port, timeout=20)
    try:
        connection.request("GET", "/")
        response = connection.getresponse()
        assert response.status == 200
        return response.read().decode()
    finally:
        connection.close()


def ask_often(port: int, count: int, halfway: Callable[[], object]) -> set[str]:
    """The runs of `count` requests, four at a time."""
    with ThreadPoolExecutor(4) as pool:
        first = [pool.submit(ask, port) for _ in range(count // 2)]
        answers = {future.result() for future in first}
        halfway()
        return answers | {future.result() for future in [pool.submit(ask, port) for _ in range(count - count // 2)]}


@pytest.mark.parametrize("requests", [60, full(2_000)])
@pytest.mark.parametrize("options", [(), ("--preload",), ("--max-requests=5",)], ids=" ".join)
def test_gunicorn_with_four_workers(sink: Sink, tmp_path: Path, options: tuple[str, ...], requests: int) -> None:
    with gunicorn(tmp_path / "web.log", sink.url, *options) as (master, port):
        reload = (lambda: None) if "--preload" in options else (lambda: master.send_signal(signal.SIGHUP))
        asked = ask_often(port, requests, reload)
    assert len(asked) == requests
    assert whole_runs(event for event in sink.accepted if event["agent_id"] == "web") == asked
    whole_runs(event for event in sink.accepted if event["agent_id"] == "import")


@pytest.mark.parametrize(
    ("options", "tasks"),
    [
        pytest.param((), 12, id="small"),
        pytest.param((), 1_000, id="full", marks=pytest.mark.prove),
        pytest.param(("--max-tasks-per-child=2",), 60, id="recycled", marks=pytest.mark.prove),
    ],
)
def test_celery_prefork(sink: Sink, tmp_path: Path, options: tuple[str, ...], tasks: int) -> None:
    env = {"DUNETRACE_ENDPOINT": sink.url, "DIRECTORY": str(tmp_path)}
    log, done = tmp_path / "worker.log", tmp_path / "done"
    command = ["-m", "celery", "--app=tests.sdk.programs.tasks", "worker", "--pool=prefork", "--concurrency=2"]
    with (
        running(
            log, *command, "--without-heartbeat", "--without-gossip", "--without-mingle", *options, **env
        ) as worker,
        running(tmp_path / "sender.log", "-m", "tests.sdk.programs.tasks", str(tasks), **env) as sender,
    ):
        assert sender.wait(60) == 0, (tmp_path / "sender.log").read_text()
        assert wait_until(lambda: done.exists() and done.read_text().count("\n") >= tasks, 120), log.read_text()
        worker.send_signal(signal.SIGTERM)
        assert worker.wait(60) == 0, log.read_text()
    worked = set(done.read_text().split())
    assert len(worked) == tasks
    assert whole_runs(sink.accepted) == worked


def wait_until(condition: Callable[[], bool], timeout_s: float) -> bool:
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


# ---- the real server, gone in the middle


@pytest.mark.parametrize("down_s", [1.0, full(20)])
def test_a_server_that_is_killed_in_the_middle(database: str, tmp_path: Path, client: Make, down_s: float) -> None:
    enough = threading.Event()
    with Server(tmp_path, database_url=database) as server:
        dt = client(endpoint=server.ingest_url, buffer_size=100_000)

        def agent(name: str) -> None:
            while not enough.is_set():
                one_run(dt, name)
                enough.wait(0.005)

        threads = [threading.Thread(target=agent, args=(f"agent-{number}",)) for number in range(4)]
        for thread in threads:
            thread.start()
        assert wait_until(lambda: dt.stats()["http"]["acknowledged"] > 200, 20)
        server.kill()
        down_until = time.monotonic() + down_s
        assert wait_until(lambda: time.monotonic() > down_until, down_s + 5)
        server.start()
        enough.set()
        for thread in threads:
            thread.join()
        assert dt.flush(60)
        assert wait_until(server.has_stored_all, 30)
        stats = dt.stats()["http"]
        stored = rows(
            database,
            "SELECT count(*) AS events, count(DISTINCT event_key) AS unique FROM events GROUP BY run_id, agent_id",
        )
    assert stats["acknowledged"] == stats["emitted"] > 0
    assert sum(row["events"] for row in stored) == stats["emitted"]
    assert {(row["events"], row["unique"]) for row in stored} == {(EVENTS, EVENTS)}


@pytest.mark.parametrize("requests", [40, full(2_000)])
def test_gunicorn_and_the_server(database: str, tmp_path: Path, requests: int) -> None:
    with Server(tmp_path, database_url=database) as server:
        with gunicorn(tmp_path / "web.log", server.ingest_url, "--preload") as (_, port):
            asked = ask_often(port, requests, lambda: None)
        assert wait_until(server.has_stored_all, 30)
        stored = rows(database, "SELECT run_id, count(*) AS events FROM events WHERE agent_id = 'web' GROUP BY 1")
    assert {row["run_id"]: row["events"] for row in stored} == dict.fromkeys(asked, EVENTS)
