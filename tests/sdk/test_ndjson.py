"""NDJSON on stdout: as captured, whole beside an agent that prints, and never the agent's trouble."""

from __future__ import annotations

import io
import json
import os
import re
import select
import subprocess
import sys
import textwrap
from collections.abc import Callable
from contextlib import redirect_stdout
from typing import Any

import pytest

from dunetrace import Dunetrace
from dunetrace.sdk.ndjson import _pieces
from tests.sdk.programs.running import environment
from tests.sdk.sink import Sink
from tests.shared import shared

Make = Callable[..., Dunetrace]
TIMEOUT_S = 60

HEAD = """
import os, sys, threading
from dunetrace import Dunetrace
dt = Dunetrace(None, emit_as_json=True, flush_interval_ms=5, buffer_size=100_000)

def some_runs(count, calls=8):
    for _ in range(count):
        with dt.run("a") as run:
            for i in range(calls):
                run.tool_called("t", {"i": i})
"""


def start(code: str, *options: str, stdout: int = subprocess.PIPE, **env: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, *options, "-c", HEAD + textwrap.dedent(code)]
    return subprocess.Popen(command, stdout=stdout, stderr=subprocess.PIPE, env=environment(**env))


def said(code: str, *options: str, **env: str) -> tuple[list[bytes], str]:
    """The lines on stdout of a process that ends well, and what is on stderr."""
    with start(code, *options, **env) as process:
        out, err = process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == 0, err.decode()
    return out.splitlines(), err.decode()


def events(lines: list[bytes]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in lines if line.startswith(b"{")]


def named(out: bytes) -> dict[str, dict[str, Any]]:
    return {line["agent_id"] + line["event_type"]: line for line in events(out.splitlines())}


@pytest.mark.parametrize("capture", ["ndjson-0.3.0.ndjson", "ndjson-0.5.7.ndjson"])
def test_keys_order_and_time_are_as_captured(capfd: pytest.CaptureFixture[str], capture: str) -> None:
    dt = Dunetrace(None, emit_as_json=True)
    with dt.run("orders-agent", user_input="where is my order", model="gpt-4o-mini", tools=["lookup"]) as run:
        run.tool_called("lookup", {"id": 1})
        run.tool_responded("lookup", output_length=3, latency_ms=0)
        with dt.run("child", user_input="x"):
            pass
    assert dt.shutdown(10)
    captured = named(shared(f"captures/{capture}").read_bytes())
    lines = named(capfd.readouterr().out.encode())
    assert lines.keys() == captured.keys()
    moment = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z")
    for name, theirs in captured.items():
        ours = lines[name]
        its = list(theirs)
        if name == "childrun.completed":
            its.append("parent_run_id")  # ours says it on every event of a nested run
        assert list(ours) == its
        assert (ours["level"], ours["logger"]) == (theirs["level"], theirs["logger"])
        assert moment.fullmatch(ours["ts"])
        assert moment.fullmatch(theirs["ts"])
        assert type(ours["step_index"]) is type(theirs["step_index"])


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("threads", [1, 4])
def test_lines_are_whole_beside_an_agent_that_prints(threads: int, unbuffered: str) -> None:
    """Into a pipe, where a print would be buffered in blocks that end anywhere, or be two writes."""
    lines, err = said(
        f"""
        enough = threading.Event()
        def chatter(number):
            while not enough.is_set():
                print(f"thread {{number}} says " + "x" * (number * 70 + 50) + ".")
        dt.run("first").__enter__()
        dt.flush(5)
        threads = [threading.Thread(target=chatter, args=(n,)) for n in range({threads})]
        for thread in threads: thread.start()
        some_runs(100)
        dt.flush(30)
        enough.set()
        for thread in threads: thread.join()
        """,
        PYTHONUNBUFFERED=unbuffered,
    )
    assert err == ""
    mine = [line for line in lines if b'"logger":"dunetrace"' in line]
    assert len(events(mine)) == len(mine) == 1_001
    assert len(lines) > len(mine)
    if threads == 1:  # several threads' own prints are put together by Python as they come
        assert all(line.startswith(b"thread 0 says ") and line.endswith(b".") for line in set(lines) - set(mine))


def test_lines_of_several_processes_are_whole() -> None:
    lines, _ = said(
        """
        for _ in range(4):
            if os.fork() == 0:
                some_runs(200)
                sys.exit(0)
        for _ in range(4):
            assert os.wait()[1] == 0
        """
    )
    assert len(events(lines)) == len(lines) == 4 * 200 * 10


def test_a_line_begun_before_is_left_to_the_agent() -> None:
    lines, _ = said("some_runs(1); dt.flush(5); print('x', end='', flush=True); print('y'); some_runs(1)", "-u")
    assert (len(events(lines)), lines.count(b"xy")) == (20, 1)


