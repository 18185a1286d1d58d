"""Spans of runs, to any OpenTelemetry provider: `Dunetrace(otel_exporter=DunetraceOTelExporter(provider))`.

One more `Output`, called by its shipper's drain thread only: spans are made, and finished runs judged by the detectors
the server has, beside the agent and never on its threads. What the spans are is in `otel_spans`. Needs
``opentelemetry-sdk``.
"""

from __future__ import annotations

import copy
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

try:
    from opentelemetry import trace
    from opentelemetry.sdk.trace.id_generator import IdGenerator as _  # noqa: F401 - the API alone is not enough
except ImportError as error:
    raise ImportError(
        "dunetrace.integrations.otel needs opentelemetry-sdk: install Dunetrace with the extra `otel`, from its "
        "checkout by `pip install '.[otel]'`, or opentelemetry-sdk itself"
    ) from error

from dunetrace.detectors.judging import Phase
from dunetrace.integrations.otel_spans import RunIds, RunSpans
from dunetrace.sdk import lifecycle
from dunetrace.sdk.limits import checked
from dunetrace.sdk.outputs import Outcome, Parcel, Verdict, payload
from dunetrace.sdk.ring import Taken

MAX_BYTES: Final = 64 * 1024 * 1024  # of all open runs together
_MOST_REMEMBERED = 10_000  # runs that were closed early
_LONGEST_FLUSH_S = 3600.0


class DunetraceOTelExporter:
    """Makes spans of what a client's agents do; for one client.

    `provider` is a `TracerProvider` of ``opentelemetry.sdk.trace``, the global one where it is left out; its sampler,
    processors and exporters decide what becomes of the spans. `limits` are the detectors' thresholds, as the
    ``default`` section of detectors.yml: ``{"tool_loop": {"threshold": 4}}``. `closed_early` counts the runs whose
    spans were ended because too many were open.

        provider = TracerProvider()
        provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        dt = Dunetrace(otel_exporter=DunetraceOTelExporter(provider))
    """

    name = "otel"
    batch_size = 100
    largest_batch = 500
    slow_modules: tuple[str, ...] = ()

    def __init__(
        self, provider: trace.TracerProvider | None = None, *, limits: Mapping[str, Mapping[str, object]] | None = None
    ) -> None:
        self._provider = provider
        self._limits = checked(limits, "the OpenTelemetry exporter")
        lifecycle.stop_before_others(self)  # above all before the shutdown that the provider has registered
        self.reset()

    def reset(self) -> None:
        """Forget every run: this is the end, or a forked child and they are the parent's."""
        self._ids = RunIds()
        self._tracer: trace.Tracer | None = None
        self._runs: dict[str, tuple[RunSpans, int]] = {}  # with its bytes; the one heard of last comes last
        self._closed: dict[str, None] = {}
        self._bytes = 0
        self._lock = threading.Lock()  # for who gives one exporter to two clients
        self.closed_early = 0

    def pack(self, taken: list[Taken], lost: int) -> tuple[Parcel, list[Taken]]:
        """The events as they are; spans are made of them in `attempt`."""
        return Parcel(b"", taken, lost=lost), []

    def attempt(self, parcel: Parcel, timeout_s: float) -> Outcome:
        """Make spans of the events and give those that are finished to the provider. What it raises on is rejected."""
        with self._lock, _watched(timeout_s):
            failed = sum(not self._took(one) for one in parcel.taken)
        return Outcome(Verdict.DONE, rejected=failed)

    def flush(self, timeout_s: float, *, final: bool) -> bool:
        """Have the provider export what it holds; at the end also the spans of runs that are still open."""
        timeout_s = min(timeout_s, _LONGEST_FLUSH_S)
        with self._lock, _watched(timeout_s):
            try:
                while final and self._runs:
                    self._close(next(iter(self._runs)))
                force_flush = getattr(self._resolved_provider(), "force_flush", None)
                return force_flush is None or force_flush(int(timeout_s * 1000)) is not False
            except Exception as error:
                _complain(error)
                return False

    # ---- runs

    def _took(self, one: Taken) -> bool:
        try:
            self._take(one)
        except Exception as error:  # the provider's, its processors' or their exporters'
            _complain(error)
            return False
        return True

    def _take(self, one: Taken) -> None:
        record = one.record
        run_id = record.key.run_id
        event = record.event(payload(one))
        run = self._pop(run_id) if run_id in self._runs else self._new_run(one)
        if run.root is None and self._makes_root(one):
            run.open_root(event)
        try:
            run.take(event)
        finally:
            if record.edge == "end":
                run.end(event.timestamp, Phase.ENDED, self._limits)
            else:
                held = run.nbytes
                self._runs[run_id] = run, held
                self._bytes += held
                self._make_room()

    def _new_run(self, one: Taken) -> RunSpans:
        return RunSpans(one.segment, one.record.key.run_id, self._run_tracer(), self._ids)

    def _pop(self, run_id: str) -> RunSpans:
        run, held = self._runs.pop(run_id)
        self._bytes -= held
        return run

    def _makes_root(self, one: Taken) -> bool:
        """A run's root is made at its start; at its end where the start was lost before it came here."""
        edge = one.record.edge
        return edge == "start" or (edge == "end" and one.record.key.run_id not in self._closed)

    def _make_room(self) -> None:
        while self._bytes > MAX_BYTES and len(self._runs) > 1:
            run_id = next(iter(self._runs))
            self._closed[run_id] = None
            if len(self._closed) > _MOST_REMEMBERED:
                del self._closed[next(iter(self._closed))]
            self.closed_early += 1
            lifecycle.warn_once(
                "otel open", f"more than {len(self._runs)} runs are open at once; the spans of the oldest end early"
            )
            self._close(run_id)

    def _close(self, run_id: str) -> None:
        run = self._pop(run_id)
        run.end(run.state.last_order[0], Phase.RUNNING, self._limits)

    # ---- the provider

    def _resolved_provider(self) -> Any:
        if self._provider is None:
            self._provider = trace.get_tracer_provider()
            lifecycle.stop_before_others(self)  # it may have been made after this exporter
        return self._provider

    def _run_tracer(self) -> trace.Tracer:
        """The provider's tracer with our ids, made anew in a forked child, whose resource may be another."""
        if self._tracer is None:
            self._tracer = copy.copy(self._resolved_provider().get_tracer("dunetrace"))
            if hasattr(self._tracer, "id_generator"):
                self._tracer.id_generator = self._ids
            else:
                lifecycle.warn_once(
                    "otel provider",
                    "the OpenTelemetry provider is none of opentelemetry.sdk.trace: trace ids will not be the runs'",
                )
        return self._tracer


@contextmanager
def _watched(timeout_s: float) -> Iterator[None]:
    """Say so when what is done in here takes longer."""
    timer = threading.Timer(
        timeout_s,
        lifecycle.warn_once,
        ("otel hangs", f"the OpenTelemetry provider took longer than {timeout_s:.1f} s; spans wait for it"),
    )
    timer.daemon = True
    try:
        timer.start()
    except RuntimeError:  # no more threads: the interpreter is at its end
        lifecycle.debug("otel: no watch could be started", once="otel watch")
    try:
        yield
    finally:
        timer.cancel()


def _complain(error: Exception) -> None:
    lifecycle.warn_once(
        f"otel {type(error).__name__}", f"the OpenTelemetry provider raised {type(error).__name__}; spans are lost"
    )
