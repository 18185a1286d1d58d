"""The model answered with nothing.

An LLM call ended in `stop`, which says that the model was done, and its output is known to hold no character. Once is
enough. Clients that report 0 for a length they were not told do not count as knowing: beside completion tokens, or with
no tokens and no latency either, a length of 0 is unknown.

It is not: an answer that asked for a tool (it ends in `tool_calls`, and needs no text), one cut off at the token limit
(LLM_TRUNCATION_LOOP), one stopped by a content filter, or an answer whose length was not reported.

Example: after two searches the model ends its turn with an empty message, and the user sees a blank reply.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from dunetrace.detectors.declaration import Detector, Evidence, FixWords, Thresholds, Words, confidence
from dunetrace.runs import RunState
from dunetrace.signals import FailureType, Finding, Severity


@dataclass(frozen=True, slots=True)
class EmptyLlmResponseEvidence(Evidence):
    """`later_llm_calls` were made after the last empty answer: with 0 of them, it is what the run ended with."""

    kind: Literal["single", "repeated"]
    empty_answers: int
    llm_calls: int
    later_llm_calls: int
    first_step: int
    last_step: int
    wasted_calls: int
    wasted_ms: int
    wasted_tokens: int


def detect(run: RunState, limits: Thresholds) -> Finding | None:  # noqa: ARG001 -- no threshold: nothing is nothing
    empty = run.answers.empty
    if not empty.count:
        return None
    evidence = EmptyLlmResponseEvidence(
        kind="single" if empty.count == 1 else "repeated",
        empty_answers=empty.count,
        llm_calls=run.llm_calls,
        later_llm_calls=run.llm_calls - empty.last_llm_call,
        first_step=empty.first_step,
        last_step=empty.last_step,
        wasted_calls=empty.count,
        wasted_ms=round(empty.ms),
        wasted_tokens=empty.prompt_tokens + empty.completion_tokens,
    )
    # our own client says 0 only where it measured the text
    sure = confidence(empty.count, 0.9 if run.sdk else 0.8)
    return Finding(Severity.HIGH, sure, empty.first_step, evidence.as_dict())


_WHY = (
    "Whoever reads the answer gets nothing: the user a blank reply, the next step a text it cannot parse. The agent "
    "takes it for a finished answer, so nothing else reports it."
)
_ASK_AGAIN = FixWords(
    description="Ask once more when the answer is empty, and fail loudly when it stays so.",
    language="python",
    code='''\
def ask(call_model, messages, attempts=2):
    """The model's text. `call_model` takes the messages and returns the text of the answer."""
    for _ in range(attempts):
        text = call_model(messages)
        if text and text.strip():
            return text
        messages = [*messages, {{"role": "user", "content": "Your answer was empty. Please answer now."}}]
    raise RuntimeError(f"no text from the model in {{attempts}} attempts")


answers = iter(["", "Your flight is booked."])
assert ask(lambda messages: next(answers), []) == "Your flight is booked."
''',
)
_READ_ALL = FixWords(
    description="Check that your code reads the whole answer; text is easily lost in a second block or stream chunk.",
    language="python",
    code='''\
def text_of(content):
    """All text of an answer: `content` is a string, None, or a list of blocks."""
    if isinstance(content, str):
        return content
    return "".join(block.get("text") or "" for block in content or [])


assert text_of([{{"type": "thinking"}}, {{"type": "text", "text": "Done."}}]) == "Done."
''',
)
_SAY_SO = FixWords(
    description="Tell the model that its last message must have text.",
    language="text",
    code="Never end your turn with an empty message. After your last tool call, always write an answer for the user; "
    "if there is nothing to report, say that in one sentence.",
)

DETECTOR = Detector(
    doc=__doc__,
    failure_type=FailureType.EMPTY_LLM_RESPONSE,
    severity=Severity.HIGH,
    monotone=True,
    fires_on=("llm.responded",),
    thresholds=Thresholds,
    evidence=EmptyLlmResponseEvidence,
    detect=detect,
    words={
        "single": Words(
            title="Empty answer: the model wrote nothing at step {first_step}",
            what="At step {first_step} the model ended its answer as finished (`stop`), with no text in it. After it "
            "the run made {later_llm_calls:more LLM call|more LLM calls}.",
            why_it_matters=_WHY,
            evidence_summary="1 empty answer in {llm_calls:LLM call|LLM calls}, at step {first_step}, with "
            "{later_llm_calls:LLM call|LLM calls} after it; it cost {wasted_ms:ms} and {wasted_tokens:tokens}",
            fixes=(_ASK_AGAIN, _READ_ALL, _SAY_SO),
        ),
        "repeated": Words(
            title="Empty answers: the model wrote nothing {empty_answers:time|times}",
            what="Between step {first_step} and step {last_step} the model ended {empty_answers:answer|answers} as "
            "finished (`stop`), with no text in them. After the last of them the run made "
            "{later_llm_calls:more LLM call|more LLM calls}.",
            why_it_matters=_WHY,
            evidence_summary="{empty_answers:empty answer|empty answers} in {llm_calls:LLM call|LLM calls}, steps "
            "{first_step} to {last_step}, with {later_llm_calls:LLM call|LLM calls} after the last one; they "
            "cost {wasted_ms:ms} and {wasted_tokens:tokens}",
            fixes=(_READ_ALL, _ASK_AGAIN, _SAY_SO),
        ),
    },
)  # fmt: skip
