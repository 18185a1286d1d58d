from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dunetrace.detectors.judging import next_look
from dunetrace.detectors.slow_step import DETECTOR, SlowStepThresholds, look_at
from dunetrace.detectors.thresholds import DEFAULT
from dunetrace.explain import explain
from dunetrace.runs import RunState
from dunetrace.signals import FailureSignal, FailureType, Finding, Severity
from dunetrace.views.durations import MAX_SLOWEST
from tests.detection.building import Script, folded
from tests.detection.generated import unhurried


def found(run: RunState | Script, **limits: int) -> Finding | None:
    return DETECTOR.detect(folded(run) if isinstance(run, Script) else run, SlowStepThresholds(**limits))


def tool(script: Script, ms: float, name: str = "search") -> Script:
    return script.called(name).responded(name, latency_ms=ms)


def hanging(script: Script, seconds: float) -> RunState:
    """The run `seconds` after its last event was received."""
    run = folded(script)
    run.as_of = run.last_received_at + seconds
    return run


def test_evidence_says_where_how_much_and_what_it_cost() -> None:
    script = tool(tool(Script().started().llm(), 48_000), 16_000, "book").completed()
    finding = found(script)
    assert finding is not None
    assert finding.evidence == {
        "kind": "tool", "name": "search", "duration_ms": 48_000, "limit_ms": 15_000, "ratio": 3.2, "slow_calls": 2,
        "step": 2, "wasted_ms": 34_000,
    }  # fmt: skip
    assert (finding.severity, finding.step_index, finding.confidence) == (Severity.MEDIUM, 2, 0.9)


def test_a_call_at_its_limit_is_not_slow() -> None:
    assert found(tool(Script().started(), 15_000).llm(latency_ms=30_000)) is None
    assert found(tool(Script().started(), 15_001)) is not None
    assert found(Script().started().llm(latency_ms=30_001)) is not None
    assert found(tool(Script().started(), 2_000), tool_ms=1_999) is not None


def test_from_five_times_the_limit_on_it_is_high() -> None:
    severities = [finding.severity for ms in (74_999, 75_000) if (finding := found(tool(Script().started(), ms)))]
    assert severities == [Severity.MEDIUM, Severity.HIGH]


def test_a_retrieval_goes_by_the_limit_of_tools() -> None:
    finding = found(Script().started().retrieval("policies", latency_ms=20_000))
    assert finding is not None
    assert (finding.evidence["kind"], finding.evidence["name"]) == ("retrieval", "policies")
    assert finding.evidence["limit_ms"] == 15_000


def test_the_call_furthest_beyond_its_limit_speaks() -> None:
    finding = found(tool(Script().started().llm(latency_ms=40_000), 25_000))
    assert finding is not None
    assert (finding.evidence["kind"], finding.evidence["slow_calls"]) == ("tool", 2)
    finding = found(tool(Script().started().llm(latency_ms=70_000), 25_000))
    assert finding is not None
    assert (finding.evidence["kind"], finding.evidence["name"]) == ("llm", "")


@pytest.mark.parametrize("responses_advance", [False, True])
def test_timestamps_count_where_they_say_more_than_the_latency(responses_advance: bool) -> None:
    script = Script(responses_advance=responses_advance).started().llm().called("search")
    finding = found(script.emit("tool.responded", after_s=20.0, tool_name="search", success=True, latency_ms=0))
    assert finding is not None
    assert (finding.evidence["duration_ms"], finding.step_index) == (20_000, 3 if responses_advance else 2)


def test_a_failed_call_can_be_slow() -> None:
    assert found(Script().started().called().responded(ok=False, latency_ms=60_000)) is not None


def test_an_unanswered_call_is_not_slow() -> None:
    script = Script().started().called("search", call_id=1).emit("external.signal", after_s=600)
    run = hanging(tool(script, 100), 600)
    assert run.is_unanswered(run.steps[0])
    assert found(run) is None


