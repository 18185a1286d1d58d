from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dunetrace.detectors.context_bloat import DETECTOR, ContextBloatThresholds
from dunetrace.signals import Finding, Severity
from tests.detection.building import Script, folded
from tests.detection.generated import unhurried


def found(script: Script, **limits: float) -> Finding | None:
    return DETECTOR.detect(folded(script), ContextBloatThresholds(**limits))  # type: ignore[arg-type]


def prompts(*tokens: int, responses_advance: bool = False) -> Script:
    script = Script(responses_advance=responses_advance).started()
    for prompt_tokens in tokens:
        script.llm(prompt_tokens=prompt_tokens)
    return script


def test_evidence_says_where_how_much_and_what_it_cost() -> None:
    finding = found(prompts(1_000, 2_500, 7_000, 6_000).completed())
    assert finding is not None
    assert finding.evidence == {
        "first_tokens": 1_000, "last_tokens": 6_000, "largest_tokens": 7_000, "ratio": 6.0, "growth_factor": 3.0,
        "measured_calls": 4, "first_step": 1, "last_step": 4, "largest_step": 3, "wasted_tokens": 12_500,
    }  # fmt: skip
    assert (finding.severity, finding.step_index, finding.confidence) == (Severity.MEDIUM, 4, 0.79)


def test_every_limit_must_be_reached() -> None:
    assert found(prompts(1_000, 1_000, 3_000)) is not None
    assert found(prompts(1_000, 1_000, 2_999)) is None
    assert found(prompts(1_000, 9_000)) is None, "two points are no growth"
    assert found(prompts(1_000, 9_000), min_calls=2) is not None
    assert found(prompts(100, 500, 1_999)) is None, "still small"
    assert found(prompts(100, 500, 1_999), min_last_tokens=1_999) is not None
    assert found(prompts(1_000, 2_000, 3_000), growth_factor=3.5) is None


def test_what_was_trimmed_again_is_no_bloat() -> None:
    assert found(prompts(1_000, 50_000, 2_500)) is None


def test_a_large_prompt_that_stays_is_no_bloat() -> None:
    assert found(prompts(*[90_000] * 20)) is None


def test_calls_of_unknown_size_do_not_count() -> None:
    assert found(prompts(0, 1_000, 0, 0, 9_000, 0)) is None
    finding = found(prompts(0, 1_000, 0, 2_000, 9_000, 0))
    assert finding is not None
    assert (finding.evidence["first_step"], finding.evidence["last_step"]) == (2, 5)
    assert finding.evidence["measured_calls"] == 3


def test_tokens_may_come_with_the_response() -> None:
    script = Script().started()
    for prompt_tokens in (1_000, 2_000, 4_000):
        script.llm_called(prompt_tokens=0).emit("llm.responded", prompt_tokens=prompt_tokens)
    finding = found(script)
    assert finding is not None
    assert finding.evidence["ratio"] == 4.0


def test_a_response_does_not_say_again_what_the_call_said() -> None:
    script = Script().started()
    for _ in range(3):
        script.llm_called(prompt_tokens=1_000).emit("llm.responded", prompt_tokens=9_000)
    assert found(script) is None


def test_a_call_that_was_never_answered_sent_its_prompt_all_the_same() -> None:
    script = prompts(1_000, 1_000).llm_called(prompt_tokens=8_000)
    assert found(script) is not None


def test_calls_answered_out_of_order_keep_their_order() -> None:
    script = Script().started()
    for call_id in (1, 2, 3):
        script.llm_called(prompt_tokens=0, call_id=call_id)
    for call_id, prompt_tokens in ((3, 9_000), (1, 1_000), (2, 2_000)):
        script.emit("llm.responded", prompt_tokens=prompt_tokens, call_id=call_id)
    finding = found(script)
    assert finding is not None
    assert (finding.evidence["first_tokens"], finding.evidence["last_tokens"]) == (1_000, 9_000)


def test_a_conversation_is_judged_like_any_run() -> None:
    assert found(Script().llm(prompt_tokens=900).user().llm(prompt_tokens=2_000).user().llm(prompt_tokens=4_000))


def test_both_step_layouts_show_the_same_growth() -> None:
    old, new = (found(prompts(1_000, 2_000, 5_000, responses_advance=layout)) for layout in (True, False))
    assert old is not None and new is not None
    assert (old.evidence["ratio"], old.evidence["last_step"]) == (5.0, 5)
    assert (new.evidence["ratio"], new.evidence["last_step"]) == (5.0, 3)


@unhurried
@given(st.lists(st.integers(0, 20_000), max_size=12))
def test_it_is_found_exactly_where_a_recount_finds_it(tokens: list[int]) -> None:
    known = [count for count in tokens if count]
    finding = found(prompts(*tokens))
    expected = len(known) >= 3 and known[-1] >= 2_000 and known[-1] >= 3 * known[0]
    assert (finding is not None) is expected
    if finding is not None:
        assert finding.evidence["largest_tokens"] == max(known)
        assert finding.evidence["wasted_tokens"] == max(0, sum(known) - len(known) * known[0])


@pytest.mark.parametrize("calls", [1_000])
def test_a_long_run_keeps_its_first_prompt(calls: int) -> None:
    finding = found(prompts(*range(1_000, 1_000 + 10 * calls, 10)))
    assert finding is not None
    assert finding.evidence["first_tokens"] == 1_000
