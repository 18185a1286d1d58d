"""The weekly digest as a Slack message. Used by the digest actor."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dunetrace.alerts import blocks
from dunetrace.weekly import TOP

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from datetime import datetime

    from dunetrace.alerts.webhook import Message
    from dunetrace.weekly import Span, Week

COLOUR_QUIET, COLOUR_NEWS = "#36A64F", "#FFB800"


def message(week: Week, span: Span, page_url: str | None) -> Message:
    """The request that tells of `week`."""
    fallback = f"Dunetrace, the week to {_day(span.until)}: {_counted(week.signals, 'signal')} in {_runs(week.runs)}"
    colour = COLOUR_NEWS if week.signals else COLOUR_QUIET
    return blocks.message(fallback, colour, list(_blocks(week, span, page_url)))


def _blocks(week: Week, span: Span, page_url: str | None) -> Iterator[blocks.Block]:
    yield blocks.header(f"Dunetrace: the week to {_day(span.until)}")
    yield blocks.context([f"{span.since:%Y-%m-%d %H:%M} to {span.until:%Y-%m-%d %H:%M} UTC"])
    yield blocks.line(
        f"{_runs(week.runs)} of {_counted(week.agents, 'agent')}, {week.tokens:,} tokens. "
        f"{_counted(week.signals, 'signal')} in {_runs(week.affected_runs)}."
    )
    if week.types:
        yield blocks.section(
            "Most frequent failures",
            *(
                f"• {blocks.name(count.failure_type)}: {_counted(count.signals, 'signal')}, "
                f"{_counted(count.agents, 'agent')}"
                for count in week.types[:TOP]
            ),
        )
    if week.top_agents:
        yield blocks.section(
            "Agents with the most signals",
            *(
                f"• {blocks.name(count.agent)}: {_counted(count.signals, 'signal')}, {_runs(count.runs)}"
                for count in week.top_agents
            ),
        )
    if week.systemic:
        yield blocks.section(
            "Systemic",
            *(
                f"• {blocks.name(pattern.agent)}: {blocks.name(pattern.failure_type)} in "
                f"{pattern.rate.affected_runs:,} of {_runs(pattern.rate.total_runs)} ({pattern.rate.rate * 100:.0f} %)"
                for pattern in week.systemic
            ),
        )
    yield blocks.section(
        "Issues",
        f"{week.issues_opened:,} opened{_listed(week.opened, week.issues_opened)}",
        f"{week.issues_resolved:,} resolved{_listed(week.resolved, week.issues_resolved)}",
    )
    yield from blocks.button("Open the dashboard", page_url)


def _listed(issues: Sequence[tuple[str, str]], total: int) -> str:
    if not issues:
        return ""
    named = ", ".join(f"{blocks.name(agent)} {blocks.name(failure_type)}" for agent, failure_type in issues)
    return f": {named}" + (f" and {total - len(issues):,} more" if total > len(issues) else "")


def _runs(count: int) -> str:
    return _counted(count, "run")


def _counted(count: int, noun: str) -> str:
    return f"{count:,} {noun}" + ("" if count == 1 else "s")


def _day(at: datetime) -> str:
    return f"{at:%A} {at.day} {at:%B %Y}"
