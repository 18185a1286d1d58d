"""A signal as an event of PagerDuty's Events API v2: one alert on its side for each failure an agent has.

Every event about the same customer, agent and failure type carries the same `dedup_key`: the first opens an alert, what
follows goes into its log, and a resolved issue closes it. The routing key is the secret, and it is in the body. Used by
the destination actor, and by the command that sends a test.
https://developer.pagerduty.com/docs/send-alert-event
"""

from __future__ import annotations

import json
import re
from dataclasses import asdict, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from dunetrace.alerts import news, sample
from dunetrace.alerts.webhook import Message
from dunetrace.alerts.words import words
from dunetrace.deliveries import Kind, thread_id
from dunetrace.errors import SettingError
from dunetrace.explain.wording import shown_name
from dunetrace.signals import Severity, without_digests

if TYPE_CHECKING:
    from uuid import UUID

    from dunetrace.deliveries import Alert
    from dunetrace.explain import Explanation

ENQUEUE_URL = "https://events.pagerduty.com/v2/enqueue"
TEST_DEDUP_KEY = "dunetrace-test"
# PagerDuty's own: of an event, and of its summary.
EVENT_BYTES, SUMMARY_CHARS = 512 << 10, 1024
SOURCE_CHARS = 256  # ours: as long as an agent's name may be

_SEVERITIES = {
    Severity.CRITICAL: "critical",
    Severity.HIGH: "error",
    Severity.MEDIUM: "warning",
    Severity.LOW: "info",
}
_ROUTING_KEY = re.compile(r"[0-9A-Za-z]{32}")

Event = dict[str, Any]


def message(alert: Alert, routing_key: str | None, sent_at: float) -> Message:
    """The request that tells of `alert`."""
    signal = alert.signal
    dedup_key = _dedup_key(alert)
    if alert.kind is Kind.RESOLVED:
        return _message(routing_key, {"event_action": "resolve", "dedup_key": dedup_key})
    shown = alert._replace(signal=replace(signal, evidence=without_digests(signal.evidence)))
    said = words(shown, shown.rate_context)
    return _message(routing_key, _trigger(shown, said, dedup_key, news.story(alert, said.title, sent_at)))


def test_message(delivery_id: UUID, routing_key: str | None, sent_at: float) -> Message:
    """An event in the real form, with made-up content. It opens an alert of the least severity, always the same one,
    which a person closes.
    """
    return _message(routing_key, _trigger(sample.alert(delivery_id, sent_at), sample.WORDS, TEST_DEDUP_KEY, ""))


def check_routing_key(setting: str, routing_key: str) -> None:
    """SettingError, without the key in it, unless it is one of PagerDuty's integration keys."""
    if not _ROUTING_KEY.fullmatch(routing_key):
        raise SettingError(
            f"{setting}: an integration key of PagerDuty's Events API v2 has 32 letters and digits; "
            f"this one has {len(routing_key)} characters"
        )


def _dedup_key(alert: Alert) -> str:
    """A rise among many runs is an alert of its own, which the end of the issue does not close."""
    signal = alert.signal
    if alert.kind is Kind.FLEET:
        return str(alert.delivery_id)
    return str(thread_id(alert.customer_id, signal.agent_id, signal.failure_type))


def _trigger(alert: Alert, said: Explanation, dedup_key: str, story: str) -> Event:
    event: Event = {
        "event_action": "trigger",
        "dedup_key": dedup_key,
        "payload": {**_payload(alert, said), "custom_details": _details(alert, said, story)},
        "client": "Dunetrace",
    }
    if alert.run_url is not None:
        event["client_url"] = alert.run_url
        event["links"] = [{"href": alert.run_url, "text": "Open the run"}]
    return event


def _payload(alert: Alert, said: Explanation) -> Event:
    signal = alert.signal
    headline = news.headline(alert, said.title).replace("`", "")
    summary = f"{signal.severity}: {headline} ({shown_name(signal.agent_id)})"
    return {
        "summary": summary[:SUMMARY_CHARS],
        "source": shown_name(signal.agent_id, SOURCE_CHARS),
        "severity": _SEVERITIES[signal.severity],
        "timestamp": datetime.fromtimestamp(alert.detected_at, UTC).isoformat(timespec="milliseconds"),
        "component": shown_name(signal.agent_version),
        "group": shown_name(alert.customer_id),
        "class": signal.failure_type,
    }


def _details(alert: Alert, said: Explanation, story: str) -> Event:
    """What a person who was woken reads: the words first."""
    signal = alert.signal
    return {
        **({"story": story} if story else {}),
        "what": said.what,
        "why_it_matters": said.why_it_matters,
        "evidence_summary": said.evidence_summary,
        "first_fix": asdict(said.suggested_fixes[0]),
        "rate_context": alert.rate_context.as_json() if alert.rate_context is not None else None,
        "cost": alert.cost.as_json() if alert.cost is not None else None,
        **({"fleet": alert.fleet.as_json()} if alert.fleet is not None else {}),
        "agent_id": signal.agent_id,
        "agent_version": signal.agent_version,
        "run_id": signal.run_id,
        "step_index": signal.step_index,
        "confidence": signal.confidence,
        "evidence": signal.evidence,
        "delivery_id": str(alert.delivery_id),
    }


def _message(routing_key: str | None, event: Event) -> Message:
    body = _body(routing_key, event)
    if len(body) > EVENT_BYTES:
        del event["payload"]["custom_details"]["evidence"]  # the only part without a bound; the page has it
        body = _body(routing_key, event)
    return Message(body, {"Content-Type": "application/json"})


def _body(routing_key: str | None, event: Event) -> bytes:
    return json.dumps({"routing_key": routing_key, **event}, ensure_ascii=False, separators=(",", ":")).encode()