@pytest.mark.parametrize("encoding", ["latin-1", "ascii", "utf-16", "cp037"])
def test_any_encoding(encoding: str) -> None:
    with start('some_runs(3)\nwith dt.run("é…"): pass', PYTHONIOENCODING=encoding) as process:
        out, err = process.communicate(timeout=TIMEOUT_S)
    assert (process.returncode, err) == (0, b"")
    names = [json.loads(line)["agent_id"] for line in out.decode(encoding).replace("\ufeff", "").splitlines()]
    assert names == ["a"] * 30 + ["é…"] * 2


def test_everything_is_there_at_exit_without_a_word() -> None:
    lines, err = said("some_runs(1000)")
    assert (len(events(lines)), err) == (10_000, "")


@pytest.mark.parametrize("end", ["dt.shutdown(0.3)", pytest.param("", marks=pytest.mark.prove, id="exit")])
def test_a_reader_that_does_not_read_costs_the_agent_nothing(end: str) -> None:
    """Its process works, says so, and ends well: no lock is held that the interpreter needs at its end."""
    with start(f'some_runs(2000); print(dt.stats()["ndjson"]["waiting"] > 0, file=sys.stderr)\n{end}') as process:
        assert process.wait(TIMEOUT_S) == 0
        assert process.stderr is not None
        err = process.stderr.read().decode()
        process.communicate()
    assert "True" in err
    assert err.count("dunetrace: nobody reads stdout") == 1
    assert "Fatal" not in err


def test_a_late_reader_gets_everything_once() -> None:
    code = """
    some_runs(2000)
    print("worked", file=sys.stderr, flush=True)
    dt.flush(30)
    counts = dt.stats()["ndjson"]
    assert counts["acknowledged"] == counts["emitted"] == 20_000, counts
    """
    with start(code) as process:
        assert process.stderr is not None
        while (line := process.stderr.readline()) != b"worked\n":
            assert b"nobody reads" in line
        out, err = process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == 0, err.decode()
    steps = [(line["run_id"], line["event_type"], line["step_index"]) for line in events(out.splitlines())]
    assert len(steps) == len(set(steps)) == 20_000


@pytest.mark.parametrize("what", ["sys.stdout.close()", "sys.stdout = None", "os.close(1)", "del sys.stdout"])
def test_a_stdout_that_is_gone_is_said_once(what: str) -> None:
    code = "some_runs(5); dt.flush(5); some_runs(5); print(dt.flush(5), dt.stats(), file=sys.stderr)"
    with start(f"{what}\n{code}") as process:
        _, err = process.communicate(timeout=TIMEOUT_S)
    text = err.decode()
    assert text.count("dunetrace: events cannot be written to stdout") == 1
    assert "False {'ndjson': {'emitted': 100, 'acknowledged': 0, 'rejected': 0, 'dropped': 100" in text


def test_a_reader_that_went_away_is_said_once() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with start("some_runs(5); dt.flush(5); some_runs(5)", stdout=writing) as process:
        os.close(writing)
        _, err = process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == 0
    assert err.decode().splitlines() == [
        "dunetrace: events cannot be written to stdout (BrokenPipeError); they are lost"
    ]


def test_a_pipe_that_somebody_made_non_blocking() -> None:
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    with start("some_runs(500)", stdout=writing) as process:
        os.close(writing)
        got = b""
        while select.select([reading], [], [], TIMEOUT_S)[0] and (piece := os.read(reading, 65_536)):
            got += piece
        assert process.wait(TIMEOUT_S) == 0
    os.close(reading)
    assert len(events(got.splitlines())) == 5_000


def test_what_is_stdout_when_it_is_written(client: Make) -> None:
    dt = client(endpoint=None, emit_as_json=True)
    text = io.StringIO()
    with redirect_stdout(text):
        with dt.run("a"):
            pass
        assert dt.flush(5)
    assert list(named(text.getvalue().encode())) == ["arun.started", "arun.completed"]


def test_pieces_are_whole_lines_as_many_as_a_pipe_takes() -> None:
    lines = [b"%d" % n + b"x" * (n * 37 % 1500) + b"\n" for n in range(200)] + [b"y" * 9_000 + b"\n", b"z\n"]
    pieces = list(_pieces(b"".join(lines)))
    assert b"".join(pieces) == b"".join(lines)
    assert all(piece.endswith(b"\n") for piece in pieces)
    assert [len(piece) for piece in pieces if len(piece) > select.PIPE_BUF] == [9_001]
    assert len(pieces) < 60


@pytest.mark.parametrize("http", [True, False])
@pytest.mark.parametrize("ndjson", [True, False])
def test_outputs_in_any_combination(
    client: Make, sink: Sink, capfd: pytest.CaptureFixture[str], http: bool, ndjson: bool
) -> None:
    dt = client(emit_as_json=ndjson, **({} if http else {"endpoint": None}))
    with dt.run("a") as run:
        run.tool_called("t")
    assert dt.flush(5)
    assert dt.stats().keys() == {name for name, on in (("http", http), ("ndjson", ndjson)) if on}
    assert len(sink.accepted) == 3 * http
    assert capfd.readouterr().out.count("\n") == 3 * ndjson
