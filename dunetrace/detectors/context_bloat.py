"""The prompt grows and grows from one LLM call to the next.

The last LLM call's prompt has at least `growth_factor` times the tokens of the first one's and at least
`min_last_tokens`, over `min_calls` or more LLM calls whose prompt tokens are known.

It is not: a large prompt that stays as large as it was, growth that was trimmed again before the end, a doubling of
something small, or a run whose client reports no prompt tokens. It is judged when the run has ended or fallen silent.

Example: the first call sends 1,200 tokens; each search result is appended whole, and the ninth call sends 21,000.
"""

from __future__ import annotations

from dataclasses import dataclass

from dunetrace.detectors.declaration import Detector, Evidence, FixWords, Thresholds, Words, confidence, limit
from dunetrace.runs import RunState
from dunetrace.signals import FailureType, Finding, Severity


@dataclass(frozen=True, slots=True)
class ContextBloatThresholds(Thresholds):
    growth_factor: float = limit(
        3.0, unit="times the first prompt", low=1.1, high=1_000.0,
        source="200 airline runs: at most 2.9 in any successful run, three times or more in 19 % of the failed ones",
    )  # fmt: skip
    min_calls: int = limit(
        3, unit="LLM calls with known tokens", low=2, high=1_000,
        source="two points are no growth yet: the second call may simply be another task",
    )  # fmt: skip
    min_last_tokens: int = limit(
        2_000, unit="prompt tokens", low=0, high=10_000_000,
        source="below that a prompt costs little, however much it grew",
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class ContextBloatEvidence(Evidence):
    """`wasted_tokens` are what all prompts cost beyond the size of the first: an estimate, as some growth is due."""

    first_tokens: int
    last_tokens: int
    largest_tokens: int
    ratio: float
    growth_factor: float
    measured_calls: int
    first_step: int
    last_step: int
    largest_step: int
    wasted_tokens: int


def detect(run: RunState, limits: ContextBloatThresholds) -> Finding | None:
    prompts = run.prompts
    first, last, largest = prompts.first, prompts.last, prompts.largest
    if first is None or last is None or largest is None or prompts.count < limits.min_calls:
        return None
    ratio = last.prompt_tokens / first.prompt_tokens
    if last.prompt_tokens < limits.min_last_tokens or ratio < limits.growth_factor:
        return None
    evidence = ContextBloatEvidence(
        first_tokens=first.prompt_tokens,
        last_tokens=last.prompt_tokens,
        largest_tokens=largest.prompt_tokens,
        ratio=round(ratio, 2),
        growth_factor=limits.growth_factor,
        measured_calls=prompts.count,
        first_step=first.step_index,
        last_step=last.step_index,
        largest_step=largest.step_index,
        wasted_tokens=max(0, prompts.tokens - prompts.count * first.prompt_tokens),
    )
    sure = confidence(ratio / limits.growth_factor, 0.6)
    return Finding(Severity.MEDIUM, sure, last.step_index, evidence.as_dict())


DETECTOR = Detector(
    doc=__doc__,
    failure_type=FailureType.CONTEXT_BLOAT,
    severity=Severity.MEDIUM,
    monotone=False,
    thresholds=ContextBloatThresholds,
    evidence=ContextBloatEvidence,
    detect=detect,
    words={
        "": Words(
            title="Context bloat: the prompt grew {ratio:.1f}-fold, to {last_tokens:count} tokens",
            what="The first LLM call (step {first_step}) sent {first_tokens:count} prompt tokens, the last one (step "
            "{last_step}) {last_tokens:count}: {ratio:.1f} times as many, and {growth_factor:.1f} times is the limit. "
            "The largest prompt had {largest_tokens:count}, at step {largest_step}.",
            why_it_matters="Every further call pays for all that was piled up before, gets slower, and nears the "
            "model's context limit, where calls fail or early instructions are dropped. Models also overlook facts in "
            "the middle of long prompts.",
            evidence_summary="{first_tokens:count} to {last_tokens:count} prompt tokens over "
            "{measured_calls:LLM call|LLM calls}, steps {first_step} to {last_step}: {ratio:.1f} times (limit "
            "{growth_factor:.1f}); about {wasted_tokens:count} tokens sent beyond the size of the first prompt",
            fixes=(
                FixWords(
                    description="Shorten old tool results before each model call; the recent messages stay whole.",
                    language="python",
                    code='''\
def trimmed(messages, keep=6, most_chars=1_000):
    """The messages with old tool results cut short; the last `keep` are left alone."""
    old, recent = messages[:-keep], messages[-keep:]
    return [shortened(message, most_chars) for message in old] + recent


def shortened(message, most_chars):
    text = message.get("content")
    if message["role"] != "tool" or not isinstance(text, str) or len(text) <= most_chars:
        return message
    return {{**message, "content": text[:most_chars] + " [shortened]"}}


history = [{{"role": "tool", "content": "x" * 5_000}}] * 8
assert sum(len(message["content"]) > 1_100 for message in trimmed(history)) == 6
''',
                ),
                FixWords(
                    description="Let the model replace older turns with a summary once the prompt is long.",
                    language="text",
                    code="Summarise the conversation so far in at most 300 words: the user's goal, the facts found "
                    "(with names, numbers and ids), what was tried, and what is still open. Leave out greetings and "
                    "raw tool output.",
                ),
                FixWords(
                    description="Have the tools return less: the few fields the agent needs, and one page at a time.",
                    language="python",
                    code='''\
def only(rows, fields, most=20):
    """The first `most` rows with these fields alone, and how many rows were left out."""
    kept = [{{name: row[name] for name in fields if name in row}} for row in rows[:most]]
    return {{"rows": kept, "left_out": len(rows) - len(kept)}}


assert only([{{"id": 1, "body": "long"}}], ["id"]) == {{"rows": [{{"id": 1}}], "left_out": 0}}
''',
                ),
            ),
        )
    },
)  # fmt: skip
