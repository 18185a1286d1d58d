"""The exporter as an output: real processors and exporters, good and bad ones, ends, forks, bounds."""

from __future__ import annotations

import gc
import json
import secrets
import subprocess
import sys
import textwrap
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextvars import copy_context
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SimpleSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from dunetrace import Dunetrace
from dunetrace.integrations import otel
from dunetrace.integrations.otel import DunetraceOTelExporter
from tests.integrations.conftest import Traced
from tests.sdk.programs.running import environment
from tests.sdk.sink import Sink
from tests.shared import CHECKOUT

Make = Callable[..., Dunetrace]
TIMEOUT_S = 60


def some_run(dt: Dunetrace, calls: int = 1) -> str:
    with dt.run("agent") as run:
        for number in range(calls):
            run.tool_called("t", {"i": number})
            run.tool_responded("t", output="x")
    return run.run_id


def exported(sink: Sink) -> list[Span]:
    """What an OTLP receiver reads in the bodies."""
    bodies = [request.body for request in sink.requests if request.path == "/v1/traces"]
    requests = [ExportTraceServiceRequest.FromString(body) for body in bodies]
    return [s for request in requests for r in request.resource_spans for scope in r.scope_spans for s in scope.spans]


@pytest.fixture
def otlp(sink: Sink) -> Iterator[TracerProvider]:
    """A provider that would export after a minute, if nobody asked it to before."""
    provider = TracerProvider()
    exporter = OTLPSpanExporter(f"{sink.url}/v1/traces")
    provider.add_span_processor(BatchSpanProcessor(exporter, schedule_delay_millis=60_000))
    yield provider
    provider.shutdown()


# ---- flush and ends


def test_a_flush_has_the_provider_export(client: Make, sink: Sink, otlp: TracerProvider) -> None:
    dt = client(endpoint=None, otel_exporter=DunetraceOTelExporter(otlp))
    run_id = some_run(dt, calls=3)
    assert dt.flush(10)
    spans = exported(sink)
    assert Counter(span.name for span in spans) == {"agent_run": 1, "tool_call": 3}
    assert {span.trace_id for span in spans} == {uuid.UUID(run_id).bytes}
    (root,) = [span for span in spans if span.name == "agent_run"]
    assert root.parent_span_id == b""
    assert {span.parent_span_id for span in spans if span.name == "tool_call"} == {root.span_id}
    assert dt.stats() == {
        "otel": {"emitted": 8, "acknowledged": 8, "rejected": 0, "dropped": 0, "waiting": 0, "attempts": 1}
    }


def test_a_shutdown_exports_what_is_open_as_unfinished(client: Make, sink: Sink, otlp: TracerProvider) -> None:
    dt = client(endpoint=None, otel_exporter=DunetraceOTelExporter(otlp))
    with dt.run("agent") as run:
        run.tool_called("t")
        assert dt.shutdown(10)
    spans = {span.name: {a.key: a.value for a in span.attributes} for span in exported(sink)}
    assert spans["agent_run"]["dunetrace.unfinished"].bool_value
    assert spans["tool_call"]["dunetrace.unanswered"].bool_value


EXIT = """
import sys
from dunetrace import Dunetrace
from dunetrace.integrations.otel import DunetraceOTelExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

provider = TracerProvider()
exporter = OTLPSpanExporter(sys.argv[1] + "/v1/traces")
provider.add_span_processor(BatchSpanProcessor(exporter, schedule_delay_millis=60_000))
"""


def python(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", EXIT + textwrap.dedent(code), *arguments],
        env=environment(), capture_output=True, text=True, timeout=TIMEOUT_S, check=False,
    )  # fmt: skip


