"""The agent thinks and thinks, and does not act.

Within one stretch, from a turn of the user to the next, it made at least `min_llm_calls` LLM calls and at least
`ratio_threshold` of them for each act. Acts are tool and retrieval calls; where LLM calls ended by asking for a tool
more often than tool calls were reported, those count instead. The worst stretch of the whole run speaks.

It is not: a conversation (each turn of the user starts a new stretch, and the LLM call that answers it stays alone),
an agent that has nothing to act with (no tools on offer, nothing ever called), or one whose tools are not reported.
It is judged when the run has ended or fallen silent, because a later tool call could still put it right.

Example: seven LLM calls in a row and one `search`, ratio 7.0, then a give-up answer.
"""

from __future__ import annotations

from dataclasses import dataclass

from dunetrace.detectors.declaration import Detector, Evidence, FixWords, Thresholds, Words, confidence, limit
from dunetrace.runs import RunState
from dunetrace.signals import FailureType, Finding, Severity


@dataclass(frozen=True, slots=True)
class ReasoningStallThresholds(Thresholds):
    ratio_threshold: float = limit(
        4.0, unit="LLM calls per act", low=1.5, high=100.0,
        source="200 airline runs: at most 1.25 in any stretch of five or more LLM calls, at most 2.0 in any at all",
    )  # fmt: skip
    min_llm_calls: int = limit(
        5, unit="LLM calls", low=2, high=100,
        source="a short plan with a check and an answer takes up to four",
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class ReasoningStallEvidence(Evidence):
    llm_calls: int
    acts: int
    ratio: float
    ratio_threshold: float
    min_llm_calls: int
    first_step: int
    last_step: int
    wasted_calls: int
    wasted_ms: int
    wasted_tokens: int


def detect(run: RunState, limits: ReasoningStallThresholds) -> Finding | None:
    stretch = run.stretches.worst(limits.min_llm_calls)
    if stretch is None or stretch.ratio < limits.ratio_threshold:
        return None
    if not (run.tools or run.tool_calls or run.retrieval_calls):
        return None
    evidence = ReasoningStallEvidence(
        llm_calls=stretch.llm_calls,
        acts=stretch.acts,
        ratio=round(stretch.ratio, 2),
        ratio_threshold=limits.ratio_threshold,
        min_llm_calls=limits.min_llm_calls,
        first_step=stretch.first_step,
        last_step=stretch.last_step,
        wasted_calls=stretch.idle_calls,
        wasted_ms=round(stretch.idle_ms),
        wasted_tokens=stretch.idle_tokens,
    )
    sure = confidence(stretch.ratio / limits.ratio_threshold, 0.6)
    return Finding(Severity.MEDIUM, sure, stretch.last_step, evidence.as_dict())


DETECTOR = Detector(
    doc=__doc__,
    failure_type=FailureType.REASONING_STALL,
    severity=Severity.MEDIUM,
    monotone=False,
    thresholds=ReasoningStallThresholds,
    evidence=ReasoningStallEvidence,
    detect=detect,
    yields_to=(FailureType.GOAL_ABANDONMENT, FailureType.LLM_TRUNCATION_LOOP, FailureType.EMPTY_LLM_RESPONSE),
    words={
        "": Words(
            title="Reasoning stall: {llm_calls:LLM call|LLM calls}, {acts:act|acts}",
            what="Between step {first_step} and step {last_step} the agent called the model {llm_calls:time|times} "
            "and acted {acts:time|times}: {ratio:.1f} LLM calls for each act, and {ratio_threshold:.1f} is the limit.",
            why_it_matters="The agent talks to itself instead of using its tools. Each round costs a model call and "
            "tokens and brings no new facts, so the answer comes later and costs more, and is often made up.",
            evidence_summary="{llm_calls:LLM call|LLM calls}, {acts:act|acts}, ratio {ratio:.1f} (limit "
            "{ratio_threshold:.1f} from {min_llm_calls} calls on), steps {first_step} to {last_step}; "
            "{wasted_calls:LLM call|LLM calls} led to no act, with {wasted_ms:ms} and {wasted_tokens:tokens}",
            fixes=(
                FixWords(
                    description="Make the model act or answer.",
                    language="text",
                    code="After at most two steps of thinking, either call a tool or give your final answer. "
                    "If no tool can help, say what is missing and stop.",
                ),
                FixWords(
                    description="Require a tool call once the model has reasoned often enough without one.",
                    language="python",
                    code='''\
class ActOrAnswer:
    """Says which `tool_choice` to send with the next model call. One per turn of the user."""

    def __init__(self, patience=3):
        self.patience = patience
        self.idle = 0

    def tool_choice(self):
        return "required" if self.idle >= self.patience else "auto"

    def model_answered(self, called_a_tool):
        self.idle = 0 if called_a_tool else self.idle + 1


steering = ActOrAnswer()
for called_a_tool in (True, False, False, False):
    steering.model_answered(called_a_tool)
assert steering.tool_choice() == "required"
''',
                ),
            ),
        )
    },
)  # fmt: skip
