"""What the SDK's tests share: a sink, and a client that is closed whatever happens."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator

import pytest

from dunetrace import Dunetrace
from dunetrace.sdk import lifecycle
from tests.sdk.sink import Sink, running_sink


@pytest.fixture(autouse=True)
def clean_process(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in ("ENDPOINT", "API_KEY", "AGENT_ID", "HASH_KEY", "DISABLED"):
        monkeypatch.delenv(f"DUNETRACE_{name}", raising=False)
    monkeypatch.setattr(lifecycle, "_warned", set())
    monkeypatch.setattr(lifecycle, "_mentioned", set())
    yield
    logging.getLogger("dunetrace").handlers.clear()  # of `debug=True`: it holds the stderr of its test


@pytest.fixture
def sink() -> Iterator[Sink]:
    with running_sink() as running:
        yield running


@pytest.fixture
def client(sink: Sink) -> Iterator[Callable[..., Dunetrace]]:
    """Makes clients of the sink; each is shut down at the end."""
    made: list[Dunetrace] = []

    def make(**arguments: object) -> Dunetrace:
        made.append(Dunetrace(arguments.pop("endpoint", sink.url), flush_interval_ms=20, **arguments))
        return made[-1]

    yield make
    for dt in made:
        dt.shutdown(0.2)
