"""One tool after another fails.

`threshold` failed answers in a row across two tools or more, with no good answer in between, are a cascade. Calls still
open neither add to it nor end it, and a word from the user does not end it. The longest one of the run speaks.

It is not: one tool that fails three times in a row, alone or among others (RETRY_STORM; three is that detector's own
default, whatever it is set to), or tools that fail now and then between good answers. As the next failure may still
turn a streak into a retry storm, it is judged once it is over: by a good answer, the end of the run, or its silence.

Example: `get_user`, then `get_orders`, then `get_user` again, all refused because the session's token has expired.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from dunetrace.detectors.declaration import Detector, Evidence, FixWords, Thresholds, Words, confidence, limit
from dunetrace.runs import RunState
from dunetrace.signals import FailureType, Finding, Severity
from dunetrace.views.failures import MAX_IN_A_ROW

STORM = 3  # failures of one tool in a row make it a retry storm


@dataclass(frozen=True, slots=True)
class CascadingToolFailureThresholds(Thresholds):
    threshold: int = limit(
        3, unit="failures in a row", low=2, high=MAX_IN_A_ROW,
        source="two tools may fail by chance; a third failure with nothing good in between has a cause in common",
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class CascadingToolFailureEvidence(Evidence):
    kind: Literal["same_error", "errors"]
    tools: tuple[str, ...]
    failure_count: int
    threshold: int
    same_error: bool
    first_step: int
    last_step: int
    wasted_calls: int
    wasted_ms: int
    wasted_tokens: int


def detect(run: RunState, limits: CascadingToolFailureThresholds) -> Finding | None:
    streak = run.failures.longest_mixed(row_below=STORM, with_open=run.silent)
    if streak is None or streak.count < limits.threshold:
        return None
    evidence = CascadingToolFailureEvidence(
        kind="same_error" if streak.same_error else "errors",
        tools=streak.tools,
        failure_count=streak.count,
        threshold=limits.threshold,
        same_error=streak.same_error,
        first_step=streak.first_step,
        last_step=streak.last_step,
        wasted_calls=streak.count - 1,
        wasted_ms=round(streak.wasted_ms),
        wasted_tokens=streak.wasted_tokens,
    )
    sure = confidence(streak.count / limits.threshold, 0.8)
    return Finding(Severity.HIGH, sure, streak.steps[limits.threshold - 1], evidence.as_dict())


_STOP_THE_RUN = FixWords(
    description="Stop the run once too many tool calls in a row have failed, whichever tools they were.",
    language="python",
    code='''\
class FailureBudget:
    """Ends a run in which tool after tool fails. One per run."""

    def __init__(self, limit={threshold:literal}):
        self.limit = limit
        self.in_a_row = 0

    def answered(self, success):
        self.in_a_row = 0 if success else self.in_a_row + 1
        if self.in_a_row >= self.limit:
            raise RuntimeError(f"{{self.in_a_row}} tool calls in a row failed: what do they depend on?")


budget = FailureBudget()
budget.answered(success=True)  # call this after every tool call
''',
)
_CHECK_FIRST = FixWords(
    description="Check what the tools have in common (token, network, database) before the run starts.",
    language="python",
    code='''\
def ready(checks):
    """Names of the dependencies that do not answer. `checks` maps a name to a function that raises."""
    broken = []
    for name, check in checks.items():
        try:
            check()
        except Exception:
            broken.append(name)
    return broken


assert ready({{"orders service": lambda: None}}) == []  # start the agent only then
''',
)
_SAY_SO = FixWords(
    description="Tell the model that another tool is no way around a common cause.",
    language="text",
    code="If two different tools have failed one after the other, do not try a third. Say which calls failed and what "
    "their errors have in common, and ask how to go on.",
)
_SUMMARY = (
    "{failure_count:failure|failures} in a row (limit {threshold}) of {tools:names}, steps {first_step} to "
    "{last_step}; {wasted_calls:call|calls} after the first, with {wasted_ms:ms} and {wasted_tokens:tokens}"
)

DETECTOR = Detector(
    doc=__doc__,
    failure_type=FailureType.CASCADING_TOOL_FAILURE,
    severity=Severity.HIGH,
    monotone=True,
    fires_on=("tool.responded",),
    thresholds=CascadingToolFailureThresholds,
    evidence=CascadingToolFailureEvidence,
    detect=detect,
    words={
        "same_error": Words(
            title="Cascading tool failure: {failure_count:call|calls} in a row failed with the same error",
            what="{failure_count:tool call|tool calls} in a row failed with one and the same error between step "
            "{first_step} and step {last_step}, across {tools:names}. {threshold} are the limit.",
            why_it_matters="The same error from different tools points at what they share: a token, a network, a "
            "service behind them. Until that is repaired every run fails like this one.",
            evidence_summary=f"{_SUMMARY}; one and the same error",
            fixes=(_CHECK_FIRST, _STOP_THE_RUN, _SAY_SO),
        ),
        "errors": Words(
            title="Cascading tool failure: {failure_count:call|calls} in a row failed",
            what="{failure_count:tool call|tool calls} in a row failed between step {first_step} and step {last_step}, "
            "across {tools:names}, with no good answer in between. {threshold} are the limit.",
            why_it_matters="When one tool after another fails, either something they share is broken, or each call "
            "builds on what the failed one should have given. The agent works on without any facts.",
            evidence_summary=_SUMMARY,
            fixes=(_STOP_THE_RUN, _CHECK_FIRST, _SAY_SO),
        ),
    },
)  # fmt: skip
