"""The agent had tools and answered without using any.

The run gave an answer, tools were on offer, and it called none of them, made no retrieval, and no LLM call ended by
asking for a tool. It thought about it: at least `min_llm_calls` LLM calls lie within one turn of the user.

It is not: a chat in which each turn is answered at once, a run without tools, one that gave no answer, or one whose
tool calls are not reported (the model's asking for them shows that). It is judged when the run has ended.

Example: asked for today's price, the agent with `get_price` on offer reasons for three calls and answers from memory.
"""

from __future__ import annotations

from dataclasses import dataclass

from dunetrace.detectors.declaration import Detector, Evidence, FixWords, Thresholds, Words, confidence, limit
from dunetrace.runs import RunState
from dunetrace.signals import FailureType, Finding, Severity
from dunetrace.views.stretches import MAX_STRETCH_CALLS

MAX_TOOLS = 10  # names in the evidence


@dataclass(frozen=True, slots=True)
class ToolAvoidanceThresholds(Thresholds):
    min_llm_calls: int = limit(
        2, unit="LLM calls in one turn", low=1, high=MAX_STRETCH_CALLS,
        source="a single call that answers at once is what a simple question deserves",
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class ToolAvoidanceEvidence(Evidence):
    tool_count: int
    tools: tuple[str, ...]
    llm_calls: int
    min_llm_calls: int
    first_step: int
    last_step: int
    wasted_calls: int
    wasted_ms: int
    wasted_tokens: int


def detect(run: RunState, limits: ToolAvoidanceThresholds) -> Finding | None:
    if not (run.answered and run.tools) or run.tool_calls or run.retrieval_calls or run.stretches.asked:
        return None
    stretch = run.stretches.worst(limits.min_llm_calls)  # with no act in any of them, the longest
    if stretch is None:
        return None
    evidence = ToolAvoidanceEvidence(
        tool_count=len(run.tools),
        tools=run.tools[:MAX_TOOLS],
        llm_calls=stretch.llm_calls,
        min_llm_calls=limits.min_llm_calls,
        first_step=stretch.first_step,
        last_step=stretch.last_step,
        wasted_calls=stretch.idle_calls,
        wasted_ms=round(stretch.idle_ms),
        wasted_tokens=stretch.idle_tokens,
    )
    sure = confidence(stretch.llm_calls / limits.min_llm_calls, 0.55)
    return Finding(Severity.MEDIUM, sure, stretch.last_step, evidence.as_dict())


DETECTOR = Detector(
    doc=__doc__,
    failure_type=FailureType.TOOL_AVOIDANCE,
    severity=Severity.MEDIUM,
    monotone=False,
    thresholds=ToolAvoidanceThresholds,
    evidence=ToolAvoidanceEvidence,
    detect=detect,
    words={
        "": Words(
            title="Tool avoidance: {llm_calls:LLM call|LLM calls}, no tool call, {tool_count:tool|tools} on offer",
            what="The agent made {llm_calls:LLM call|LLM calls} from step {first_step} to step {last_step} and "
            "answered without calling a tool, though {tool_count:tool was|tools were} on offer, such as {tools:names}. "
            "The limit is {min_llm_calls:LLM call|LLM calls} within one turn.",
            why_it_matters="An answer that no tool was asked for rests on what the model remembers or makes up. It "
            "may read well and be wrong or out of date.",
            evidence_summary="{llm_calls:LLM call|LLM calls} (limit {min_llm_calls}) and no tool call, "
            "{tool_count:tool|tools} on offer, steps {first_step} to {last_step}; {wasted_calls:LLM call|LLM calls} "
            "before the last, with {wasted_ms:ms} and {wasted_tokens:tokens}",
            fixes=(
                FixWords(
                    description="Say which questions may not be answered from memory.",
                    language="text",
                    code="Never answer from memory what a tool can look up. Before you answer, call one of "
                    "{tools:names} for every fact the answer rests on. If none fits, say so in the answer.",
                ),
                FixWords(
                    description="Require a tool in the first model call of a turn, and leave it free afterwards.",
                    language="python",
                    code="""\
def tool_choice(calls_this_turn, tools):
    \"\"\"Which `tool_choice` to send with the next model call.\"\"\"
    return "required" if tools and not calls_this_turn else "auto"


assert tool_choice(0, ["search"]) == "required"
assert tool_choice(1, ["search"]) == "auto"
""",
                ),
                FixWords(
                    description="Describe each tool by the question it answers, so that the model sees when it fits.",
                    language="python",
                    code="""\
def vague(tools, least_words=8):
    \"\"\"Names of the tools whose description is too short to tell a model when to call them.\"\"\"
    return [tool["name"] for tool in tools if len(tool.get("description", "").split()) < least_words]


assert vague([{{"name": "get_price", "description": "Gets the price."}}]) == ["get_price"]
""",
                ),
            ),
        )
    },
)  # fmt: skip
