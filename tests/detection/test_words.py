"""Every explanation as the engineer on call reads it, against the files in words/: of the smallest run that shows the
failure, and of a recorded run that has it.

``python -m tests.detection.test_words`` writes the files anew. Read what changed before you keep it.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest

from dunetrace.detectors.judging import Phase, judge
from dunetrace.detectors.registry import DETECTORS
from dunetrace.detectors.thresholds import DEFAULT
from dunetrace.explain import explain
from dunetrace.runs import RunState
from dunetrace.signals import FailureSignal
from tests.detection.building import folded
from tests.detection.cases import signals
from tests.detection.faults import FAULTS
from tests.detection.recorded import Recorded, airline, captain, magentic

WORDS = Path(__file__).parent / "words"
NAMES = [f"{detector.name}.{kind}".strip(".") for detector in DETECTORS for kind in detector.words]
HUNG_S = 100  # when a run that fell silent is looked at
MIN_TOOL_CALLS = 5  # of the run that faults are put into


class Found(NamedTuple):
    """A signal, and in which run it was found."""

    source: str
    signal: FailureSignal


def name_of(signal: FailureSignal) -> str:
    return f"{signal.failure_type.value.lower()}.{signal.evidence.get('kind', '')}".strip(".")


def judged(run: RunState) -> list[FailureSignal]:
    run.as_of = run.last_received_at + (0 if run.terminal else HUNG_S)
    run.silent = not run.terminal
    return judge(run, DEFAULT.default, Phase.ENDED if run.terminal else Phase.STALLED)


@cache
def smallest() -> dict[str, Found]:
    return {name_of(signal): Found("The smallest run that shows it", signal) for signal in signals().values()}


@cache
def recorded() -> dict[str, Found]:
    """The first recorded run of each name; where there is none, a run that went well with the fault put in."""
    flights = airline()
    good = [run for run in flights if run.row["success"]]
    usual = tuple(folded(events).step_count for _, events in good[-50:])
    found: dict[str, Found] = {}
    for source, runs in (("airline", flights), ("web-browsing", magentic()), ("code-writing", captain())):
        for row, events in runs:
            run = folded(events, row["id"])
            run.baseline_steps = usual if source == "airline" else ()
            for signal in judged(run):
                found.setdefault(name_of(signal), Found(f"A recorded {source} run, which failed", signal))
    spoilt = spoilt_runs(good)
    return {
        name: found.get(name) or Found("A recorded airline run with the fault put in", spoilt[name]) for name in NAMES
    }


def spoilt_runs(good: list[Recorded]) -> dict[str, FailureSignal]:
    """The one signal of each fault, put into a run that has none without it."""
    twin = next(events for _, events in good if folded(events).tool_calls >= MIN_TOOL_CALLS)
    assert judged(folded(twin)) == []
    found = {}
    for name, fault in FAULTS.items():
        (signal,) = judged(folded(fault(twin), twin[0].run_id))
        assert name_of(signal) == name
        found[name] = signal
    return found


def page(name: str) -> str:
    return "\n".join(line for found in (smallest()[name], recorded()[name]) for line in lines(found))


def lines(found: Found) -> Iterator[str]:
    signal, explanation = found.signal, explain(found.signal)
    yield f"==== {found.source}"
    yield f"{signal.failure_type} {signal.severity}, confidence {signal.confidence:.2f}, step {signal.step_index}"
    yield ""
    yield explanation.title
    for label, text in (
        ("What", explanation.what),
        ("Why it matters", explanation.why_it_matters),
        ("Evidence", explanation.evidence_summary),
    ):
        yield ""
        yield textwrap.fill(f"{label}: {text}", 110, break_long_words=False, break_on_hyphens=False)
    for number, fix in enumerate(explanation.suggested_fixes, start=1):
        yield ""
        yield f"Fix {number} ({fix.language}): {fix.description}"
        yield ""
        yield textwrap.indent(fix.code.rstrip("\n"), "    ")
    yield ""


def test_every_kind_of_words_has_its_smallest_and_its_recorded_run() -> None:
    assert set(smallest()) == set(NAMES)
    assert set(recorded()) == set(NAMES)


def test_every_file_is_one_of_them() -> None:
    assert {path.name for path in WORDS.iterdir()} == {f"{name}.txt" for name in NAMES}


@pytest.mark.parametrize("name", NAMES)
def test_the_words_are_those_that_were_read(name: str) -> None:
    assert page(name) == (WORDS / f"{name}.txt").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", NAMES)
def test_nothing_is_left_open_in_them(name: str) -> None:
    for said in ("n/a", "unknown", "None", "(no name)", "(no label)"):
        assert said not in page(name).split("\nFix ")[0]


def write() -> None:
    WORDS.mkdir(exist_ok=True)
    for path in WORDS.iterdir():
        path.unlink()
    for name in NAMES:
        (WORDS / f"{name}.txt").write_text(page(name), encoding="utf-8")


if __name__ == "__main__":
    write()
