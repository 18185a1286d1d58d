"""A signal as a Slack message: what a person on call needs to decide whether to look, and a button to look.

The same words as everywhere else, without any digest. Used by the destination actor, and by the command that sends a
test.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from dunetrace.alerts import blocks, news, sample
from dunetrace.alerts.words import words
from dunetrace.deliveries import Kind
from dunetrace.signals import Severity, without_digests

if TYPE_CHECKING:
    from collections.abc import Iterator
    from uuid import UUID

    from dunetrace.alerts.webhook import Message
    from dunetrace.deliveries import Alert
    from dunetrace.explain import Explanation, RateContext

COLOURS = {
    Severity.CRITICAL: "#FF0000",
    Severity.HIGH: "#FF6B00",
    Severity.MEDIUM: "#FFB800",
    Severity.LOW: "#36A64F",
}
RESOLVED_COLOUR, _RESOLVED_EMOJI = "#36A64F", "✅"
_EMOJI = {Severity.CRITICAL: "🔴", Severity.HIGH: "🟠", Severity.MEDIUM: "🟡", Severity.LOW: "🟢"}


def message(alert: Alert, _secret: str | None, sent_at: float) -> Message:
    """The request that tells of `alert`. Slack's address is its secret, and Slack stamps the time itself."""
    signal = replace(alert.signal, evidence=without_digests(alert.signal.evidence))
    return _message(alert, words(alert._replace(signal=signal)), sent_at)


def test_message(delivery_id: UUID, _secret: str | None, sent_at: float) -> Message:
    """A message in the real form, with made-up content, to try a channel with."""
    return _message(sample.alert(delivery_id, sent_at), sample.WORDS, sent_at)


def _message(alert: Alert, said: Explanation, now: float) -> Message:
    if alert.kind is Kind.RESOLVED:
        return _end(alert, said, now)
    severity = alert.signal.severity
    fallback = f"{severity}: {news.headline(alert, said.title)} ({alert.signal.agent_id})"
    return blocks.message(fallback, COLOURS[severity], list(_blocks(alert, said, now)))


def _end(alert: Alert, said: Explanation, now: float) -> Message:
    """The note of an issue's end: good news is short."""
    headline = news.headline(alert, said.title)
    note = [
        blocks.header(f"{_RESOLVED_EMOJI} {headline}"),
        blocks.context([f"agent {blocks.name(alert.signal.agent_id)}", f"last run {blocks.name(alert.signal.run_id)}"]),
        *_story(alert, said, now),
        *blocks.button("Open the last run", alert.run_url),
    ]
    return blocks.message(f"{headline} ({alert.signal.agent_id})", RESOLVED_COLOUR, note)


def _story(alert: Alert, said: Explanation, now: float) -> Iterator[blocks.Block]:
    if story := news.story(alert, said.title, now):
        yield blocks.line(blocks.prose(story))


def _blocks(alert: Alert, said: Explanation, now: float) -> Iterator[blocks.Block]:
    signal = alert.signal
    yield blocks.header(f"{_EMOJI[signal.severity]} {news.headline(alert, said.title)}")
    yield blocks.context(
        [
            f"{signal.severity}",
            f"agent {blocks.name(signal.agent_id)}",
            f"version {blocks.name(signal.agent_version)}",
            f"run {blocks.name(signal.run_id)}",
            f"step {signal.step_index:,}",
            f"confidence {signal.confidence:.0%}",
        ]
    )
    yield from _story(alert, said, now)
    if alert.rate_context is not None:
        yield blocks.line(rate_line(alert.rate_context))
    yield blocks.section("What happened", blocks.prose(said.what))
    yield blocks.section("Why it matters", blocks.prose(said.why_it_matters))
    yield blocks.section("Evidence", blocks.prose(said.evidence_summary))
    if alert.cost is not None and (cost := alert.cost.words()) is not None:
        yield blocks.line(cost)
    for fix in said.suggested_fixes[:1]:
        snippet = [blocks.code(fix.code)] if fix.code.strip() else []
        yield blocks.section("First fix to try", blocks.prose(fix.description), *snippet)
    yield from blocks.button("Open the run", alert.run_url)


def rate_line(rate: RateContext) -> str:
    """How common the failure is, in one line."""
    runs = "run" if rate.total_runs == 1 else "runs"
    share = "under 1 %" if 0 < rate.rate < 0.01 else f"{rate.rate * 100:.0f} %"
    said = f"In {rate.affected_runs:,} of {rate.total_runs:,} {runs} ({share}) in the last 7 days"
    return f"{said}: *systemic*" if rate.is_systemic else said