def test_the_time_a_user_takes_is_not_counted() -> None:
    script = Script().started().llm()
    script.emit("user.message", after_s=3_600)
    assert found(hanging(script.llm(), 3_600)) is None


@pytest.mark.parametrize(
    ("opening", "kind", "limit_s"),
    [
        (Script().started().called("search", 1), "hanging_tool", 15),
        (Script().started().llm_called(), "hanging_llm", 30),
        (Script().started().emit("retrieval.called", index_name="policies"), "hanging_retrieval", 15),
    ],
)
def test_a_call_that_hangs_is_measured_by_the_servers_clock(opening: Script, kind: str, limit_s: int) -> None:
    assert found(hanging(opening, limit_s)) is None
    finding = found(hanging(opening, limit_s + 1))
    assert finding is not None
    assert finding.evidence["kind"] == kind
    assert finding.evidence["duration_ms"] == (limit_s + 1) * 1_000
    assert (finding.severity, finding.step_index) == (Severity.MEDIUM, opening.events[-1].step_index)
    high = found(hanging(opening, 5 * limit_s))
    assert high is not None and high.severity is Severity.HIGH


def test_a_call_after_which_something_was_heard_does_not_hang() -> None:
    script = Script().started().called("search", 1).emit("external.signal", signal_name="ping", source="x")
    assert found(hanging(script, 600)) is None
    assert found(hanging(Script().started().called("search", 1).completed(), 600)) is None


def test_it_asks_for_a_look_when_an_open_call_will_be_over_its_limit() -> None:
    run = hanging(Script().started().called("search", 1), 1)
    at = next_look(run, DEFAULT.default)
    assert at is not None
    assert found(run) is None
    run.as_of = at
    assert found(run) is not None
    assert next_look(run, DEFAULT.default) is None, "one look is enough"
    assert look_at(folded(Script().started().llm()), SlowStepThresholds()) is None
    llm = folded(Script().started().llm_called())
    assert look_at(llm, SlowStepThresholds(llm_ms=1_000)) == pytest.approx(llm.last_received_at + 1, abs=0.01)


def test_slow_calls_are_counted_up_to_a_bound() -> None:
    script = Script().started()
    for i in range(50):
        tool(script, 16_000 + i)
    finding = found(script.llm(latency_ms=31_000))
    assert finding is not None
    assert (finding.evidence["slow_calls"], finding.evidence["duration_ms"]) == (MAX_SLOWEST + 1, 16_049)
    assert all(len(durations.longest_ms) <= MAX_SLOWEST for durations in folded(script).durations.by_kind.values())


@unhurried
@given(st.lists(st.integers(1, 30_000), max_size=60))
def test_the_slowest_is_the_one_a_recount_finds(durations: list[int]) -> None:
    script = Script().started()
    for ms in durations:
        tool(script, max(ms, 200))
    finding = found(script)
    slow = sorted((ms for ms in durations if ms > 15_000), reverse=True)[:MAX_SLOWEST]
    assert (finding is not None) is bool(slow)
    if finding is not None:
        assert finding.evidence["duration_ms"] == slow[0]
        assert finding.evidence["slow_calls"] == len(slow)
        assert finding.evidence["wasted_ms"] == sum(ms - 15_000 for ms in slow)


def test_the_wrapped_call_gives_up_in_time_and_passes_on_what_happened() -> None:
    evidence = {"kind": "tool", "name": "search", "limit_ms": 20}
    signal = FailureSignal(FailureType.SLOW_STEP, Severity.HIGH, "r", "a", "v", 1, 0.9, evidence)
    names: dict[str, Any] = {}
    exec(explain(signal).suggested_fixes[0].code, names)
    never = names["threading"].Event()
    with pytest.raises(TimeoutError, match=r"0\.02 s"):
        names["with_timeout"](never.wait)()
    never.set()
    with pytest.raises(KeyError, match="missing"):
        names["with_timeout"]({}.__getitem__, timeout_s=10)("missing")
