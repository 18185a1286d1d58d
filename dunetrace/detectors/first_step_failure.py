"""The run failed before it had really begun.

It ended in an error at step `max_step` or earlier (steps are LLM, tool and retrieval calls, so an error before the
first call counts too), or its last call was at such a step and was a tool call that failed, and nothing came after it.

It is not: a failure the agent went on from, a longer run that ends in an error, or an early answer with nothing in it
(EMPTY_LLM_RESPONSE says that; only where the run also ended in an error does this one speak as well). It is judged when
the run has ended or fallen silent, because the agent could still go on.

Example: the first tool call is refused for a missing API key, and the run ends in `PermissionError`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from dunetrace.calls import CallKind
from dunetrace.detectors.declaration import Detector, Evidence, FixWords, Thresholds, Words, confidence, limit
from dunetrace.runs import RunState
from dunetrace.signals import FailureType, Finding, Severity


@dataclass(frozen=True, slots=True)
class FirstStepFailureThresholds(Thresholds):
    max_step: int = limit(
        2, unit="steps", low=1, high=10,
        source="most runs begin with one model call and the tool call it asks for",
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class FirstStepFailureEvidence(Evidence):
    kind: Literal["errored", "failed_call"]
    error_type: str
    tool_name: str
    step_count: int
    max_step: int
    last_step: int
    wasted_calls: int
    wasted_ms: int
    wasted_tokens: int


def detect(run: RunState, limits: FirstStepFailureThresholds) -> Finding | None:
    if run.step_count > limits.max_step or not (run.terminal or run.silent):
        return None
    last = run.steps[-1] if run.steps else None
    errored = run.terminal == "run.errored"
    tool = last if last is not None and last.kind is CallKind.TOOL and last.failed else None
    if not errored and tool is None:
        return None
    evidence = FirstStepFailureEvidence(
        kind="errored" if errored else "failed_call",
        error_type=run.error_type,
        tool_name=tool.name if tool is not None else "",
        step_count=run.step_count,
        max_step=limits.max_step,
        last_step=last.step_index if last is not None else run.last_order[1],
        wasted_calls=run.step_count,
        wasted_ms=round(sum(call.duration_ms or 0.0 for call in run.steps)),
        wasted_tokens=run.total_tokens,
    )
    sure = confidence(limits.max_step / max(1, run.step_count), 0.8 if errored else 0.65)
    return Finding(Severity.MEDIUM, sure, evidence.last_step, evidence.as_dict())


_CHECK_FIRST = FixWords(
    description="Check at start what the first steps need, and fail with a clear message before the model is called.",
    language="python",
    code='''\
def check_setup(needed, settings):
    """Ends the process with one line that names every setting the agent cannot do without."""
    missing = [name for name in needed if not settings.get(name)]
    if missing:
        raise SystemExit("the agent cannot start: set " + ", ".join(missing))


check_setup(["API_KEY"], {{"API_KEY": "example"}})  # give it the settings your agent really reads
''',
)
_TELL_THE_MODEL = FixWords(
    description="Hand a tool's error to the model as a result, so that it can go on or say what went wrong.",
    language="python",
    code='''\
def told(tool):
    """Wrap a tool so that its failure becomes a result the model can read."""

    def call(**args):
        try:
            return tool(**args)
        except Exception as error:
            return {{"error": f"{{type(error).__name__}}: {{error}}"}}

    return call
''',
)
_GO_ON = FixWords(
    description="Tell the model that the first failure is not the end.",
    language="text",
    code="If your first tool call fails, read the error, correct the call or use another tool. If none can help, say "
    "what failed and what you would need.",
)

DETECTOR = Detector(
    doc=__doc__,
    failure_type=FailureType.FIRST_STEP_FAILURE,
    severity=Severity.MEDIUM,
    monotone=False,
    thresholds=FirstStepFailureThresholds,
    evidence=FirstStepFailureEvidence,
    detect=detect,
    words={
        "errored": Words(
            title="First step failure: the run ended in an error after {step_count:step|steps}",
            what="The run ended in the error {error_type:name} after {step_count:step|steps}, at step {last_step}. An "
            "error within the first {max_step:step|steps} counts as a failed start.",
            why_it_matters="A run that fails this early got nothing done, and usually fails the same way for every "
            "user: a missing key, a broken deploy, an input nothing was prepared for.",
            evidence_summary="error {error_type:name} after {step_count:step|steps} (limit {max_step}), last at step "
            "{last_step}; {wasted_calls:call|calls} for nothing, with {wasted_ms:ms} and {wasted_tokens:tokens}",
            fixes=(_CHECK_FIRST, _TELL_THE_MODEL),
        ),
        "failed_call": Words(
            title="First step failure: {tool_name:name} failed and nothing came after it",
            what="The call of {tool_name:name} at step {last_step} failed, and it was the last thing the run did, "
            "after {step_count:step|steps} in all. A failed call within the first {max_step:step|steps} that nothing "
            "follows counts as a failed start.",
            why_it_matters="The agent gave up at its first obstacle, so the user has no result, and maybe no word of "
            "what went wrong.",
            evidence_summary="{tool_name:name} failed at step {last_step}, the last of {step_count:step|steps} (limit "
            "{max_step}); {wasted_calls:call|calls} for nothing, with {wasted_ms:ms} and {wasted_tokens:tokens}",
            fixes=(_TELL_THE_MODEL, _GO_ON, _CHECK_FIRST),
        ),
    },
)  # fmt: skip
