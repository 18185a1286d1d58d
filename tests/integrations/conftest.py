"""What these tests share: the SDK's sink and clients, a provider, and what it was given."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from dunetrace import Dunetrace
from dunetrace.integrations.otel import DunetraceOTelExporter
from tests.sdk.conftest import clean_process, client, sink

__all__ = ["clean_process", "client", "sink"]


class Traced:
    """A client whose runs become spans in memory."""

    def __init__(self, make: Callable[..., Dunetrace], **provided: Any) -> None:
        self._memory = InMemorySpanExporter()
        self.provider = TracerProvider(**provided)
        self.provider.add_span_processor(SimpleSpanProcessor(self._memory))
        self.exporter = DunetraceOTelExporter(self.provider)
        self.client = make(endpoint=None, otel_exporter=self.exporter)

    def finished(self) -> list[ReadableSpan]:
        return list(self._memory.get_finished_spans())

    def spans(self) -> list[ReadableSpan]:
        assert self.client.flush(10), self.client.stats()
        return self.finished()

    def named(self, name: str) -> list[ReadableSpan]:
        return [span for span in self.spans() if span.name == name]

    def root(self) -> ReadableSpan:
        (root,) = self.named("agent_run")
        return root


@pytest.fixture
def traced(client: Callable[..., Dunetrace]) -> Iterator[Traced]:
    traced = Traced(client)
    yield traced
    traced.provider.shutdown()
