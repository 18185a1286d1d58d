"""The agent stopped acting, kept on thinking, and went silent without an end.

Since the user last spoke it acted (called a tool or made a retrieval) at least once; after its last act it made at
least `stall_steps` LLM calls; then nothing more was heard of it for the stall timeout, neither an answer nor an error.

It is not: a run that ended, however it did (any end is an exit), one that never acted (REASONING_STALL), one in which
LLM calls still end by asking for a tool, or a run that is still being heard of. A run that goes on afterwards is judged
again.

Example: `search_flights`, five LLM calls that weigh the results, then silence, and the user never gets a flight.
"""

from __future__ import annotations

from dataclasses import dataclass

from dunetrace.detectors.declaration import Detector, Evidence, FixWords, Thresholds, Words, confidence, limit
from dunetrace.runs import RunState
from dunetrace.signals import FailureType, Finding, Severity


@dataclass(frozen=True, slots=True)
class GoalAbandonmentThresholds(Thresholds):
    stall_steps: int = limit(
        4, unit="LLM calls after the last act", low=2, high=100,
        source="a summary, a check and an answer take up to three",
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class GoalAbandonmentEvidence(Evidence):
    llm_calls: int
    stall_steps: int
    acts: int
    last_act_step: int
    first_step: int
    last_step: int
    wasted_calls: int
    wasted_ms: int
    wasted_tokens: int


def detect(run: RunState, limits: GoalAbandonmentThresholds) -> Finding | None:
    stretch, tail = run.stretches.now, run.stretches.now.tail
    if run.terminal or not run.silent or not stretch.reported or tail.llm_calls < limits.stall_steps:
        return None
    evidence = GoalAbandonmentEvidence(
        llm_calls=tail.llm_calls,
        stall_steps=limits.stall_steps,
        acts=stretch.reported,
        last_act_step=stretch.act_step,
        first_step=tail.first_step,
        last_step=stretch.last_step,
        wasted_calls=tail.llm_calls,
        wasted_ms=round(run.llm_ms - tail.ms_before),
        wasted_tokens=run.total_tokens - tail.tokens_before,
    )
    sure = confidence(tail.llm_calls / limits.stall_steps, 0.6)
    return Finding(Severity.MEDIUM, sure, stretch.last_step, evidence.as_dict())


DETECTOR = Detector(
    doc=__doc__,
    failure_type=FailureType.GOAL_ABANDONMENT,
    severity=Severity.MEDIUM,
    monotone=False,
    thresholds=GoalAbandonmentThresholds,
    evidence=GoalAbandonmentEvidence,
    detect=detect,
    words={
        "": Words(
            title="Goal abandonment: {llm_calls:LLM call|LLM calls} after the last act, then silence",
            what="The agent acted for the last time at step {last_act_step}, then made {llm_calls:LLM call|LLM calls} "
            "up to step {last_step} and was not heard of again: no answer, no error. "
            "{stall_steps:LLM call|LLM calls} without an act are the limit.",
            why_it_matters="Nobody was told how it ended. The user waits for an answer that does not come, and what "
            "the agent had begun with its tools may be left half done.",
            evidence_summary="{acts:act|acts}, the last at step {last_act_step}; then {llm_calls:LLM call|LLM calls} "
            "(limit {stall_steps}), steps {first_step} to {last_step}, and silence; {wasted_ms:ms} and "
            "{wasted_tokens:tokens} spent after the last act",
            fixes=(
                FixWords(
                    description="Give the agent's loop an end it cannot miss: after enough calls without an act, ask "
                    "for the final answer and stop.",
                    language="python",
                    code='''\
class MustEnd:
    """Says when a run has thought long enough since its last tool call. One per run."""

    def __init__(self, limit={stall_steps:literal}):
        self.limit = limit
        self.idle = 0

    def model_answered(self, called_a_tool):
        self.idle = 0 if called_a_tool else self.idle + 1

    @property
    def now(self):
        return self.idle >= self.limit


must_end = MustEnd()
must_end.model_answered(called_a_tool=False)
if must_end.now:
    print("ask the model for its final answer, with tools switched off, then end the run")
''',
                ),
                FixWords(
                    description="Make every way out of the run tell its end, with a limit on its time.",
                    language="python",
                    code="""\
import asyncio


async def to_an_end(agent, timeout_s=120):
    \"\"\"Runs the agent; one that hangs ends in TimeoutError instead of silence.\"\"\"
    return await asyncio.wait_for(agent(), timeout_s)
""",
                ),
                FixWords(
                    description="Tell the model to finish what it began.",
                    language="text",
                    code="When you have the results of your tools, answer. If they are not enough, call another tool "
                    "or say what is missing. Never end a task without a word to the user.",
                ),
            ),
        )
    },
)  # fmt: skip
