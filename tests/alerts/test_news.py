"""The words of what is new, and how Slack and the webhook show them."""

from __future__ import annotations

import json
from typing import Any
from uuid import UUID

import pytest

from dunetrace.alerts import FORMS, news
from dunetrace.deliveries import Alert, Gathered, Kind, ResolvedIssue
from dunetrace.signals import FailureSignal, FailureType, Severity
from tests import slack as slack_server

NOW = 1_770_000_000.0
NAME = "<!here> `agent` & @channel"
SIGNAL = FailureSignal(FailureType.TOOL_LOOP, Severity.HIGH, "run", NAME, "v", 3, 0.9, {"tool_name": NAME})
ISSUE = ResolvedIssue(affected_runs=14, first_seen=NOW - 3 * 86_400, resolved_at=NOW - 5, by_hand=False)


def _alert(kind: Kind, **others: Any) -> Alert:
    return Alert(UUID(int=1), kind, SIGNAL, NOW - 60, run_url="https://page.example/#/runs/run", **others)


@pytest.mark.parametrize(
    ("alert", "headline", "story"),
    [
        (_alert(Kind.FIRST), "It loops", ""),
        (_alert(Kind.FIRST, reopened=True), "Back again: It loops", "It had been resolved."),
        (
            _alert(Kind.UPDATE, gathered=Gathered(14, NOW - 720)),
            "Still happening: 14 more runs",
            "It loops: 14 more runs in the last 12 minutes. Below is the newest of them.",
        ),
        (
            _alert(Kind.UPDATE, gathered=Gathered(1, NOW - 3)),
            "Still happening: 1 more run",
            "It loops: 1 more run in the last 1 minute. Below is the newest of them.",
        ),
        (
            _alert(Kind.ESCALATED),
            "Worse now: It loops",
            "It is HIGH now, which is more than was told before.",
        ),
        (
            _alert(Kind.RESOLVED, issue=ISSUE, gathered=Gathered(2_000, NOW)),
            "Resolved: It loops",
            "The agent's last runs were without it. It affected 14 runs, the first of them 3 days ago. "
            "2,000 of them came after the last message.",
        ),
        (
            _alert(Kind.RESOLVED, issue=ISSUE._replace(by_hand=True, affected_runs=1, first_seen=NOW - 7_300)),
            "Resolved: It loops",
            "A person resolved it. It affected 1 run, the first of them 2 hours ago.",
        ),
        (_alert(Kind.RESOLVED), "Resolved: It loops", ""),
    ],
)
def test_the_words(alert: Alert, headline: str, story: str) -> None:
    assert news.headline(alert, "It loops") == headline
    assert news.story(alert, "It loops", NOW) == story


@pytest.mark.parametrize("kind", [Kind.FIRST, Kind.UPDATE, Kind.ESCALATED, Kind.RESOLVED])
@pytest.mark.parametrize("known", [True, False])
def test_slack_takes_each_kind_and_shows_names_literally(kind: Kind, known: bool) -> None:
    facts = {"issue": ISSUE, "gathered": Gathered(3, NOW - 99), "reopened": True} if known else {}
    document = slack_server.accept(FORMS["slack"].message(_alert(kind, **facts), None, NOW).body)
    slack_server.assert_only_says_what_it_says(document)
    (attachment,) = document["attachments"]
    assert attachment["color"] == ("#36A64F" if kind is Kind.RESOLVED else "#FF6B00")
    assert attachment["blocks"][-1]["elements"][0]["url"].endswith("/runs/run")


def test_the_webhook_says_what_is_new_in_keys() -> None:
    alert = _alert(Kind.RESOLVED, issue=ISSUE, gathered=Gathered(3, NOW - 99), reopened=False)
    document = json.loads(FORMS["webhook"].message(alert, "secret", NOW).body)
    assert document["event"] == "issue_resolved" and document["kind"] == "resolved"
    assert (document["gathered_runs"], document["gathered_since"]) == (3, NOW - 99)
    assert document["issue"] == {
        "affected_runs": 14, "first_seen": NOW - 3 * 86_400, "resolved_at": NOW - 5, "by_hand": False,
    }  # fmt: skip
