"""Two limits over the same runs: what appears, what disappears, what is told otherwise."""

from __future__ import annotations

from typing import Any

from dunetrace.backtest import MOST_NAMED, Backtest, StoredRun
from dunetrace.detectors.thresholds import DEFAULT, check
from tests.detection.building import Script
from tests.detection.recorded import airline


def _looping(run_id: str, times: int) -> StoredRun:
    script = Script(run_id).started()
    for _ in range(times):
        script.llm("tool_calls").tool("search", 1)
    return StoredRun(run_id, script.completed().events, (), silent=False, as_of=0.0)


def _compared(runs: list[StoredRun], **sections: dict[str, Any]) -> Backtest:
    backtest = Backtest()
    backtest.add_all(runs, DEFAULT.default, check({"default": sections}).default)
    return backtest


RUNS = [_looping("none", 1), _looping("three", 3), _looping("four", 4)]


def test_stricter_thresholds_make_signals_disappear() -> None:
    change = _compared(RUNS, tool_loop={"threshold": 4, "again": 20}).changes["TOOL_LOOP"]
    assert (change.now["HIGH"], change.then["HIGH"]) == (2, 1)
    assert (change.appear, change.disappear, change.severity) == ([], ["three"], [])


def test_looser_ones_make_them_appear() -> None:
    change = _compared([_looping("two", 2)], tool_loop={"threshold": 2}).changes["TOOL_LOOP"]
    assert change.appear == ["two"] and change.then == {"HIGH": 1}


def test_a_detector_that_is_switched_off_or_put_in_the_shadow() -> None:
    assert _compared(RUNS, tool_loop={"enabled": False}).changes["TOOL_LOOP"].disappear == ["three", "four"]
    change = _compared(RUNS, tool_loop={"shadow": True}).changes["TOOL_LOOP"]
    assert change.severity == ["three", "four"] and change.then == {"shadow": 2}


def test_the_same_thresholds_change_nothing_on_recorded_runs() -> None:
    runs = [StoredRun(row["id"], events, (), silent=False, as_of=0.0) for row, events in airline()]
    backtest = _compared(runs)
    assert backtest.runs == 200 and not backtest.failed
    for change in backtest.changes.values():
        assert change.now == change.then
        assert change.appear == change.disappear == change.severity == []
    assert backtest.as_dict()["changes"]["RETRY_STORM"]["now"]["HIGH"] >= 5


def test_it_says_so_in_lines() -> None:
    many = [_looping(f"run {n:02}", 3) for n in range(MOST_NAMED + 2)]
    lines = list(_compared(many, tool_loop={"enabled": False}).lines())
    assert lines[0] == f"{len(many)} runs judged twice"
    assert lines[1].split() == ["TOOL_LOOP", "now", str(len(many)), "HIGH", "then", "none"]
    assert lines[2] == "    would disappear in 12: " + ", ".join(f"run {n:02}" for n in range(10)) + " and 2 more"
    assert list(_compared([]).lines()) == ["0 runs judged twice", "no detector fires, neither now nor then"]


def test_a_run_that_cannot_be_folded_stops_nothing() -> None:
    broken = StoredRun("broken", iter([None]), (), silent=False, as_of=0.0)  # type: ignore[list-item]
    backtest = _compared([broken, *RUNS])
    assert backtest.failed == ["broken"] and backtest.runs == 4
    assert "broken" in "\n".join(backtest.lines())
