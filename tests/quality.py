"""How right the detectors are on recorded runs of real agents: ``python -m tests.quality [FILE ...]`` (`make eval`).

Without files: the runs and texts that tests/shared.py finds, written into docs/detection-quality.md with ``--write``.
With files, JSON lines (gzipped or not) in the format of those: the same tables of them on stdout. No server, no clock.
"""

from __future__ import annotations

import argparse
import math
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

from dunetrace.detectors.judging import Phase, judge
from dunetrace.detectors.registry import DETECTORS
from dunetrace.detectors.thresholds import DEFAULT
from dunetrace.runs import RunState
from dunetrace.signals import Severity
from tests.detection import injections
from tests.detection.recorded import FormatError, Recorded, airline, captain, magentic, read
from tests.shared import CHECKOUT

PAGE = CHECKOUT / "docs" / "detection-quality.md"
BEGIN, END = "<!-- the tables of `make eval` -->", "<!-- their end -->"
GRAVE = (Severity.HIGH, Severity.CRITICAL)
Z = 1.96  # 95 %


class Fired(NamedTuple):
    """A signal of a run. `lead_steps` is how many steps were still to come when it was first given, maybe in flight."""

    failure_type: str
    severity: Severity
    lead_steps: int


class Judged(NamedTuple):
    """A run and what fired. `took_s` is for folding it and judging it once, at its end."""

    run_id: str
    failed: bool
    fired: list[Fired]
    took_s: float


def judged(recorded: Recorded, *, failed: bool) -> Judged:
    """Fold a run event by event, looking after each as the poller does in flight, and once more at its end."""
    run_id = str(recorded.row["id"])
    state = RunState(run_id)
    first: dict[str, int] = {}
    for event in recorded.events:
        state.fold(event)
        if not state.terminal:
            for signal in judge(state, DEFAULT.default, Phase.RUNNING):
                first.setdefault(signal.failure_type.value, state.step_count)
    began_s = time.perf_counter()
    state = RunState(run_id)
    for event in recorded.events:
        state.fold(event)
    signals = judge(state, DEFAULT.default, Phase.ENDED)
    took_s = time.perf_counter() - began_s
    steps = state.step_count
    fired = [Fired(s.failure_type.value, s.severity, steps - first.get(s.failure_type.value, steps)) for s in signals]
    return Judged(run_id, failed, fired, took_s)


def wilson(hits: int, of: int) -> tuple[float, float]:
    """The 95 % interval of a share (Wilson's)."""
    if not of:
        return 0.0, 1.0
    share, square = hits / of, Z * Z
    middle = (share + square / (2 * of)) / (1 + square / of)
    half = Z / (1 + square / of) * math.sqrt(share * (1 - share) / of + square / (4 * of * of))
    return middle - half, middle + half


def in_first_half(run_id: str) -> bool:
    """The half on which rules are chosen; by a digest, so that it never changes."""
    return sha256(run_id.encode()).digest()[0] < 128


@dataclass
class Table:
    """Lines of Markdown."""

    head: Sequence[str]
    rows: list[Sequence[str]] = field(default_factory=list)

    def __str__(self) -> str:
        lines = [self.head, ["---"] * len(self.head), *self.rows]
        return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def per_detector(runs: Sequence[Judged]) -> Table:
    """Each type and severity that fired: on how many runs of either kind, and what that says of the run."""
    failing = sum(run.failed for run in runs)
    table = Table(
        ["signal", "severity", f"on success ({len(runs) - failing})", f"on failure ({failing})", "P(fail \\| fired)",
         "95 % interval", "steps before the end"]
    )  # fmt: skip
    order = [detector.failure_type.value for detector in DETECTORS]
    seen = {(one.failure_type, one.severity) for run in runs for one in run.fired}
    for failure_type, severity in sorted(seen, key=lambda key: (order.index(key[0]), key[1].rank)):
        table.rows.append(_row(runs, failure_type, severity))
    table.rows.append(pooled(runs))
    return table


