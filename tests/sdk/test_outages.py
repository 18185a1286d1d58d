"""A server that misbehaves in every way for a while: each event is stored once or counted, and the counts add up."""

from __future__ import annotations

import os
import random
import shutil
import socket
import ssl
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from dunetrace import Dunetrace
from tests.sdk.programs.running import program
from tests.sdk.programs.work import EVENTS, one_run, whole_runs
from tests.sdk.sink import CUT, RESET, Answer, Sink, running_sink

Make = Callable[..., Dunetrace]

PASSING = [
    Answer(503, {"Retry-After": "0.02"}), Answer(429, {"Retry-After": "0.01"}), Answer(500), Answer(408), RESET,
    Answer(between=lambda: threading.Event().wait(0.05)), Answer(), Answer(),
]  # fmt: skip
FINAL = [Answer(401), Answer(422), Answer(413)]


@pytest.mark.parametrize("seed", [*range(4), *(pytest.param(n, marks=pytest.mark.prove) for n in range(4, 100))])
def test_the_counts_add_up_whatever_is_answered(client: Make, sink: Sink, seed: int) -> None:
    rng = random.Random(seed)
    # A batch that was taken without an answer and then refused is stored and counted as lost: not both in one test.
    troubles = PASSING + (FINAL if seed % 2 else [CUT])
    fair = threading.Event()
    sink.answer = lambda path, body: Answer() if fair.is_set() else rng.choice(troubles)
    dt = client(buffer_size=rng.choice([1, 7, 60, 10_000]))
    emitted = 0
    for _ in range(rng.randrange(20, 60)):
        one_run(dt)
        emitted += EVENTS
        counts = dt.stats()["http"]
        assert counts["emitted"] == emitted
        assert counts["emitted"] == sum(counts[name] for name in ("acknowledged", "rejected", "dropped", "waiting"))
        if rng.random() < 0.2:
            dt.flush(0.05)
    fair.set()
    dt.flush(30)
    one_run(dt)  # carries the report of what was lost before it
    dt.flush(30)
    counts = dt.stats()["http"]
    stored = sink.stored
    assert counts["waiting"] == 0
    assert len({(event["run_id"], event["event_id"]) for event in stored}) == len(stored) == counts["acknowledged"]
    assert counts["acknowledged"] + counts["dropped"] == counts["emitted"] == emitted + EVENTS
    if counts["dropped"]:
        assert 0 < sink.reported_lost <= counts["dropped"]


def test_an_outage_in_all_its_stages(client: Make) -> None:
    """Refused, then hanging, then 503, 429 and answers cut off, then well again."""
    with running_sink() as first:
        port = first.server_port
        first.answer = lambda path, body: Answer(headers={"Connection": "close"})
        dt = client(endpoint=first.url)
        runs = {one_run(dt)}
        assert dt.flush(10)
    runs |= {one_run(dt) for _ in range(20)}
    assert dt.flush(0.3) is False
    with socket.create_server(("127.0.0.1", port), backlog=8):  # takes connections and never answers; then resets them
        runs |= {one_run(dt) for _ in range(20)}
        assert dt.flush(0.6) is False
    troubles = [Answer(503, {"Retry-After": "0.2"}), Answer(429, {"Retry-After": "0.1"}), RESET, CUT, CUT]
    with running_sink(port) as second:
        second.answer = lambda path, body: troubles.pop(0) if troubles else Answer()
        runs |= {one_run(dt) for _ in range(20)}
        assert dt.flush(30)
        assert whole_runs(first.stored + second.stored) == runs
        assert len({request.headers["idempotency-key"] for request in second.requests[:6]}) == 1
    assert dt.stats()["http"]["dropped"] == 0


def test_a_flush_that_was_given_up_hurries_nobody(client: Make, sink: Sink) -> None:
    sink.answer = lambda path, body: Answer(503, {"Retry-After": "300"})
    dt = client()
    one_run(dt)
    assert dt.flush(0.2) is False
    assert dt.stats()["http"]["attempts"] == 1


def test_flush_after_the_end_says_so_at_once(client: Make, sink: Sink) -> None:
    dt = client()
    one_run(dt)
    assert dt.shutdown(10)
    assert dt.flush(3_600) is True
    one_run(dt)
    assert dt.flush(3_600) is False


def test_one_may_wait_for_ever(client: Make, sink: Sink) -> None:
    sink.answer = lambda path, body: Answer(503, {"Retry-After": "0.01"}) if len(sink.requests) < 3 else Answer()
    dt = client()
    one_run(dt)
    assert dt.flush(float("inf"))
    one_run(dt)
    assert dt.shutdown(float("inf"))
    assert len(whole_runs(sink.accepted)) == 2


class Broken:
    """Somebody's output that breaks its promise and raises."""

    name = "broken"
    batch_size = largest_batch = 10
    slow_modules: tuple[str, ...] = ()

    def pack(self, taken: list[object], lost: int) -> object:
        raise RuntimeError("not written")

    attempt = reset = pack


def test_what_an_output_cannot_write_is_counted(client: Make) -> None:
    dt = client(endpoint=None, otel_exporter=Broken())
    for _ in range(10):
        one_run(dt)
    assert dt.flush(10) is False
    assert dt.stats()["broken"]["dropped"] == dt.stats()["broken"]["emitted"] == 10 * EVENTS


# ---- where an endpoint may be


def test_an_endpoint_may_have_a_path(client: Make, sink: Sink) -> None:
    for endpoint in (f"{sink.url}/traces/of/agents/", f"{sink.url}/traces/of/agents/v1/ingest"):
        dt = client(endpoint=endpoint)
        one_run(dt)
        assert dt.flush(10)
    assert {request.path for request in sink.requests} == {"/traces/of/agents/v1/ingest"}


def test_a_proxy_in_the_environment_is_not_used(client: Make, sink: Sink, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    dt = client()
    one_run(dt)
    assert dt.flush(10)


def has_ipv6() -> bool:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        return False
    return True


@pytest.mark.skipif(not has_ipv6(), reason="no IPv6 here")
def test_an_endpoint_may_be_an_ipv6_address(client: Make) -> None:
    with running_sink(host="::1") as sink:
        dt = client(endpoint=f"http://[::1]:{sink.server_port}")
        one_run(dt)
        assert dt.flush(10)
        assert len(whole_runs(sink.accepted)) == 1
        assert sink.requests[0].headers["host"] == f"[::1]:{sink.server_port}"


@pytest.mark.skipif(shutil.which("openssl") is None, reason="no openssl to make a certificate with")
def test_a_private_certificate_is_trusted_by_ssl_cert_file_and_by_nothing_else(tmp_path: Path) -> None:
    certificate, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=127.0.0.1",
         "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", key, "-out", certificate],
        check=True, capture_output=True,
    )  # fmt: skip
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    with running_sink(context=context) as sink:
        url = f"https://127.0.0.1:{sink.server_port}"
        done = program("ends", url, 3, "return", SSL_CERT_FILE=str(certificate))
        assert (done.returncode, done.stderr) == (0, "")
        assert len(whole_runs(sink.accepted)) == 3
        done = program("ends", url, 3, "return", SSL_CERT_FILE=os.devnull)
        assert (done.returncode, done.stderr.count("\n")) == (0, 1)
        assert "SSL_CERT_FILE" in done.stderr
        assert len(sink.accepted) == 3 * EVENTS


def test_https_where_there_is_only_http_is_said(sink: Sink) -> None:
    done = program("ends", sink.url.replace("http:", "https:"), 3, "return")
    assert done.returncode == 0
    assert "does not speak TLS" in done.stderr
