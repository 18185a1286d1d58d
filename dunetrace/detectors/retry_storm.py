"""The agent keeps calling a tool that keeps failing.

`threshold` failed answers of one tool in a row are a retry storm. Only answers count: a call still open neither adds
to the row nor ends it. A good answer of any tool ends it, and so does another tool's failure; a word from the user
does not, for the tool is as broken as before. The longest row of the whole run speaks.

It is not: failures of several tools in turn (CASCADING_TOOL_FAILURE), a call that is made again with success
(TOOL_LOOP), or a tool that fails now and then between good answers.

Example: `charge_card` fails three times running with "card service unavailable", and the agent tries a fourth time.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from dunetrace.detectors.declaration import Detector, Evidence, FixWords, Thresholds, Words, confidence, limit
from dunetrace.runs import RunState
from dunetrace.signals import FailureType, Finding, Severity
from dunetrace.views.failures import MAX_IN_A_ROW


@dataclass(frozen=True, slots=True)
class RetryStormThresholds(Thresholds):
    threshold: int = limit(
        3, unit="failures in a row", low=2, high=MAX_IN_A_ROW,
        source="200 airline runs: three failures in a row occur in no successful run, in 4 % of the failed ones",
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class RetryStormEvidence(Evidence):
    kind: Literal["same_error", "errors"]
    tool_name: str
    failure_count: int
    threshold: int
    same_error: bool
    same_arguments: bool
    first_step: int
    last_step: int
    wasted_calls: int
    wasted_ms: int
    wasted_tokens: int


def detect(run: RunState, limits: RetryStormThresholds) -> Finding | None:
    row = run.failures.longest_row
    if row is None or row.count < limits.threshold:
        return None
    evidence = RetryStormEvidence(
        kind="same_error" if row.same_error else "errors",
        tool_name=row.tools[0],
        failure_count=row.count,
        threshold=limits.threshold,
        same_error=row.same_error,
        same_arguments=row.same_arguments,
        first_step=row.first_step,
        last_step=row.last_step,
        wasted_calls=row.count - 1,
        wasted_ms=round(row.wasted_ms),
        wasted_tokens=row.wasted_tokens,
    )
    sure = confidence(row.count / limits.threshold, 0.85)
    return Finding(Severity.HIGH, sure, row.steps[limits.threshold - 1], evidence.as_dict())


_STOP_CALLING = FixWords(
    description="Refuse a tool once it has failed too often in a row, and tell the model so.",
    language="python",
    code='''\
class Breaker:
    """Calls tools, but not one that failed `limit` times in a row. One per run."""

    def __init__(self, limit={threshold:literal}):
        self.limit = limit
        self.failures = {{}}

    def call(self, tool_name, tool, **args):
        if self.failures.get(tool_name, 0) >= self.limit:
            return {{"error": f"{{tool_name}} is out of order. Do not call it again; go on without it."}}
        try:
            result = tool(**args)
        except Exception as error:
            self.failures[tool_name] = self.failures.get(tool_name, 0) + 1
            return {{"error": str(error)}}
        self.failures[tool_name] = 0
        return result
''',
)
_SAY_SO = FixWords(
    description="Tell the model what to do about an error instead of calling again.",
    language="text",
    code="When {tool_name:name} fails, read its error first. Call it again only if you have changed what the error "
    "complains about. After two failures stop calling it, and tell the user what could not be done and why.",
)
_WAIT = FixWords(
    description="Where a second call does no harm, retry inside the tool, a few times with growing pauses, so that the "
    "model sees one answer.",
    language="python",
    code='''\
import time


def patiently(tool, tries=3, pause_s=1.0):
    """Wrap a tool that fails for a moment now and then: the last failure is raised."""

    def call(**args):
        for n in range(tries - 1):
            try:
                return tool(**args)
            except Exception:
                time.sleep(pause_s * 2**n)
        return tool(**args)

    return call
''',
)
_SUMMARY = (
    "{failure_count:failure|failures} of {tool_name:name} in a row (limit {threshold}), steps {first_step} to "
    "{last_step}; {wasted_calls:call|calls} after the first, with {wasted_ms:ms} and {wasted_tokens:tokens}"
)

DETECTOR = Detector(
    doc=__doc__,
    failure_type=FailureType.RETRY_STORM,
    severity=Severity.HIGH,
    monotone=True,
    fires_on=("tool.responded",),
    thresholds=RetryStormThresholds,
    evidence=RetryStormEvidence,
    detect=detect,
    words={
        "same_error": Words(
            title="Retry storm: {tool_name:name} failed {failure_count:time|times} in a row with the same error",
            what="{tool_name:name} failed {failure_count:time|times} in a row between step {first_step} and step "
            "{last_step}, each time with the same error. {threshold} failures in a row are the limit.",
            why_it_matters="An error that stays the same does not go away by trying again: the input, the credentials "
            "or the service is wrong. The retries cost time and tokens and load a service that may be down.",
            evidence_summary=f"{_SUMMARY}; one and the same error",
            fixes=(_STOP_CALLING, _SAY_SO),
        ),
        "errors": Words(
            title="Retry storm: {tool_name:name} failed {failure_count:time|times} in a row",
            what="{tool_name:name} failed {failure_count:time|times} in a row between step {first_step} and step "
            "{last_step}. {threshold} failures in a row are the limit.",
            why_it_matters="Calling the tool again has not helped. The retries cost time and "
            "tokens, load a service that may be down, and the run usually ends without what the tool was for.",
            evidence_summary=_SUMMARY,
            fixes=(_STOP_CALLING, _WAIT, _SAY_SO),
        ),
    },
)  # fmt: skip
