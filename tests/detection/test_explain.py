from __future__ import annotations

import json
import math
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dunetrace.detectors.judging import Phase, judge
from dunetrace.detectors.registry import DETECTORS
from dunetrace.detectors.thresholds import DEFAULT
from dunetrace.explain import Explanation, RateContext, explain
from dunetrace.explain.wording import MAX_SHOWN_CHARS, fill, shown_name
from dunetrace.signals import FailureSignal, FailureType, Severity
from tests.detection.building import Script, digest, folded
from tests.detection.cases import CASES
from tests.detection.generated import unhurried


def signals() -> dict[str, FailureSignal]:
    found: dict[str, FailureSignal] = {}
    for case in CASES.values():
        run, _ = case.runs()
        found |= {signal.failure_type.value: signal for signal in judge(run, DEFAULT.default, Phase.ENDED)}
    weak = folded(Script().started().tool("search", 1, "same").tool("search", 1, "same").completed())
    (found["weak"],) = judge(weak, DEFAULT.default, Phase.ENDED)
    return found


SIGNALS = signals()
every = pytest.mark.parametrize("signal", SIGNALS.values(), ids=SIGNALS)

SUMMARIES = {
    "TOOL_LOOP": (
        "Tool loop: `search` called 3 times over",
        "The agent made the same call of `search` 3 times between step 2 and step 6. 3 equal calls within 5 tool calls "
        "count as a loop.",
        "3 equal calls of `search` (limit 3 in 5), steps 2 to 6; 2 of them wasted, with 400 ms and about 240 tokens",
    ),
    "weak": (
        "Possible tool loop: `search` brings nothing new",
        "The agent called `search` 2 times between step 1 and step 2 and got the same output each time, while no "
        "other tool or output moved the run on.",
        "2 calls of `search` with one and the same output within a window of 5 tool calls, steps 1 to 2; 1 of them "
        "wasted, with 200 ms and no tokens known",
    ),
    "PROMPT_INJECTION_SIGNAL": (
        "Prompt injection: the input matches 2 attack patterns",
        "The user's input at step 0 matches known injection or jailbreak patterns: `act_as`, `jailbreak`. The agent "
        "took 0 more steps after it.",
        "2 patterns (`act_as`, `jailbreak`) in 1 input (the worst has 0 characters), first at step 0; 0 steps since",
    ),
    "STEP_COUNT_INFLATION": (
        "Step count inflation: 17 steps, 2.1 times the usual",
        "The run took 17 steps. Three quarters of this agent's last 10 good runs needed at most 8.0; from step 17 on "
        "it was beyond 2.0 times that.",
        "17 steps against a P75 of 8.0 over 10 runs: 2.1 times (limit 2.0); 9 steps more than usual (no tokens known)",
    ),
    "REASONING_STALL": (
        "Reasoning stall: 5 LLM calls, 1 act",
        "Between step 2 and step 6 the agent called the model 5 times and acted 1 time: 5.0 LLM calls for each act, "
        "and 4.0 is the limit.",
        "5 LLM calls, 1 act, ratio 5.0 (limit 4.0 from 5 calls on), steps 2 to 6; 4 LLM calls led to no act, with "
        "3.2 s and about 480 tokens",
    ),
}


def texts(explanation: Explanation) -> str:
    return json.dumps(explanation.as_json(), ensure_ascii=False)


@every
def test_the_same_signal_gives_the_same_words(signal: FailureSignal) -> None:
    first, second = explain(signal), explain(signal)
    assert first == second
    assert json.loads(texts(first)) == first.as_json()
    name = "weak" if signal.evidence.get("kind") == "weak" else signal.failure_type.value
    assert (first.title, first.what, first.evidence_summary) == SUMMARIES[name]


def test_every_kind_of_words_has_its_snapshot() -> None:
    assert len(SUMMARIES) == sum(len(detector.words) for detector in DETECTORS)


@every
def test_the_code_of_a_fix_runs(signal: FailureSignal) -> None:
    fixes = [fix for fix in explain(signal).suggested_fixes if fix.language == "python"]
    assert fixes
    for fix in fixes:
        exec(compile(fix.code, "fix", "exec"), {"__name__": "fix"})


def test_the_repeat_guard_stops_the_call_it_should() -> None:
    names: dict[str, Any] = {}
    exec(explain(SIGNALS["TOOL_LOOP"]).suggested_fixes[0].code, names)
    guard = names["RepeatGuard"]()
    guard.check("search", {"q": 1})
    guard.check("search", {"q": 1})
    guard.check("search", {"q": 2})
    with pytest.raises(RuntimeError, match="3 times"):
        guard.check("search", {"q": 1})


