"""docs/sdk/outputs.md: its examples do what they say, and its table names every attribute there is."""

from __future__ import annotations

import re
import subprocess
import sys
from collections import Counter

import pytest

from tests.docs.pages import code_blocks, named, table_rows
from tests.integrations.conftest import Traced
from tests.integrations.test_otel import TIMEOUT_S, exported
from tests.integrations.test_otel_spans import captured_story
from tests.sdk.programs.running import environment
from tests.sdk.sink import Sink
from tests.sdk.test_ndjson import events
from tests.shared import CHECKOUT

PAGE = CHECKOUT / "docs" / "sdk" / "outputs.md"
NDJSON, OTEL = code_blocks(PAGE, "python")


def run(code: str, **env: str) -> bytes:
    done = subprocess.run([sys.executable, "-c", code], env=environment(**env), capture_output=True, timeout=TIMEOUT_S)  # noqa: PLW1510
    assert (done.returncode, done.stderr) == (0, b"")
    return done.stdout


def test_the_ndjson_example_writes_the_line_beside_it() -> None:
    (shown,) = events([code_blocks(PAGE, "json")[0].replace("\n", "").encode()])
    started, called, completed = events(run(NDJSON).splitlines())
    assert [e["event_type"] for e in (started, called, completed)] == ["run.started", "tool.called", "run.completed"]
    assert list(called) == list(shown)
    assert list(called["payload"]) == list(shown["payload"])


def test_the_otel_example_exports(sink: Sink) -> None:
    run(OTEL, OTEL_EXPORTER_OTLP_ENDPOINT=sink.url)
    assert Counter(span.name for span in exported(sink)) == {"agent_run": 1, "llm_call": 1, "tool_call": 1}


def test_every_attribute_stands_in_the_table(traced: Traced) -> None:
    with pytest.raises(KeyError), traced.client.run("a", task="t") as run:
        run.llm_called("m")
        run.llm_responded(1, prompt_tokens=9, cached_prompt_tokens=3)
        run.retrieval_called("docs", query="q")
        run.retrieval_responded("docs", 1, 0.5, content="c")
        run.tool_called("t")
        raise KeyError
    captured_story(traced.client)
    seen = {name for span in traced.spans() for name in span.attributes}
    seen |= {name for span in traced.spans() for event in span.events for name in event.attributes}
    told = {name for row in table_rows(PAGE) if len(row) == 3 for name in named(row[0])}
    general = {re.sub(r"^dunetrace\.meta\..+", "dunetrace.meta.<key>", name) for name in seen}
    signals = {name for name in general if name.startswith("dunetrace.signal.")}
    assert {re.sub(r"^dunetrace\.signal\.\d+", "", n) for n in signals if ".evidence." not in n} <= {
        ".failure_type", *told
    }  # fmt: skip
    assert general - signals - told == set()
