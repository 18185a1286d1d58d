"""The model's answers are cut off at the token limit again and again.

`threshold` or more answers of the run ended in `length`: the model was stopped in the middle. They need not follow one
another; what was cut off once is often asked for again in the same way.

It is not: one long answer that was cut off, an answer that ended by itself however long, or a prompt that grows
(CONTEXT_BLOAT).

Example: the agent asks for a report as JSON with at most 1,024 tokens, the JSON breaks off, the agent asks again.
"""

from __future__ import annotations

from dataclasses import dataclass

from dunetrace.detectors.declaration import Detector, Evidence, FixWords, Thresholds, Words, confidence, limit
from dunetrace.runs import RunState
from dunetrace.signals import FailureType, Finding, Severity


@dataclass(frozen=True, slots=True)
class LlmTruncationLoopThresholds(Thresholds):
    threshold: int = limit(
        2, unit="answers cut off", low=2, high=100,
        source="one may be a single long text; a second one says that the limit is too low for the task",
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class LlmTruncationLoopEvidence(Evidence):
    """`wasted_tokens` are the completion tokens of the answers that were cut off."""

    truncated_answers: int
    llm_calls: int
    threshold: int
    first_step: int
    last_step: int
    wasted_calls: int
    wasted_ms: int
    wasted_tokens: int


def detect(run: RunState, limits: LlmTruncationLoopThresholds) -> Finding | None:
    truncated = run.answers.truncated
    if truncated.count < limits.threshold:
        return None
    evidence = LlmTruncationLoopEvidence(
        truncated_answers=truncated.count,
        llm_calls=run.llm_calls,
        threshold=limits.threshold,
        first_step=truncated.first_step,
        last_step=truncated.last_step,
        wasted_calls=truncated.count,
        wasted_ms=round(truncated.ms),
        wasted_tokens=truncated.completion_tokens,
    )
    sure = confidence(truncated.count / limits.threshold, 0.8)
    return Finding(Severity.HIGH, sure, truncated.last_step, evidence.as_dict())


DETECTOR = Detector(
    doc=__doc__,
    failure_type=FailureType.LLM_TRUNCATION_LOOP,
    severity=Severity.HIGH,
    monotone=True,
    fires_on=("llm.responded",),
    thresholds=LlmTruncationLoopThresholds,
    evidence=LlmTruncationLoopEvidence,
    detect=detect,
    words={
        "": Words(
            title="Truncation loop: {truncated_answers:answer|answers} cut off at the token limit",
            what="The model hit its output limit (`length`) in {truncated_answers:answer|answers} out of "
            "{llm_calls:LLM call|LLM calls}, first at step {first_step}, last at step {last_step}. {threshold} in one "
            "run count as a loop.",
            why_it_matters="An answer that breaks off is rarely usable: JSON does not parse, tool arguments are "
            "incomplete, the user reads half a sentence. Asking again the same way is paid for in full and breaks off "
            "at the same place.",
            evidence_summary="{truncated_answers:answer|answers} of {llm_calls:LLM call|LLM calls} cut off (limit "
            "{threshold}), steps {first_step} to {last_step}; they cost {wasted_ms:ms} and {wasted_tokens:tokens} of "
            "output",
            fixes=(
                FixWords(
                    description="Give a cut-off answer twice the room, up to a limit, instead of asking again the "
                    "same way.",
                    language="python",
                    code='''\
def complete(call_model, messages, max_tokens=2048, most=16384):
    """The whole answer. `call_model(messages, max_tokens)` returns the text and why it ended."""
    while True:
        text, finish_reason = call_model(messages, max_tokens)
        if finish_reason not in ("length", "max_tokens"):
            return text
        if max_tokens >= most:
            raise RuntimeError(f"still cut off at {{max_tokens}} tokens: ask for less at a time")
        max_tokens = min(2 * max_tokens, most)


assert complete(lambda messages, room: ("done", "stop" if room > 4000 else "length"), []) == "done"
''',
                ),
                FixWords(
                    description="Tell the model how long its answer may be, and to work in parts.",
                    language="text",
                    code="Keep each answer under 500 words. If the result is longer, give the first part, end with "
                    '"CONTINUE", and go on when asked. Never start over.',
                ),
            ),
        )
    },
)  # fmt: skip
