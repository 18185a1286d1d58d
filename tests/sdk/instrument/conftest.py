"""A provider, the libraries instrumented, and what a client shipped of a run."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest
import trio

from dunetrace import Dunetrace
from dunetrace.sdk import instrument
from tests.sdk.instrument.provider import Provider, running_provider
from tests.sdk.sink import Sink

Payload = dict[str, Any]


class Recording:
    """A client of the sink, and the payloads that arrived there."""

    def __init__(self, client: Dunetrace, sink: Sink) -> None:
        self.client = client
        self._sink = sink

    def run(self, agent_id: str = "agent") -> Any:
        return self.client.run(agent_id, user_input="Hello")

    def events(self, run_id: str | None = None) -> list[dict[str, Any]]:
        """Everything that was shipped, in order."""
        assert self.client.flush(10)
        return [event for event in self._sink.accepted if run_id in (None, event["run_id"])]

    def types(self) -> list[str]:
        """Without the run's begin and end."""
        return [event["event_type"] for event in self.events() if not event["event_type"].startswith("run.")]

    def calls(self, kind: str = "llm") -> list[tuple[Payload, Payload]]:
        """Each call with the one answer it got."""
        events = self.events()
        called = {_call_of(e): e["payload"] for e in events if e["event_type"] == f"{kind}.called"}
        answered = [(_call_of(e), e["payload"]) for e in events if e["event_type"] == f"{kind}.responded"]
        assert sorted(called) == sorted(call for call, _ in answered)
        answers = dict(answered)
        return [(payload, answers[call]) for call, payload in called.items()]

    def call(self, kind: str = "llm") -> tuple[Payload, Payload]:
        """The only event pair of the run."""
        assert self.types() == [f"{kind}.called", f"{kind}.responded"]
        (pair,) = self.calls(kind)
        return pair


def _call_of(event: dict[str, Any]) -> tuple[str, int]:
    return event["run_id"], event["payload"]["call_id"]


@pytest.fixture
def provider() -> Iterator[Provider]:
    with running_provider() as running:
        yield running


@pytest.fixture(autouse=True)
def instrumented() -> Iterator[None]:
    instrument.install(None)
    yield
    instrument.remove()


@pytest.fixture
def recording(client: Callable[..., Dunetrace], sink: Sink) -> Recording:
    return Recording(client(), sink)


@pytest.fixture(params=["asyncio", "trio"])
def run_async(request: pytest.FixtureRequest) -> Callable[[Callable[[], Awaitable[Any]]], Any]:
    """Runs an async function to its end, on each of the two."""
    if request.param == "trio":
        return trio.run
    return lambda function: asyncio.run(function())
