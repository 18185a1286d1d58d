"""One step of the run takes very long.

A tool or retrieval call took longer than `tool_ms`, or an LLM call longer than `llm_ms`; the one furthest beyond its
limit speaks, and from five times the limit on it is HIGH. A call that hangs (it has no answer, and nothing was heard of
the run since) is measured by the server's clock.

It is not: many steps that add up, the time a user takes to reply, or a call that was never answered while the run went
on: how long that one took is not known.

Example: `search_flights` answers after 48 seconds, 3.2 times the limit, while the user waits.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass

from dunetrace.calls import Call, CallKind
from dunetrace.detectors.declaration import Detector, Evidence, FixWords, Thresholds, Words, confidence, limit
from dunetrace.runs import RunState
from dunetrace.signals import FailureType, Finding, Severity

HIGH_RATIO = 5.0
_LLM = CallKind.LLM


@dataclass(frozen=True, slots=True)
class SlowStepThresholds(Thresholds):
    tool_ms: int = limit(
        15_000, unit="ms", low=1, high=86_400_000,
        source="most HTTP clients and gateways give up between 10 and 30 seconds",
    )  # fmt: skip
    llm_ms: int = limit(
        30_000, unit="ms", low=1, high=86_400_000,
        source="1,000 output tokens at 40 a second take 25 seconds",
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class SlowStepEvidence(Evidence):
    """`kind` is the kind of call, with `hanging_` in front where it is still open. `name` is the tool's or the index's.

    `slow_calls` counts this and the other calls of the run over their limits, at most 20 of each kind; `wasted_ms` is
    their time beyond the limits.
    """

    kind: str
    name: str
    duration_ms: int
    limit_ms: int
    ratio: float
    slow_calls: int
    step: int
    wasted_ms: int


def detect(run: RunState, limits: SlowStepThresholds) -> Finding | None:
    timed: list[tuple[float, float, Call]] = []  # ratio, ms and call of what is furthest over the limit, by kind
    beyond_ms: list[float] = []
    for kind, durations in run.durations.by_kind.items():
        longest = durations.longest_ms
        if durations.slowest is not None and longest[-1] > (limit_ms := _limit_ms(kind, limits)):
            beyond_ms += [ms - limit_ms for ms in longest[bisect_right(longest, limit_ms) :]]
            timed.append((longest[-1] / limit_ms, longest[-1], durations.slowest))
    open_call = run.hanging
    open_ms = None if open_call is None else run.duration_ms(open_call)
    if open_call is not None and open_ms is not None and open_ms > (limit_ms := _limit_ms(open_call.kind, limits)):
        timed.append((open_ms / limit_ms, open_ms, open_call))
        beyond_ms.append(open_ms - limit_ms)
    if not timed:
        return None
    ratio, ms, call = max(timed, key=lambda entry: entry[0])
    evidence = SlowStepEvidence(
        kind=call.kind.value if call.answered else f"hanging_{call.kind.value}",
        name=call.name,
        duration_ms=round(ms),
        limit_ms=_limit_ms(call.kind, limits),
        ratio=round(ratio, 2),
        slow_calls=len(beyond_ms),
        step=call.step_index,
        wasted_ms=round(sum(beyond_ms)),
    )
    severity = Severity.HIGH if ratio >= HIGH_RATIO else Severity.MEDIUM
    return Finding(severity, confidence(ratio, 0.7), call.step_index, evidence.as_dict())


def look_at(run: RunState, limits: SlowStepThresholds) -> float | None:
    """When the open call, should nothing more be heard, will be over its limit."""
    call = run.hanging
    if call is None:
        return None
    return call.received_at + (_limit_ms(call.kind, limits) + 1) / 1000


def _limit_ms(kind: CallKind, limits: SlowStepThresholds) -> int:
    return limits.llm_ms if kind is _LLM else limits.tool_ms


_TIMEOUT = '''\
import queue
import threading


def with_timeout(function, timeout_s={timeout}):
    """Wrap a call: after `timeout_s` the agent gets a TimeoutError. The call itself goes on in its thread."""

    def call(*args, **kwargs):
        outcome = queue.SimpleQueue()

        def work():
            try:
                outcome.put((function(*args, **kwargs), None))
            except Exception as error:
                outcome.put((None, error))

        threading.Thread(target=work, daemon=True).start()
        try:
            result, error = outcome.get(timeout=timeout_s)
        except queue.Empty:
            raise TimeoutError(f"no answer within {{timeout_s}} s") from None
        if error is not None:
            raise error
        return result

    return call


assert with_timeout(sorted, timeout_s=60)([2, 1]) == [1, 2]
'''.replace("{timeout}", "{limit_ms:literal} / 1000")
_TIMEOUT_FOR_TOOLS = FixWords(
    description="Give the call a timeout, so that the agent hears of it and can do something else.",
    language="python",
    code=_TIMEOUT,
)
_TIMEOUT_FOR_MODELS = FixWords(
    description="Give up on a model call in time, then try again or fall back to a faster model.",
    language="python",
    code=_TIMEOUT,
)
_SHORTER_ANSWERS = FixWords(
    description="Ask for less: output tokens are what takes a model most of its time.",
    language="text",
    code="Answer in at most 200 words. Do not repeat the question or earlier results. If more is needed, offer it.",
)
_FIND_THE_CAUSE = FixWords(
    description="Find where the time goes before you raise the limit.",
    language="text",
    code="1. Does the service behind {name:name} answer this slowly without the agent too?\n"
    "2. Does the call ask for too much at once (no page size, no filter)?\n"
    "3. Does the client retry silently? Its retries are part of the time.\n"
    "If it is slow by nature, raise slow_step.tool_ms for this agent in detectors.yml.",
)
_IS_IT_ALIVE = FixWords(
    description="See whether the agent's process is still there and what it waits for.",
    language="text",
    code="py-spy dump --pid <pid of the agent>",
)


def _slow(thing: str, whose: str, why: str, *fixes: FixWords) -> Words:
    return Words(
        title=f"Slow {thing}{whose}: {{duration_ms:ms}}",
        what=f"The {thing}{whose} at step {{step}} took {{duration_ms:ms}}: {{ratio:.1f}} times the limit of "
        "{limit_ms:ms}.",
        why_it_matters=why,
        evidence_summary=f"{{duration_ms:ms}} for the {thing}{whose} at step {{step}} (limit {{limit_ms:ms}}, "
        "{ratio:.1f} times); {slow_calls:call|calls} of the run over the limit, {wasted_ms:ms} beyond it",
        fixes=fixes,
    )


def _hanging(thing: str, whose: str, *fixes: FixWords) -> Words:
    return Words(
        title=f"Hanging {thing}{whose}: no answer for {{duration_ms:ms}}",
        what=f"The {thing}{whose} at step {{step}} has had no answer for {{duration_ms:ms}}, {{ratio:.1f}} times the "
        "limit of {limit_ms:ms}, and nothing else was heard of the run since.",
        why_it_matters="The agent waits for something that may never come, or its process died during the call. "
        "Without a timeout the run does not end, and whoever asked waits with it.",
        evidence_summary=f"{{duration_ms:ms}} without an answer to the {thing}{whose} at step {{step}} (limit "
        "{limit_ms:ms}, {ratio:.1f} times); {slow_calls:call|calls} of the run over the limit, {wasted_ms:ms} beyond "
        "it",
        fixes=fixes,
    )


_WHY_TOOL = (
    "The whole run stands still while it waits, and so does whoever asked. Slow calls also run into the timeouts of "
    "the systems around the agent, and then the work is paid for and lost."
)
_WHY_LLM = (
    "The whole run stands still while the model writes, and so does whoever asked. A call this slow is often a prompt "
    "or an answer grown too long, a queue at the provider, or silent retries in the client."
)

DETECTOR = Detector(
    doc=__doc__,
    failure_type=FailureType.SLOW_STEP,
    severity=Severity.HIGH,
    monotone=True,
    fires_on=("llm.responded", "tool.responded", "retrieval.responded"),
    thresholds=SlowStepThresholds,
    evidence=SlowStepEvidence,
    detect=detect,
    look_at=look_at,
    words={
        "tool": _slow("tool call", " of {name:name}", _WHY_TOOL, _TIMEOUT_FOR_TOOLS, _FIND_THE_CAUSE),
        "llm": _slow("LLM call", "", _WHY_LLM, _SHORTER_ANSWERS, _TIMEOUT_FOR_MODELS),
        "retrieval": _slow("retrieval", " from {name:name}", _WHY_TOOL, _TIMEOUT_FOR_TOOLS, _FIND_THE_CAUSE),
        "hanging_tool": _hanging("tool call", " of {name:name}", _TIMEOUT_FOR_TOOLS, _IS_IT_ALIVE),
        "hanging_llm": _hanging("LLM call", "", _TIMEOUT_FOR_MODELS, _IS_IT_ALIVE),
        "hanging_retrieval": _hanging("retrieval", " from {name:name}", _TIMEOUT_FOR_TOOLS, _IS_IT_ALIVE),
    },
)
