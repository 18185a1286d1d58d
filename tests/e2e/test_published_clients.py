"""Published clients against this server, unmodified, and ours beside them: one agent for each failure type and a few
that are well, runs in runs, ends that come late, a whole ring in one body; and nothing of what they send stays."""

from __future__ import annotations

import json
import subprocess
import textwrap
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest
import trio

from dunetrace.signals import FailureType
from tests.e2e.relay import Passed, Relay
from tests.e2e.scenarios.clients import (
    NAME_THEIR_BATCHES,
    OLD_LAYOUT,
    OURS,
    VERSIONS,
    Played,
    Reader,
    play,
)
from tests.e2e.scenarios.expected import EXPECTED, SILENT, SURER_WITH_SOME, WELL
from tests.harness.invariants import assert_invariants, rows, settle
from tests.harness.server import Server
from tests.postgres import TestPostgres
from tests.published import python_of
from tests.shared import shared

STALL_TIMEOUT_S = 4
AT_ONCE = 2  # clients: they share two cores with the server
RING_EVENTS, RING_RUNS, RING_LOOPS = 10_000, 100, 10
LARGE_BODY_BYTES = 15_000_000  # with content; the largest that was seen had 18 million
# The published captures: an input that attacks, a search that finds nothing and an empty answer to it; then an error.
CAPTURED_SIGNALS = {"PROMPT_INJECTION_SIGNAL", "RAG_EMPTY_RETRIEVAL", "EMPTY_LLM_RESPONSE", "FIRST_STEP_FAILURE"}