def _row(runs: Sequence[Judged], failure_type: str, severity: Severity) -> list[str]:
    hits = [
        (run, one) for run in runs for one in run.fired if (one.failure_type, one.severity) == (failure_type, severity)
    ]
    leads = [one.lead_steps for _, one in hits]
    return [failure_type, severity.value, *_shares([run for run, _ in hits]), f"{statistics.median(leads):g}"]


def pooled(runs: Sequence[Judged]) -> list[str]:
    """Any signal of HIGH or above."""
    hits = [run for run in runs if any(one.severity in GRAVE for one in run.fired)]
    return ["**any**", "HIGH and above", *_shares(hits), "–"]


def _shares(hits: Sequence[Judged]) -> list[str]:
    failed = sum(run.failed for run in hits)
    low, high = wilson(failed, len(hits))
    share = f"{failed / len(hits):.2f}" if hits else "–"
    return [str(len(hits) - failed), str(failed), share, f"{low:.2f} to {high:.2f}" if hits else "–"]


def loops_seen(runs: Sequence[Recorded]) -> Table:
    """Runs whose orchestrator itself wrote that it is in a loop, twice or more, against those where it did not."""
    table = Table(["runs", "of them", "TOOL_LOOP or TOOL_THRASHING", "of these HIGH"])
    for name, wanted in (("≥ 2 loop flags", True), ("others", False)):
        group = [judged(run, failed=True) for run in runs if (run.row["loop_steps"] >= 2) is wanted]
        found = [[one for one in run.fired if one.failure_type in ("TOOL_LOOP", "TOOL_THRASHING")] for run in group]
        grave = sum(any(one.severity in GRAVE for one in each) for each in found)
        table.rows.append([name, str(len(group)), str(sum(map(bool, found))), str(grave)])
    return table


def report() -> str:
    """All tables of the shared data, as Markdown."""
    runs = [judged(run, failed=not run.row["success"]) for run in airline()]
    base = sum(run.failed for run in runs) / len(runs)
    halves = [[run for run in runs if in_first_half(run.run_id) is first] for first in (True, False)]
    teams = [judged(run, failed=True) for run in captain()]
    parts = [
        f"### Airline: {len(runs)} runs of a customer-service agent, {base:.0%} of them failed",
        "All runs:",
        per_detector(runs),
        f"The half that chose the rules ({len(halves[0])} runs):",
        per_detector(halves[0]),
        f"The half they are reported on ({len(halves[1])} runs):",
        per_detector(halves[1]),
        "### Web browsing: 25 failed runs of agents in a team",
        loops_seen(magentic()),
        f"### Code writing: {len(teams)} failed runs of agents in a team",
        per_detector(teams),
        "### Injection",
        injections.table(),
        "### Time",
        f"Folding a run and judging it with all {len(DETECTORS)} detectors takes {_time(runs)} on the airline runs.",
    ]
    return "\n\n".join(map(str, parts))


def _time(runs: Sequence[Judged]) -> str:
    return "less than a millisecond" if statistics.median(run.took_s for run in runs) < 1e-3 else "milliseconds"


def of_files(paths: Sequence[Path], show: Callable[[str], None]) -> None:
    """The tables of somebody's own runs. Raises FormatError."""
    for path in paths:
        runs = [judged(run, failed=not run.row.get("success", False)) for run in read(path)]
        times_ms = [run.took_s * 1000 for run in runs]
        show(f"{path.name}: {len(runs)} runs, {statistics.median(times_ms):.2f} ms each\n\n{per_detector(runs)}\n")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.quality", description="How right the detectors are.")
    parser.add_argument("files", nargs="*", type=Path, metavar="FILE", help="recorded runs of your own, JSON lines")
    parser.add_argument("--write", action="store_true", help=f"into {PAGE.relative_to(CHECKOUT)}")
    asked = parser.parse_args(arguments)
    if asked.files:
        try:
            of_files(asked.files, print)
        except FormatError as error:
            raise SystemExit(str(error)) from None
        return
    written = report()
    print(written)
    if asked.write:
        before, _, rest = PAGE.read_text("utf-8").partition(BEGIN)
        _, _, after = rest.partition(END)
        PAGE.write_text(f"{before}{BEGIN}\n\n{written}\n\n{END}{after}", "utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
