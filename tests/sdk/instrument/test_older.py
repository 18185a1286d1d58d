"""The majors before the installed ones, which many agents still run, each in an environment of its own."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from dunetrace import Dunetrace
from tests.published import python_of
from tests.sdk.instrument.asking import answer, without_times
from tests.sdk.instrument.conftest import Recording
from tests.sdk.instrument.provider import Provider, Reply
from tests.sdk.sink import Sink
from tests.shared import CHECKOUT

AGENT = Path(__file__).with_name("older_agent.py")


@pytest.mark.prove
@pytest.mark.parametrize(("library", "version"), [("openai", "1.99.9"), ("anthropic", "0.60.0")])
def test_older_majors(
    library: str, version: str, provider: Provider, sink: Sink, client: Callable[..., Dunetrace]
) -> None:
    provider.script(
        Reply(), Reply(), Reply(text="", tool="search"), Reply(), Reply(), Reply(), Reply(), Reply(status=400)
    )
    done = subprocess.run(
        [str(python_of(version, library)), str(AGENT), library, provider.url],
        env={**os.environ, "PYTHONPATH": str(CHECKOUT), "DUNETRACE_ENDPOINT": sink.url},
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    recording = Recording(client(), sink)
    assert recording.types() == ["llm.called", "llm.responded"] * 8 + ["tool.called", "tool.responded"]
    answers = [without_times(answered) for _, answered in recording.calls()]
    streams_count = library == "anthropic"
    whole, streamed = answer(), answer(usage=streams_count)
    assert answers[:2] == [whole, streamed]
    assert answers[2]["finish_reason"] == "tool_calls"
    assert "output_length" not in answers[2]
    assert answers[3:7] == [streamed, whole, whole, streamed]
    assert answers[7]["error_hash"]
    assert "finish_reason" not in answers[7]