@pytest.fixture(scope="module")
def server(postgres: TestPostgres, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    environment = {"DUNETRACE_STALL_TIMEOUT": str(STALL_TIMEOUT_S)}
    data_dir = tmp_path_factory.mktemp("published") / "data"
    with Server(data_dir, database_url=postgres.database(), env=environment) as running:
        yield running


@pytest.fixture(scope="module")
def played(server: Server, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Played]:
    """Every client has played every agent, and the server is quiet again."""
    home = tmp_path_factory.mktemp("clients")
    with ThreadPoolExecutor(AT_ONCE) as pool:
        everything = list(pool.map(lambda version: play(version, "scenarios", server, home), VERSIONS))
    trio.run(settle, server.database_url)
    return dict(zip(VERSIONS, everything, strict=True))


@pytest.fixture(scope="module")
def reader(server: Server) -> Iterator[Reader]:
    with Reader(server) as opened:
        yield opened


class Seen(NamedTuple):
    """What the server says of one agent: its runs, its signals, and the events of its last run."""

    runs: list[dict[str, Any]]
    signals: list[dict[str, Any]]
    events: list[dict[str, Any]]


@pytest.fixture(scope="module")
def seen(played: dict[str, Played], reader: Reader) -> dict[tuple[str, str], Seen]:
    """By version and agent."""

    def look(agent_id: str) -> Seen:
        runs = reader.runs(agent_id)
        return Seen(runs, reader.signals(agent_id), reader.run(runs[0]["run_id"])["events"] if runs else [])

    return {(version, name): look(f"{version} {name}") for version in VERSIONS for name in EXPECTED}


def test_every_failure_type_is_played() -> None:
    assert {expected.failure_type for expected in EXPECTED.values()} == {*FailureType, WELL}


@pytest.mark.parametrize("name", EXPECTED)
@pytest.mark.parametrize("version", VERSIONS)
def test_each_agent_has_exactly_its_signal(version: str, name: str, seen: dict[tuple[str, str], Seen]) -> None:
    expected = EXPECTED[name]
    runs, signals, events = seen[version, name]
    told = [(signal["failure_type"], signal["severity"], signal["shadow"]) for signal in signals]
    wanted = [] if expected.failure_type == WELL else [(expected.failure_type, expected.severity, False)]
    assert told == wanted, json.dumps({"signals": signals, "events": events}, indent=1)
    assert {run["status"] for run in runs} == {"ended"}
    assert (runs[0]["step_count"], runs[0]["exit_reason"]) == (expected.step_count, expected.exit_reason)
    for signal in signals:
        assert signal["run_id"] == runs[0]["run_id"]
        # a step's number is the wire's: it points at an event of the run
        assert signal["step_index"] in {event["step_index"] for event in events}


@pytest.mark.parametrize("version", VERSIONS)
def test_no_agent_was_left_out(version: str, reader: Reader, played: dict[str, Played]) -> None:
    known = {name.removeprefix(f"{version} ") for name in reader.agents() if name.startswith(f"{version} ")}
    assert known - {"ring"} == set(EXPECTED)


@pytest.mark.parametrize("version", VERSIONS)
def test_the_client_keeps_quiet(version: str, played: dict[str, Played]) -> None:
    assert played[version].stderr == ""


@pytest.mark.parametrize("name", EXPECTED)
def test_all_clients_and_both_layouts_are_told_the_same(name: str, seen: dict[tuple[str, str], Seen]) -> None:
    def of(version: str) -> Any:
        runs, signals, _ = seen[version, name]
        sure = [signal["confidence"] for signal in signals if signal["failure_type"] not in SURER_WITH_SOME]
        return runs[0]["step_count"], runs[0]["total_tokens"], sure

    assert {version: of(version) for version in VERSIONS} == dict.fromkeys(VERSIONS, of(OURS))


@pytest.mark.parametrize("version", VERSIONS)
def test_only_the_oldest_client_counts_answers_as_steps(version: str, seen: dict[tuple[str, str], Seen]) -> None:
    last = seen[version, "healthy"].events[-1]
    assert (last["event_type"], last["step_index"]) == ("run.completed", 10 if version in OLD_LAYOUT else 5)


@pytest.mark.parametrize("version", VERSIONS)
def test_a_run_in_a_run_keeps_its_parent_and_its_trouble(
    version: str, server: Server, seen: dict[tuple[str, str], Seen]
) -> None:
    parent, child = seen[version, "nested_parent"], seen[version, "nested_child"]
    run_ids = [parent.runs[0]["run_id"], child.runs[0]["run_id"]]
    found = rows(server.database_url, "SELECT run_id, parent_run_id FROM runs WHERE run_id = ANY($1)", run_ids)
    assert dict(found) == {run_ids[0]: None, run_ids[1]: run_ids[0]}
    end = child.events[-1]
    assert end["event_type"] == "run.completed"
    assert (end["parent_run_id"] is None) == (version != OURS)  # so it did have to be inherited
    assert [run["signal_count"] for run in (*parent.runs, *child.runs)] == [0, 1]


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("name", SILENT)
def test_a_late_end_ends_the_run_and_repeats_nothing(
    version: str, name: str, server: Server, played: dict[str, Played], seen: dict[tuple[str, str], Seen]
) -> None:
    """When it was judged as stalled it had its signal, and that is the one it has now."""
    then, now = played[version].signals_then[f"{version} {name}"], seen[version, name].signals
    assert len(now) == (EXPECTED[name].failure_type != WELL)
    assert [(signal["id"], signal["detected_at"]) for signal in then] == [
        (signal["id"], signal["detected_at"]) for signal in now
    ]
    marks = rows(
        server.database_url, "SELECT trigger, signal_count FROM processed_runs WHERE agent_id = $1", f"{version} {name}"
    )  # fmt: skip
    assert [tuple(mark) for mark in marks] == [("run.completed", len(now))]


@pytest.mark.parametrize("version", VERSIONS)
def test_a_ring_flushed_in_one_body(version: str, server: Server, reader: Reader, tmp_path: Path) -> None:
    """Ours sends its ring in smaller bodies. Sent once more, by a client that does so, it is the same ring."""
    agent_id = f"{version} ring"
    with Relay(server.ingest_url) as relay:
        play(version, "ring", server, tmp_path, endpoint=relay.url)
    # one of the same body counts once: on a busy machine a client may tire of waiting for the answer, and send it again
    sent = {request.body: request for request in relay.passed if request.path == "/v1/ingest"}
    sizes = [len(json.loads(body)["events"]) for body in sent]
    assert sum(sizes) == RING_EVENTS
    assert version == OURS or sizes == [RING_EVENTS]
    assert version != "0.5.7" or max(map(len, sent)) > LARGE_BODY_BYTES

    def look() -> tuple[int, Counter[str], list[int]]:
        trio.run(settle, server.database_url)
        (stored,) = rows(server.database_url, "SELECT count(*) AS n FROM events WHERE agent_id = $1", agent_id)
        found = reader.signals(agent_id)
        assert Counter(run["status"] for run in reader.runs(agent_id)) == {"ended": RING_RUNS}
        return stored["n"], Counter(signal["failure_type"] for signal in found), sorted(s["id"] for s in found)

    once = look()
    assert once[:2] == (RING_EVENTS, {"TOOL_LOOP": RING_LOOPS})
    if version in NAME_THEIR_BATCHES:
        for request in sent.values():
            assert request.again(server.ingest_url).status_code == 202
        assert look() == once


@pytest.mark.parametrize("version", VERSIONS[:-1])
def test_a_captured_body_is_judged_alike_in_both_layouts(version: str, server: Server, reader: Reader) -> None:
    """As it was sent, but under a name of its own; and again, as behind something that repeats requests."""
    captured = json.loads(shared(f"captures/ingest-{version}.json").read_text("utf-8"))
    text = json.dumps(captured["body"])
    for name in ("research-agent", "sub-agent"):
        text = text.replace(f'"{name}"', f'"captured {version} {name}"')
    headers = {name: value for name, value in captured["headers"].items() if name != "Content-Length"}
    request = Passed("POST", "/v1/ingest", {**headers, "Idempotency-Key": f"captured {version}"}, text.encode())
    for _ in range(2):
        answer = request.again(server.ingest_url)
        assert (answer.status_code, answer.json()["accepted"]) == (202, len(captured["body"]["events"]))
    trio.run(settle, server.database_url)
    found = reader.signals(f"captured {version} research-agent")
    assert sorted(signal["failure_type"] for signal in found) == sorted(CAPTURED_SIGNALS)
    assert reader.signals(f"captured {version} sub-agent") == []
    (stored,) = rows(
        server.database_url, "SELECT count(*) AS n FROM events WHERE agent_id LIKE $1", f"captured {version} %"
    )  # fmt: skip
    assert stored["n"] == len(captured["body"]["events"])


@pytest.mark.parametrize("name", ["0.3.17-with-key", "0.5.7-with-key", "0.5.7-without-key"])
def test_their_other_calls_are_answered(name: str, server: Server) -> None:
    for asked in json.loads(shared(f"captures/other-requests-{name}.json").read_text("utf-8")):
        headers = {header: value for header, value in asked["headers"].items() if header != "Content-Length"}
        body = b"" if asked["body"] is None else json.dumps(asked["body"]).encode()
        answer = Passed(asked["method"], asked["path"], headers, body).again(server.ingest_url)
        said = answer.json()
        url = httpx.URL(asked["path"])
        if url.path == "/v1/policies":
            assert (answer.status_code, said) == (200, {"policies": []})
        elif url.path == "/v1/detector-config":
            assert answer.status_code == 200
            assert abs(said.pop("generated_at") - time.time()) < 60
            asked_for = {key: url.params[key] for key in ("agent_id", "agent_version")}
            assert said == {
                "schema_version": 1, **asked_for, "ttl_s": 60, "detectors": {}, "packs": [], "baselines": None,
            }  # fmt: skip
        elif url.path == "/v1/deploy":
            assert answer.status_code == 202
            marked = {key: asked["body"][key] for key in ("agent_id", "version")}
            assert marked.items() <= said.items()
            assert said.keys() == {"id", "agent_id", "version", "deployed_at"}
            (mark,) = rows(server.database_url, "SELECT * FROM deploys WHERE id = $1", said["id"])
            assert marked.items() <= dict(mark).items()
            assert "production" not in repr(mark)  # what `meta` said
        else:
            assert url.path.startswith("/v1/orgs/")
            assert answer.status_code == 404
            assert "not offered" in said["detail"]


async def test_the_invariants_hold_after_all_of_it(server: Server, played: dict[str, Played]) -> None:
    await assert_invariants(server.database_url, server=server)


AGENT = """
    import sys
    from dunetrace import Dunetrace

    endpoint, agent_id, raw = sys.argv[1:]
    dt = Dunetrace(endpoint=endpoint, api_key="dt_dev_test")
    extra = lambda **content: content if raw else {}  # only clients from 0.4 on take content
    told = dict(user_input="CANARY-input", system_prompt="CANARY-system")
    with dt.run(agent_id, model="m", tools=["search"], **told) as run:
        for n in range(3):
            run.llm_called("m", prompt_tokens=10)
            answer = extra(output="CANARY-llm")
            run.llm_responded(completion_tokens=4, latency_ms=10, finish_reason="tool_calls", **answer)
            run.tool_called("search", {"q": "CANARY-arguments"})
            if n < 2:
                run.tool_responded("search", success=True, output_length=5, latency_ms=3, **extra(output="CANARY-tool"))
        print("looping", flush=True)
        sys.stdin.readline()
        run.tool_responded("search", success=False, error="CANARY-error")
        run.retrieval_called("index", "CANARY-query" if raw else "abc")
        run.retrieval_responded("index", result_count=1, top_score=0.5, latency_ms=3, **extra(content="CANARY-found"))
        run.external_signal("rate_limit", source="model", note="CANARY-meta")
        run.final_answer()
    dt.shutdown()
"""


def loop_until_found(version: str, raw: str, script: Path, server: Server, reader: Reader) -> bytes:
    """Play AGENT, let it end only when its loop was found, and give what the API says of the run then."""
    agent_id = f"loop {version}"
    with subprocess.Popen(
        [str(python_of(version)), str(script), server.ingest_url, agent_id, raw],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={"HOME": str(script.parent)},
    ) as client:  # fmt: skip
        assert client.stdout is not None
        assert client.stdin is not None
        assert client.stdout.readline() == "looping\n"
        deadline = time.monotonic() + 30
        while not (found := reader.signals(agent_id)):
            assert time.monotonic() < deadline, server.log_tail()
        assert [(signal["failure_type"], signal["severity"]) for signal in found] == [("TOOL_LOOP", "HIGH")]
        assert reader.runs(agent_id)[0]["status"] == "running"
        client.stdin.write("\n")
        client.stdin.flush()
        assert client.wait(30) == 0
    reader.wait("ended", {agent_id: 1})
    (run,) = reader.runs(agent_id)
    assert (run["exit_reason"], run["step_count"]) == ("run.completed", 7)
    return json.dumps(reader.run(run["run_id"])).encode()


async def test_loops_are_found_in_flight_and_content_is_nowhere_on_disk(tmp_path: Path) -> None:
    script = tmp_path / "agent.py"
    script.write_text(textwrap.dedent(AGENT))
    with Server(tmp_path / "data") as server, Reader(server) as reader:
        said = [
            loop_until_found(version, raw, script, server, reader) for version, raw in (("0.3.9", ""), ("0.5.7", "raw"))
        ]
        await assert_invariants(server.database_url, server=server)
        server.terminate()
        on_disk = {str(path): path.read_bytes() for path in (tmp_path / "data").rglob("*") if path.is_file()}
        assert len(on_disk) > 100
        assert [name for name, content in on_disk.items() if b"CANARY" in content] == []
        assert b"CANARY" not in b"".join(said)
