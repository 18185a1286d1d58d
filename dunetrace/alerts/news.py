"""What is new about a failure that somebody may have heard of before, in words that every form for people shares."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dunetrace.deliveries import Kind

if TYPE_CHECKING:
    from dunetrace.deliveries import Alert, ResolvedIssue

_UNITS = ((86_400, "day"), (3600, "hour"), (60, "minute"))  # in seconds


def headline(alert: Alert, title: str) -> str:
    """`title`, the failure's, with what is new before it."""
    match alert.kind:
        case Kind.UPDATE:
            return f"Still happening: {_more(alert)}"
        case Kind.RESOLVED:
            return f"Resolved: {title}"
        case Kind.ESCALATED:
            return f"Worse now: {title}"
        case _:
            return f"Back again: {title}" if alert.reopened else title


def story(alert: Alert, title: str, now: float) -> str:
    """How it went on since the last message, in a line or two; empty for what is told for the first time."""
    match alert.kind:
        case Kind.UPDATE:
            since = f" in the last {span(now - alert.gathered.since)}" if alert.gathered is not None else ""
            return f"{title}: {_more(alert)}{since}. Below is the newest of them."
        case Kind.RESOLVED:
            return _end(alert, now)
        case Kind.ESCALATED:
            return f"It is {alert.signal.severity} now, which is more than was told before."
        case _:
            return "It had been resolved." if alert.reopened else ""


def span(seconds: float) -> str:
    """How long that is, in one unit and at least a minute."""
    unit_s, name = next((unit for unit in _UNITS if seconds >= unit[0]), _UNITS[-1])
    return _counted(max(1, round(seconds / unit_s)), name)


def _more(alert: Alert) -> str:
    return _counted(alert.gathered.runs if alert.gathered is not None else 0, "more run")


def _end(alert: Alert, now: float) -> str:
    said = [] if alert.issue is None else [_life(alert.issue, now)]
    if alert.gathered is not None:
        said.append(f"{alert.gathered.runs:,} of them came after the last message.")
    return " ".join(said)


def _life(issue: ResolvedIssue, now: float) -> str:
    how = "A person resolved it." if issue.by_hand else "The agent's last runs were without it."
    affected, began = _counted(issue.affected_runs, "run"), span(now - issue.first_seen)
    return f"{how} It affected {affected}, the first of them {began} ago."


def _counted(number: int, what: str) -> str:
    return f"{number:,} {what}" if number == 1 else f"{number:,} {what}s"