def test_the_remembering_tool_says_that_it_repeats_itself() -> None:
    names: dict[str, Any] = {}
    exec(explain(SIGNALS["weak"]).suggested_fixes[0].code, names)
    made: list[int] = []

    def double(q: int) -> int:
        made.append(q)
        return q * 2

    tool = names["remember"](double)
    assert (tool(q=2), made) == (4, [2])
    assert tool(q=2)["result"] == 4
    assert made == [2]


@every
def test_words_take_less_than_a_millisecond(signal: FailureSignal) -> None:
    best_s = math.inf
    for _ in range(20):
        begun = time.perf_counter()
        explain(signal)
        best_s = min(best_s, time.perf_counter() - begun)
    assert best_s < 0.001


def test_how_common_it_is_is_said_where_it_is_known() -> None:
    signal = SIGNALS["TOOL_LOOP"]
    plain = explain(signal).why_it_matters
    assert explain(signal, RateContext(40, 12, 0.3, True)).why_it_matters == (
        f"{plain} It is systemic: 12 of this agent's 40 runs in the last 7 days (30%) show it."
    )
    assert explain(signal, RateContext(1_000, 1, 0.001, False)).why_it_matters.endswith(
        "It was seen in 1 of this agent's 1,000 runs in the last 7 days (0%)."
    )
    assert RateContext(40, 12, 0.3, True).as_json() == {
        "total_runs": 40, "affected_runs": 12, "rate": 0.3, "is_systemic": True,
    }  # fmt: skip


HOSTILE = [
    "x" * 10_000,
    "\x00\x1b[31m\nrm -rf\r",
    "\u202egnp.exe",
    "`code`",
    "'); import os; os.abort() #",
    "{tool_name}",
    "\ud800",
    "  ",
    "<!channel>",
]


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_name_is_shown_cleaned_and_short(name: str) -> None:
    script = Script().started().tool(name, 1).tool(name, 1).tool(name, 1)
    (signal,) = judge(folded(script), DEFAULT.default, Phase.ENDED)
    explanation = explain(signal)
    assert all(c.isprintable() for c in explanation.title + explanation.what + explanation.evidence_summary)
    assert len(explanation.title) < 120
    for fix in explanation.suggested_fixes:
        if fix.language == "python":
            exec(compile(fix.code, "fix", "exec"), {})
        assert len(fix.code) < 1_500


def test_names_are_cut_and_never_empty() -> None:
    assert shown_name("a" * 61) == "a" * (MAX_SHOWN_CHARS - 1) + "…"
    assert shown_name("a" * MAX_SHOWN_CHARS) == "a" * MAX_SHOWN_CHARS
    assert shown_name("\x00") == "(no name)"
    assert shown_name("two\nlines") == "two lines"


def test_numbers_are_written_for_people() -> None:
    evidence = {"a": 950, "b": 61_500, "c": 600_000, "d": 1_234_567, "e": float("nan"), "f": True, "g": []}
    assert fill("{a:ms} {b:ms} {c:ms} {d:count}", evidence) == "950 ms 61.5 s 10.0 min 1,234,567"
    assert fill("{e:ms} {f:count} {missing} {g:names} {missing:literal}", evidence) == "n/a n/a n/a (no label) None"
    assert (
        fill("{a:tokens}, {z:tokens}, {missing:tokens}", evidence | {"z": 0})
        == "about 950 tokens, no tokens known, n/a"
    )
    assert fill("{one:act|acts} {a:act|acts} {missing:act|acts}", evidence | {"one": 1}) == "1 act 950 acts n/a acts"


def test_a_failure_of_another_release_is_explained_in_general() -> None:
    signal = FailureSignal(FailureType.SLOW_STEP, Severity.HIGH, "r", "a", "v", 7, 0.9, {"limit_ms": 1})
    explanation = explain(signal)
    assert explanation.title == "`SLOW_STEP` at step 7"
    assert "{" not in texts(explanation).replace('{"', "")[1:]


_values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=20)),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
_keys = st.one_of(st.text(max_size=10), st.sampled_from([name for s in SIGNALS.values() for name in s.evidence]))


@unhurried
@given(st.sampled_from(FailureType), st.dictionaries(_keys, _values, max_size=12), st.integers(0, 2**31 - 1))
def test_no_evidence_makes_it_raise(failure_type: FailureType, evidence: dict[str, Any], step: int) -> None:
    signal = FailureSignal(failure_type, Severity.LOW, "r", "a", "v", step, 0.5, evidence)
    assert explain(signal) is not None


def test_no_digest_is_in_the_words() -> None:
    for signal in SIGNALS.values():
        assert digest(1) not in texts(explain(signal))
