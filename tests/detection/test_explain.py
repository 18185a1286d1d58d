from __future__ import annotations

import copy
import json
import math
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dunetrace.detectors.judging import Phase, judge
from dunetrace.detectors.thresholds import DEFAULT
from dunetrace.explain import Explanation, RateContext, explain
from dunetrace.explain.wording import MAX_SHOWN_CHARS, fill, shown_name
from dunetrace.signals import FailureSignal, FailureType, Severity
from tests.detection.building import digest
from tests.detection.cases import CASES, signals
from tests.detection.generated import unhurried

SIGNALS = signals()
every = pytest.mark.parametrize("name", SIGNALS)


def texts(explanation: Explanation) -> str:
    return json.dumps(explanation.as_json(), ensure_ascii=False)


@every
def test_the_same_signal_gives_the_same_words(name: str) -> None:
    signal = SIGNALS[name]
    first, second = explain(signal), explain(signal)
    assert first == second
    assert json.loads(texts(first)) == first.as_json()


@every
def test_the_code_of_a_fix_runs(name: str) -> None:
    fixes = [fix for fix in explain(SIGNALS[name]).suggested_fixes if fix.language == "python"]
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
    exec(explain(SIGNALS["TOOL_LOOP weak"]).suggested_fixes[0].code, names)
    made: list[int] = []

    def double(q: int) -> int:
        made.append(q)
        return q * 2

    tool = names["remember"](double)
    assert (tool(q=2), made) == (4, [2])
    assert tool(q=2)["result"] == 4
    assert made == [2]


@every
def test_words_take_less_than_a_millisecond(name: str) -> None:
    signal = SIGNALS[name]
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
NAME_KEYS = {"tool_name", "index_name", "tools", "error_type", "model"}


def renamed(value: Any, name: str) -> Any:
    return [name + each for each in value] if isinstance(value, list) else name + value


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("case", CASES)
def test_a_hostile_name_is_shown_cleaned_and_short(case: str, name: str) -> None:
    script = copy.copy(CASES[case].fires)
    script.events = [
        event._replace(payload={k: renamed(v, name) if k in NAME_KEYS else v for k, v in event.payload.items()})
        for event in script
    ]
    (signal,) = judge(CASES[case].run(script), DEFAULT.default, Phase.ENDED)
    explanation = explain(signal)
    assert all(c.isprintable() for c in explanation.title + explanation.what + explanation.evidence_summary)
    assert len(explanation.title) < 170
    for fix in explanation.suggested_fixes:
        if fix.language == "python":
            exec(compile(fix.code, "fix", "exec"), {"__name__": "fix"})
        assert len(fix.code) < 1_500


def test_names_are_cut_and_never_empty() -> None:
    assert shown_name("a" * 61) == "a" * (MAX_SHOWN_CHARS - 1) + "…"
    assert shown_name("a" * MAX_SHOWN_CHARS) == "a" * MAX_SHOWN_CHARS
    assert shown_name("\x00") == "(no name)"
    assert shown_name("two\nlines") == "two lines"


def test_numbers_are_written_for_people() -> None:
    evidence = {"a": 950, "b": 61_500, "c": 600_000, "d": 1_234_567, "e": float("nan"), "f": True, "g": []}
    assert fill("{a:ms} {b:ms} {c:ms} {d:count}", evidence) == "950 ms 61.5 s 10 min 1,234,567"
    assert fill("{e:ms} {f:count} {missing} {g:names} {missing:literal}", evidence) == "n/a n/a n/a (no label) None"
    assert (
        fill("{a:tokens}, {z:tokens}, {missing:tokens}", evidence | {"z": 0})
        == "about 950 tokens, no tokens known, n/a"
    )
    assert fill("{one:act|acts} {a:act|acts} {missing:act|acts}", evidence | {"one": 1}) == "1 act 950 acts n/a acts"


def test_a_failure_of_another_release_is_explained_in_general() -> None:
    later: Any = "AGENT_ON_STRIKE"
    explanation = explain(FailureSignal(later, Severity.HIGH, "r", "a", "v", 7, 0.9, {"limit_ms": 1}))
    assert explanation.title == "`AGENT_ON_STRIKE` at step 7"
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
