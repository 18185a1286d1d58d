"""The agent makes the same tool call again and again.

Equal calls are calls of one tool with the same arguments; calls whose arguments differ only in ids, times or temporary
paths compare equal too, as long as each is known to come back with the same outcome. `threshold` equal calls within
`window` tool calls, which need not be full, are a loop, and the last of them need not have been answered yet.

A weaker sign is two equal calls, or `threshold` calls of one tool with other arguments, each of which returned the very
same output while nothing else led on either: no new tool, no new output, no word from the user. An output that is not
known never proves that. And so is a turn of the user in which `again` different calls were each made again, or one call
that often twice over, however far apart: an agent that comes back to what it did.

It is not: a failed call (RETRY_STORM and CASCADING_TOOL_FAILURE count those), two tools in strict alternation
(TOOL_THRASHING), the same tool at work on one thing after another, or a repeat after the user spoke.

Example: `get_order(42)`, `get_order(42)`, `get_order(42)`: a loop at the third call.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from dunetrace.detectors.declaration import Detector, Evidence, FixWords, Thresholds, Words, confidence, limit
from dunetrace.runs import RunState
from dunetrace.signals import FailureType, Finding, Severity
from dunetrace.views.loops import MAX_REPEATS, MAX_WINDOW, Cluster


@dataclass(frozen=True, slots=True)
class ToolLoopThresholds(Thresholds):
    threshold: int = limit(
        3, unit="equal calls", low=2, high=MAX_REPEATS,
        source="200 airline runs: three equal calls within five occur in no successful run, two in 2 %",
    )  # fmt: skip
    window: int = limit(
        5, unit="tool calls", low=2, high=MAX_WINDOW,
        source="25 web-browsing runs: found in 8 of the 13 whose own orchestrator saw a loop, in none of the others",
    )  # fmt: skip

    again: int = limit(
        2, unit="different calls made again in a turn", low=1, high=MAX_REPEATS,
        source="half of 200 airline runs: in no successful run is a single good call made again before the user speaks",
    )  # fmt: skip

    def contradiction(self) -> str | None:
        if self.threshold > self.window:
            return f"threshold ({self.threshold}) is above window ({self.window}), so it could never fire"
        return None


@dataclass(frozen=True, slots=True)
class ToolLoopEvidence(Evidence):
    kind: Literal["equal", "weak", "scattered"]
    tool_name: str
    args_hash: str
    same_arguments: bool
    call_count: int
    threshold: int
    window: int
    first_step: int
    last_step: int
    wasted_calls: int
    wasted_ms: int
    wasted_tokens: int


_Candidate = tuple[Cluster | None, float, float]


def detect(run: RunState, limits: ToolLoopThresholds) -> Finding | None:
    loops, size, window = run.loops, limits.threshold, limits.window
    if not loops.repeating:
        return None
    equal, masked = loops.equal.worst(size, window), loops.shapes.worst(size, window)
    if equal is not None or masked is not None:
        return _surest("equal", Severity.HIGH, limits, (equal, 0.85, 0.99), (masked, 0.7, 0.99))
    pair, name = loops.pairs.worst(2, window), loops.names.worst(size, window)
    if pair is None and name is None:
        return _scattered(run, limits)
    return _surest("weak", Severity.MEDIUM, limits, (pair, 0.5, 0.6), (name, 0.5, 0.6))


def _surest(
    kind: Literal["equal", "weak"], severity: Severity, limits: ToolLoopThresholds, *found: _Candidate
) -> Finding:
    """The finding for the cluster one can be surest of, each given with its least and most confidence."""
    rated = [
        (confidence(cluster.repeat.count / limits.threshold, least, most), cluster)
        for cluster, least, most in found
        if cluster is not None
    ]
    sure, (repeat, step_index) = max(rated, key=lambda entry: entry[0])
    evidence = ToolLoopEvidence(
        kind=kind,
        tool_name=repeat.tool_name,
        args_hash=repeat.args_hash,
        same_arguments=repeat.same_arguments,
        call_count=repeat.count,
        threshold=limits.threshold,
        window=limits.window,
        first_step=repeat.first_step,
        last_step=repeat.last_step,
        wasted_calls=repeat.count - 1,
        wasted_ms=round(repeat.wasted_ms),
        wasted_tokens=repeat.wasted_tokens,
    )
    return Finding(severity, sure, step_index, evidence.as_dict())


def _scattered(run: RunState, limits: ToolLoopThresholds) -> Finding | None:
    view, enough = run.loops.again, limits.again
    rated = [(view.widest.different / enough, view.widest), (view.deepest.most / (2 * enough), view.deepest)]
    ratio, worst = max(rated, key=lambda entry: entry[0])
    if ratio < 1:
        return None
    evidence = ToolLoopEvidence(
        kind="scattered",
        tool_name=worst.tool_name,
        args_hash=worst.args_hash,
        same_arguments=True,
        call_count=worst.repeats + worst.different,
        threshold=limits.threshold,
        window=limits.window,
        first_step=worst.first_step,
        last_step=worst.last_step,
        wasted_calls=worst.repeats,
        wasted_ms=round(worst.wasted_ms),
        wasted_tokens=0,
    )
    return Finding(Severity.MEDIUM, confidence(ratio, 0.5, 0.6), worst.last_step, evidence.as_dict())


_STOP_REPEATS = FixWords(
    description="Remember the calls of a run and stop the agent when it repeats one.",
    language="python",
    code='''\
import json


class RepeatGuard:
    """Refuses a tool call that was made `limit` times already with the same arguments. One per run."""

    def __init__(self, limit={threshold:literal}):
        self.limit = limit
        self.seen = {{}}

    def check(self, tool_name, args):
        key = (tool_name, json.dumps(args, sort_keys=True, default=str))
        self.seen[key] = self.seen.get(key, 0) + 1
        if self.seen[key] >= self.limit:
            raise RuntimeError(f"{{tool_name}} was called {{self.seen[key]}} times with the same arguments")


guard = RepeatGuard()
guard.check({tool_name:literal}, {{"example": 1}})  # call this in front of every tool call
''',
)
_SAY_SO = FixWords(
    description="Tell the model that repeating a call cannot give a new answer.",
    language="text",
    code="Never call {tool_name:name} again with arguments you have already used. "
    "If its result did not help, try another tool or other arguments, or tell the user what is missing.",
)
_REUSE_RESULTS = FixWords(
    description="Answer a repeated call from memory and say so, so that the model sees it learned nothing.",
    language="python",
    code='''\
import json


def remember(tool):
    """Wrap a tool so that an equal call returns the earlier result with a note. One wrapper per run."""
    results = {{}}

    def call(**args):
        key = json.dumps(args, sort_keys=True, default=str)
        if key in results:
            return {{"note": "You already made this call; the result is the same.", "result": results[key]}}
        results[key] = tool(**args)
        return results[key]

    return call
''',
)

DETECTOR = Detector(
    doc=__doc__,
    failure_type=FailureType.TOOL_LOOP,
    severity=Severity.HIGH,
    monotone=True,
    fires_on=("tool.called", "tool.responded"),
    thresholds=ToolLoopThresholds,
    evidence=ToolLoopEvidence,
    detect=detect,
    words={
        "equal": Words(
            title="Tool loop: {tool_name:name} called {call_count:time|times} over",
            what="The agent made the same call of {tool_name:name} {call_count:time|times} between step {first_step} "
            "and step {last_step}. {threshold} equal calls within {window} tool calls count as a loop.",
            why_it_matters="The same call gives the same answer, so the agent is stuck: it burns time and tokens until "
            "a step limit or the user stops it, and usually ends without a result.",
            evidence_summary="{call_count:equal call|equal calls} of {tool_name:name} (limit {threshold} in {window}), "
            "steps {first_step} to {last_step}; {wasted_calls:count} of them wasted, with {wasted_ms:ms} and "
            "{wasted_tokens:tokens}",
            fixes=(_STOP_REPEATS, _SAY_SO, _REUSE_RESULTS),
        ),
        "weak": Words(
            title="Possible tool loop: {tool_name:name} brings nothing new",
            what="The agent called {tool_name:name} {call_count:time|times} between step {first_step} and step "
            "{last_step} and got the same output each time, while no other tool or output moved the run on.",
            why_it_matters="One such repeat is often harmless. Where it goes on, the agent spends time and tokens "
            "without learning anything, and tends to end up in a full loop.",
            evidence_summary="{call_count:call|calls} of {tool_name:name} with one and the same output within a "
            "window of {window} tool calls, steps {first_step} to {last_step}; {wasted_calls:count} of them "
            "wasted, with {wasted_ms:ms} and {wasted_tokens:tokens}",
            fixes=(_REUSE_RESULTS, _SAY_SO),
        ),
        "scattered": Words(
            title="Possible tool loop: the agent comes back to calls it made",
            what="Between step {first_step} and step {last_step} the agent made {wasted_calls:call|calls} that it had "
            "made before with the same arguments, the last of {tool_name:name}, with others in between.",
            why_it_matters="An agent that goes back to what it already did has often lost its way: it works on, and "
            "does not come closer to an answer.",
            evidence_summary="{wasted_calls:repeated call|repeated calls} in one turn of the user, steps {first_step} "
            "to {last_step}, which took {wasted_ms:ms}; fewer than {threshold} equal ones within {window} tool calls",
            fixes=(_REUSE_RESULTS, _SAY_SO),
        ),
    },
)  # fmt: skip
