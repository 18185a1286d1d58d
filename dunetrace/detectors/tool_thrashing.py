"""The agent swings between two tools and gets nowhere.

`window` tool calls that strictly alternate between exactly two tools (A B A B A B), anywhere in the run, are thrashing.
The longest such alternation speaks, and its last call need not have been answered yet.

It is not: steady work in pairs, such as search and open through ever new material. Where each call had arguments and
an output that the alternation had not seen before, it leads on; what is not known never counts as new, and a call still
open says nothing yet, unless the run ended without any answer. Nor is it three tools in turn, a failed call (the
alternation starts again after it), or one that goes on after the user spoke.

Example: `read_config`, `write_config`, `read_config`, `write_config`, `read_config`, `write_config`, each undoing the
last.
"""

from __future__ import annotations

from dataclasses import dataclass

from dunetrace.detectors.declaration import Detector, Evidence, FixWords, Thresholds, Words, confidence, limit
from dunetrace.runs import RunState
from dunetrace.signals import FailureType, Finding, Severity
from dunetrace.views.alternations import MAX_WINDOW, MIN_WINDOW


@dataclass(frozen=True, slots=True)
class ToolThrashingThresholds(Thresholds):
    window: int = limit(
        6, unit="tool calls", low=MIN_WINDOW, high=MAX_WINDOW,
        source="three rounds; in 225 recorded runs not even two rounds pass without something new",
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class ToolThrashingEvidence(Evidence):
    tool_name: str
    other_tool_name: str
    call_count: int
    window: int
    first_step: int
    last_step: int
    wasted_calls: int
    wasted_ms: int
    wasted_tokens: int


def detect(run: RunState, limits: ToolThrashingThresholds) -> Finding | None:
    found = run.loops.alternations.longest
    if found is None or found.length < limits.window:
        return None
    evidence = ToolThrashingEvidence(
        tool_name=found.tools[0],
        other_tool_name=found.tools[1],
        call_count=found.length,
        window=limits.window,
        first_step=found.first_step,
        last_step=found.last_step,
        wasted_calls=found.length - 2,
        wasted_ms=round(found.wasted_ms),
        wasted_tokens=found.wasted_tokens,
    )
    sure = confidence(found.length / limits.window, 0.75)
    return Finding(Severity.HIGH, sure, found.steps[limits.window - 1], evidence.as_dict())


DETECTOR = Detector(
    doc=__doc__,
    failure_type=FailureType.TOOL_THRASHING,
    severity=Severity.HIGH,
    monotone=True,
    fires_on=("tool.called", "tool.responded"),
    thresholds=ToolThrashingThresholds,
    evidence=ToolThrashingEvidence,
    detect=detect,
    words={
        "": Words(
            title="Tool thrashing: {tool_name:name} and {other_tool_name:name} in turn, {call_count:call|calls}",
            what="From step {first_step} to step {last_step} the agent went back and forth between {tool_name:name} "
            "and {other_tool_name:name}, {call_count:call|calls} in strict turn, without visibly getting further. "
            "{window} such calls are the limit.",
            why_it_matters="Each tool's result sends the agent back to the other one, so it circles until a step "
            "limit or the user stops it. If the tools write, each round may undo the one before.",
            evidence_summary="{call_count:call|calls} of {tool_name:name} and {other_tool_name:name} in strict turn "
            "(limit {window}), steps {first_step} to {last_step}; {wasted_calls:count} of them wasted, with "
            "{wasted_ms:ms} and {wasted_tokens:tokens}",
            fixes=(
                FixWords(
                    description="Stop the agent when two tools keep taking turns.",
                    language="python",
                    code='''\
class SwingGuard:
    """Refuses the call with which two tools would have taken turns for `limit` calls. One per run."""

    def __init__(self, limit={window:literal}):
        self.limit = limit
        self.names = []

    def check(self, tool_name):
        self.names = [*self.names, tool_name][-self.limit :]
        turns = all(name != after for name, after in zip(self.names, self.names[1:]))
        if turns and len(self.names) == self.limit and len(set(self.names)) == 2:
            raise RuntimeError("two tools keep taking turns: " + ", ".join(self.names[:2]))


guard = SwingGuard()
guard.check("example")  # call this in front of every tool call
''',
                ),
                FixWords(
                    description="Have the model take stock before it swings back.",
                    language="text",
                    code="Do not go back and forth between {tool_name:name} and {other_tool_name:name}. Before you "
                    "call either of them again, say what you learned from both and what is still missing. If neither "
                    "can tell you that, answer with what you have or ask the user.",
                ),
                FixWords(
                    description="Offer one tool that does what the two do by turns, so that there is nothing to swing "
                    "between.",
                    language="python",
                    code="""\
def merged(first, second):
    \"\"\"One tool out of two that need each other's result: fewer steps, and no way to circle.\"\"\"

    def tool(**args):
        return second(first(**args))

    return tool
""",
                ),
            ),
        )
    },
)  # fmt: skip
