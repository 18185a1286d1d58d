from __future__ import annotations

import pytest

from dunetrace.detectors.first_step_failure import DETECTOR, FirstStepFailureThresholds
from dunetrace.detectors.judging import Phase, judge
from dunetrace.detectors.thresholds import DEFAULT
from dunetrace.explain import explain
from dunetrace.signals import FailureType, Finding, Severity
from tests.detection.building import Script, folded
from tests.detection.fixes import fix_of


def found(script: Script, *, silent: bool = False, **limits: int) -> Finding | None:
    run = folded(script)
    run.silent = silent
    return DETECTOR.detect(run, FirstStepFailureThresholds(**limits))


def kind(script: Script, *, silent: bool = False) -> str:
    finding = found(script, silent=silent)
    return finding.evidence["kind"] if finding else ""


@pytest.mark.parametrize("responses_advance", [True, False])
def test_evidence_of_an_error_says_where_how_much_and_what_it_cost(responses_advance: bool) -> None:
    script = Script(responses_advance=responses_advance).started().llm("tool_calls").tool("book", 1, ok=False).errored()
    finding = found(script)
    assert finding is not None
    step = 3 if responses_advance else 2
    assert finding.evidence == {
        "kind": "errored", "error_type": "ValueError", "tool_name": "book", "step_count": 2, "max_step": 2,
        "last_step": step, "wasted_calls": 2, "wasted_ms": 1_000, "wasted_tokens": 120,
    }  # fmt: skip
    assert (finding.severity, finding.step_index, finding.confidence) == (Severity.MEDIUM, step, 0.8)


def test_an_error_within_the_first_steps() -> None:
    assert kind(Script().started().errored()) == "errored", "before the first call"
    assert kind(Script().started().llm_called().errored()) == "errored"
    assert kind(Script().started().llm().retrieval().errored()) == "errored"
    assert kind(Script().started().llm().retrieval().llm_called().errored()) == ""


def test_a_failed_call_that_nothing_follows() -> None:
    first = Script().started().tool("book", 1, ok=False)
    assert kind(first, silent=True) == "failed_call"
    assert kind(first) == "", "the agent may go on"
    assert kind(Script().started().tool("book", 1, ok=False).completed()) == "failed_call"
    assert kind(Script().started().llm("tool_calls").tool("book", 1, ok=False).completed()) == "failed_call"


def test_an_agent_that_went_on_did_not_fail() -> None:
    assert kind(Script().started().tool("book", 1, ok=False).llm().completed()) == ""
    assert kind(Script().started().tool("book", 1, ok=False).llm_called(), silent=True) == ""
    assert kind(Script().started().llm().llm().tool("book", 1, ok=False).completed()) == ""


def test_a_good_or_an_unanswered_call_is_no_failure() -> None:
    assert kind(Script().started().tool().completed()) == ""
    assert kind(Script().started().called().completed()) == ""
    assert kind(Script().started().llm().completed()) == ""
    assert kind(Script().started(), silent=True) == ""


def test_the_limit_is_counted_in_steps_of_the_run() -> None:
    script = Script(responses_advance=True).started().llm().tool().llm().errored()
    assert found(script) is None
    assert found(script, max_step=3) is not None
    assert found(Script().started().llm().errored(), max_step=1) is not None


def test_an_early_empty_answer_counts_only_where_the_run_errored_too() -> None:
    def types(script: Script) -> set[FailureType]:
        return {signal.failure_type for signal in judge(folded(script), DEFAULT.default, Phase.ENDED)}

    empty = Script().started(sdk="1.0.0").llm(output_length=0)
    assert types(empty.completed("completed")) == {FailureType.EMPTY_LLM_RESPONSE}
    empty = Script().started(sdk="1.0.0").llm(output_length=0)
    assert types(empty.errored()) == {FailureType.EMPTY_LLM_RESPONSE, FailureType.FIRST_STEP_FAILURE}


def test_a_run_that_errored_before_its_first_call_points_at_its_last_event() -> None:
    script = Script().started()
    script.step = 7
    (signal,) = judge(folded(script.errored()), DEFAULT.default, Phase.ENDED)
    assert (signal.step_index, signal.evidence["wasted_calls"], signal.evidence["wasted_ms"]) == (7, 0, 0)
    assert explain(signal).what.startswith("The run ended in the error `ValueError` after 0 steps, at step 7.")


def test_the_check_at_start_names_every_missing_setting() -> None:
    check_setup = fix_of("first_step_failure", "check_setup")
    check_setup(["A"], {"A": "set"})
    with pytest.raises(SystemExit, match="set B, C"):
        check_setup(["A", "B", "C"], {"A": "set", "C": ""})


def test_the_model_is_told_what_failed() -> None:
    told = fix_of("first_step_failure", "told")
    assert told(lambda q: q + 1)(q=1) == 2
    assert told(lambda q: q / 0)(q=1) == {"error": "ZeroDivisionError: division by zero"}
