"""The examples of the page record what the page says."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable

import pytest

from dunetrace import Dunetrace
from tests.docs.pages import code_blocks
from tests.sdk.instrument.asking import answer, without_times
from tests.sdk.instrument.conftest import Recording
from tests.sdk.instrument.provider import Provider
from tests.sdk.sink import Sink
from tests.shared import CHECKOUT

PAGE = CHECKOUT / "docs" / "sdk" / "instrumentation.md"
MODEL, REQUEST = code_blocks(PAGE, "python")


@pytest.mark.parametrize("code", [MODEL, REQUEST], ids=["a model", "a request"])
def test_the_examples_record(code: str, provider: Provider, sink: Sink, client: Callable[..., Dunetrace]) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code.replace("http://127.0.0.1:8001", sink.url)],
        env={**os.environ, "PYTHONPATH": str(CHECKOUT), **provider.environment},
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    recording = Recording(client(), sink)
    if code is MODEL:
        assert without_times(recording.call()[1]) == answer()
        assert done.stdout == "Good day to you.\n"
    else:
        called, _ = recording.call("tool")
        assert called["tool_name"] == "127.0.0.1"
        assert done.stdout == "['httpx']\n"