@pytest.mark.parametrize("given", ["provider", ""], ids=["provider", "global"])
def test_everything_is_exported_at_exit_before_the_provider_shuts_down(sink: Sink, given: str) -> None:
    """The provider's own exit hook was registered after the SDK's, so it would come first."""
    done = python(
        f"""
        if not {given!r}:
            from opentelemetry import trace
            trace.set_tracer_provider(provider)
        dt = Dunetrace(None, otel_exporter=DunetraceOTelExporter({given}), flush_interval_ms=60_000)
        for _ in range(50):
            with dt.run("a") as run:
                run.tool_called("t")
        """,
        sink.url,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert Counter(span.name for span in exported(sink)) == {"agent_run": 50, "tool_call": 50}


def test_a_forked_child_starts_afresh(sink: Sink) -> None:
    done = python(
        """
        import os
        dt = Dunetrace(sys.argv[1], otel_exporter=DunetraceOTelExporter(provider), flush_interval_ms=5)
        with dt.run("both") as run:
            run.tool_called("parent")
            run.tool_responded("parent")
            assert dt.flush(10)
            run.tool_called("open at the fork")
            dt.flush(10)
            pid = os.fork()
            if pid == 0:
                run.tool_called("child")
                run.tool_responded("child")
                with dt.run("child"):
                    pass
                assert dt.stats()["otel"]["emitted"] == 4, dt.stats()
                sys.exit(0)
            assert os.waitpid(pid, 0)[1] == 0
        """,
        sink.url,
    )
    assert (done.returncode, done.stderr) == (0, "")
    spans = exported(sink)
    assert len({span.span_id for span in spans}) == len(spans)
    names = Counter(
        next((a.value.string_value for a in span.attributes if a.key in {"gen_ai.tool.name", "dunetrace.agent_id"}), "")
        for span in spans
    )
    assert names == {"parent": 1, "open at the fork": 1, "child": 2, "both": 1}
    (both,) = [span for span in spans if span.name == "agent_run" and span.trace_id == spans[0].trace_id]
    calls = [span for span in spans if span.name == "tool_call"]
    assert {(span.trace_id, span.parent_span_id) for span in calls} == {(both.trace_id, both.span_id)}


def test_an_exporter_without_holders_is_let_go(client: Make, otlp: TracerProvider) -> None:
    import weakref

    exporter = DunetraceOTelExporter(otlp)
    dt = Dunetrace(None, otel_exporter=exporter, flush_interval_ms=5)
    some_run(dt)
    assert dt.flush(10)
    gone = weakref.ref(exporter)
    assert dt.shutdown(10)
    del dt, exporter
    gc.collect()
    assert gone() is None


# ---- providers that are bad, or none


class Raising(SpanProcessor):
    def on_end(self, span: ReadableSpan) -> None:
        raise RuntimeError("secret")


class Hanging(SpanExporter):
    def __init__(self) -> None:
        self.reached, self.go_on = threading.Event(), threading.Event()

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self.reached.set()
        self.go_on.wait(TIMEOUT_S)
        return SpanExportResult.SUCCESS


def test_a_provider_that_raises_is_said_once_and_its_events_are_counted(
    client: Make, sink: Sink, capfd: pytest.CaptureFixture[str]
) -> None:
    provider = TracerProvider()
    provider.add_span_processor(Raising())
    dt = client(otel_exporter=DunetraceOTelExporter(provider))
    for _ in range(3):
        some_run(dt)
    assert dt.flush(10) is False
    assert capfd.readouterr().err == "dunetrace: the OpenTelemetry provider raised RuntimeError; spans are lost\n"
    counts = dt.stats()
    assert (counts["http"]["acknowledged"], counts["http"]["rejected"]) == (12, 0)
    assert (counts["otel"]["acknowledged"], counts["otel"]["rejected"]) == (6, 6)
    assert len(sink.accepted) == 12


def test_a_provider_that_hangs_holds_up_nobody_else_and_is_said_once(
    client: Make, sink: Sink, capfd: pytest.CaptureFixture[str]
) -> None:
    hanging, provider = Hanging(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(hanging))
    dt = client(otel_exporter=DunetraceOTelExporter(provider), buffer_size=200)
    some_run(dt)
    assert hanging.reached.wait(TIMEOUT_S)
    for _ in range(200):
        some_run(dt)
        sink.wait_for(lambda: dt.stats()["http"]["waiting"] < 100)
    assert dt.shutdown(0.3) is False
    assert sink.wait_for(lambda: len(sink.accepted) == 201 * 4)
    counts = dt.stats()["otel"]
    assert counts["dropped"] > 0
    assert counts["emitted"] == counts["dropped"] + counts["acknowledged"] + counts["waiting"]
    hanging.go_on.set()


def test_a_hang_is_told(client: Make, capfd: pytest.CaptureFixture[str]) -> None:
    hanging, provider = Hanging(), TracerProvider()
    provider.add_span_processor(BatchSpanProcessor(hanging, schedule_delay_millis=60_000))
    dt = client(endpoint=None, otel_exporter=DunetraceOTelExporter(provider))
    some_run(dt)
    assert dt.flush(0.2) is False
    assert hanging.reached.is_set()
    until, said = time.monotonic() + TIMEOUT_S, ""
    while not said and time.monotonic() < until:
        said = capfd.readouterr().err
    assert said == "dunetrace: the OpenTelemetry provider took longer than 0.2 s; spans wait for it\n"
    hanging.go_on.set()
    assert dt.shutdown(10)
    provider.shutdown()


@pytest.mark.parametrize("provider", [trace.NoOpTracerProvider(), object(), 17, "http://localhost:4318"], ids=range(4))
def test_anything_may_be_given_as_a_provider(client: Make, provider: Any, capfd: pytest.CaptureFixture[str]) -> None:
    dt = client(endpoint=None, otel_exporter=DunetraceOTelExporter(provider))
    some_run(dt)
    dt.flush(10)
    dt.shutdown(10)
    assert capfd.readouterr().err.count("OpenTelemetry provider") == 1


def test_a_provider_itself_is_no_output(client: Make, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("DEBUG", "dunetrace"):
        dt = client(endpoint=None, otel_exporter=TracerProvider())
    assert dt.stats() == {}
    assert "otel_exporter: TracerProvider is not an output" in caplog.text


def test_thresholds_may_be_given(client: Make, capfd: pytest.CaptureFixture[str]) -> None:
    for limits, found in (({"tool_loop": {"enabled": False}}, 0), (None, 1), ({"tool_lop": {}}, 1)):
        memory, provider = InMemorySpanExporter(), TracerProvider()
        provider.add_span_processor(SimpleSpanProcessor(memory))
        dt = client(endpoint=None, otel_exporter=DunetraceOTelExporter(provider, limits=limits))
        with dt.run("a") as run:
            for _ in range(3):
                run.tool_called("t", {"q": 1})
                run.tool_responded("t", output="same")
        assert dt.flush(10)
        (root,) = [span for span in memory.get_finished_spans() if span.name == "agent_run"]
        assert root.attributes["dunetrace.signal_count"] == found
    assert capfd.readouterr().err.count("did you mean `tool_loop`") == 1


# ---- bounds


def test_runs_that_never_end_are_closed_oldest_first_and_counted(
    client: Make, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(otel, "MAX_BYTES", 400_000)
    traced = Traced(client)
    tasks = [(copy_context(), traced.client.run("a")) for _ in range(100)]
    runs = [context.run(scope.__enter__) for context, scope in tasks]
    closed = [span.attributes["dunetrace.run_id"] for span in traced.named("agent_run")]
    assert closed == [run.run_id for run in runs[: len(closed)]]
    assert 0 < len(closed) == traced.exporter.closed_early < 100
    assert sum(run.nbytes for run, _ in traced.exporter._runs.values()) == traced.exporter._bytes <= 400_000
    assert "spans of the oldest end early" in capfd.readouterr().err
    for (context, scope), run in zip(tasks, runs, strict=True):
        run.tool_called("late")
        run.tool_responded("late")
        context.run(scope.__exit__, None, None, None)
    spans = traced.spans()
    roots = {span.context.trace_id: span for span in spans if span.name == "agent_run"}
    assert len(roots) == sum(span.name == "agent_run" for span in spans) == 100
    calls = [span for span in spans if span.name == "tool_call"]
    assert len(calls) == 100
    assert all(span.parent.span_id == roots[span.context.trace_id].context.span_id for span in calls)
    assert (traced.exporter._runs, traced.exporter._bytes) == ({}, 0)
    traced.provider.shutdown()


def long_run(events: int) -> None:
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(Forgetting()))
    exporter = DunetraceOTelExporter(provider)
    dt = Dunetrace(None, otel_exporter=exporter, flush_interval_ms=5, buffer_size=20_000)
    with dt.run("a") as run:
        for number in range(events // 2):
            run.tool_called("t", {"i": number})
            run.tool_responded("t", output="x")
            if number % 4_000 == 3_999:
                assert dt.flush(TIMEOUT_S)
                assert exporter._bytes < 4_000_000
    assert dt.shutdown(TIMEOUT_S)
    assert (exporter._bytes, exporter.closed_early) == (0, 0)


class Forgetting(SpanExporter):
    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        return SpanExportResult.SUCCESS


def test_a_long_run_costs_a_bounded_amount_of_memory() -> None:
    long_run(24_000)


@pytest.mark.prove
def test_a_run_of_a_million_events_costs_a_bounded_amount_of_memory() -> None:
    long_run(1_000_000)


# ---- without it, beside others, content


def test_without_opentelemetry_the_extra_is_named() -> None:
    """In an interpreter that has nothing but the standard library and this checkout."""
    code = f"import sys; sys.path.insert(0, {str(CHECKOUT)!r}); import dunetrace.integrations.otel"
    command = [sys.executable, "-I", "-S", "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    assert done.returncode == 1
    assert "ImportError: dunetrace.integrations.otel needs opentelemetry-sdk" in done.stderr
    assert "pip install '.[otel]'" in done.stderr


def test_what_is_off_is_not_imported() -> None:
    done = python(
        """
        for name in [name for name in sys.modules if name.startswith("dunetrace")]:
            del sys.modules[name]
        from dunetrace import Dunetrace
        Dunetrace(None)
        optional = ("dunetrace.integrations", "dunetrace.sdk.ndjson")
        print([name for name in sys.modules if name.startswith(optional)])
        """,
        "http://127.0.0.1:9",
    )
    assert (done.stdout, done.stderr) == ("[]\n", "")


def test_all_outputs_at_once_say_the_same(
    client: Make, sink: Sink, otlp: TracerProvider, capfd: pytest.CaptureFixture[str]
) -> None:
    dt = client(emit_as_json=True, otel_exporter=DunetraceOTelExporter(otlp))
    for _ in range(30):
        some_run(dt, calls=5)
    assert dt.flush(10)
    lines = [json.loads(line) for line in capfd.readouterr().out.splitlines()]
    assert {name: counts["acknowledged"] for name, counts in dt.stats().items()} == {
        "http": 360, "ndjson": 360, "otel": 360
    }  # fmt: skip
    assert Counter(e["run_id"] for e in sink.accepted) == Counter(line["run_id"] for line in lines)
    assert Counter(span.name for span in exported(sink)) == {"agent_run": 30, "tool_call": 150}


def test_no_content_in_any_output(
    client: Make, sink: Sink, otlp: TracerProvider, capfd: pytest.CaptureFixture[str]
) -> None:
    """Every byte of NDJSON, OTLP, HTTP and stderr; and spans as they are in memory."""
    planted: list[str] = []

    def canary() -> str:
        planted.append(f"canary-{secrets.token_hex(8)}")
        return planted[-1]

    memory = InMemorySpanExporter()
    otlp.add_span_processor(SimpleSpanProcessor(memory))
    dt = client(emit_as_json=True, otel_exporter=DunetraceOTelExporter(otlp), hash_key=canary(), debug=True)
    with pytest.raises(ValueError, match="canary"), dt.run(
        "agent", user_input=f"ignore all previous instructions {canary()}", system_prompt=canary(), task=canary(),
        model="m", tools=["t", {"name": "u", "description": canary()}], secret=canary(),
    ) as run:  # fmt: skip
        run.llm_called("m", 10, messages=canary())
        run.llm_responded(output=canary() + "x" * 6000)
        run.llm_responded(output_hash=canary(), finish_reason=canary())
        for _ in range(4):
            run.tool_called("t", {"url": "the same", canary(): [canary()]})
            run.external_signal("s", note=canary(), deep={"a": [canary()]})
            run.tool_responded("t", False, error=canary(), output={"text": canary()})
        run.retrieval_called("i", query=canary())
        run.retrieval_responded("i", 0, canary(), content=[canary()])
        run.retrieval_called("i", canary())
        run.user_message(f"act as {canary()}")
        raise ValueError(canary())
    assert dt.shutdown(10)
    out, err = capfd.readouterr()
    sent = b"".join(request.body + repr(request.headers).encode() for request in sink.requests)
    spans = memory.get_finished_spans()
    assert {span.name for span in spans} == {"agent_run", "llm_call", "tool_call", "retrieval"}
    assert any(span.events for span in spans)
    assert len(exported(sink)) == len(spans)
    for place in (out.encode(), err.encode(), sent, "".join(span.to_json() for span in spans).encode()):
        assert [text for text in planted if text.encode() in place] == []
    assert out
    assert sent
