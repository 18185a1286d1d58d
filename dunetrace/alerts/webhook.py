"""The webhook's body and its two kinds of signature.

Flat JSON, the same words as the API's, without any digest: what leaves the server must not let anyone look text up.
The signatures cover the exact bytes sent; receivers check either ours (``X-Dunetrace-Signature``) or, with a ready-made
library, Standard Webhooks'. Used by the destination actor, and by the command that sends a test.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
from typing import TYPE_CHECKING, Any, NamedTuple

from dunetrace.alerts import sample
from dunetrace.alerts.words import words
from dunetrace.deliveries import Kind
from dunetrace.errors import SettingError
from dunetrace.signals import without_digests

if TYPE_CHECKING:
    from uuid import UUID

    from dunetrace.deliveries import Alert
    from dunetrace.explain import Explanation

SCHEMA_VERSION = "1.0"
_STANDARD_PREFIX = "whsec_"
_EVENTS = {
    Kind.FIRST: "failure_signal",
    Kind.UPDATE: "failure_update",
    Kind.ESCALATED: "failure_update",
    Kind.RESOLVED: "issue_resolved",
    Kind.FLEET: "failure_update",
}


class Message(NamedTuple):
    """What is POSTed: the exact bytes, and the headers that speak of them."""

    body: bytes
    headers: dict[str, str]


class SigningKeys(NamedTuple):
    """The HMAC keys one secret stands for."""

    dunetrace: bytes
    standard: bytes


def message(alert: Alert, secret: str | None, sent_at: float) -> Message:
    """The request that tells of `alert`; `sent_at` is Unix seconds."""
    return _sealed(_EVENTS[alert.kind], alert, secret, sent_at)


def test_message(delivery_id: UUID, secret: str | None, sent_at: float) -> Message:
    """A request in the real form, with made-up content, to try a receiver with."""
    return _sealed("test", sample.alert(delivery_id, sent_at), secret, sent_at, sample.WORDS)


def check_secret(setting: str, secret: str) -> None:
    """SettingError, which names the setting and not the secret, unless there are keys in it."""
    signing_keys(secret, setting)


def signing_keys(secret: str, setting: str = "WEBHOOK_SECRET") -> SigningKeys:
    """SettingError when a ``whsec_`` secret is not base64."""
    raw = secret.encode()
    if not secret.startswith(_STANDARD_PREFIX):
        return SigningKeys(raw, raw)
    rest = secret.removeprefix(_STANDARD_PREFIX).rstrip("=")
    try:
        standard = base64.b64decode(rest + "=" * (-len(rest) % 4), validate=True)
    except (binascii.Error, ValueError):
        standard = b""
    if not standard:
        raise SettingError(f"{setting}: what follows whsec_ must be base64; any other secret is taken as it is")
    return SigningKeys(raw, standard)


def _sealed(event: str, alert: Alert, secret: str | None, sent_at: float, said: Explanation | None = None) -> Message:
    document = _document(event, alert, sent_at, (said or words(alert, alert.rate_context)).as_json())
    body = json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()
    return Message(body, _headers(event, body, str(alert.delivery_id), secret, sent_at))


def _document(event: str, alert: Alert, sent_at: float, said: dict[str, Any]) -> dict[str, Any]:
    signal = alert.signal
    return {
        "schema_version": SCHEMA_VERSION,
        "event": event,
        "sent_at": sent_at,
        "failure_type": signal.failure_type,
        "severity": signal.severity,
        "confidence": signal.confidence,
        "run_id": signal.run_id,
        "agent_id": signal.agent_id,
        "agent_version": signal.agent_version,
        "step_index": signal.step_index,
        "detected_at": alert.detected_at,
        "title": said["title"],
        "what": said["what"],
        "why_it_matters": said["why_it_matters"],
        "evidence_summary": said["evidence_summary"],
        "evidence": without_digests(signal.evidence),
        "suggested_fixes": said["suggested_fixes"],
        "rate_context": alert.rate_context.as_json() if alert.rate_context is not None else None,
        "cost": alert.cost.as_json() if alert.cost is not None else None,
        **({"fleet": alert.fleet.as_json()} if alert.fleet is not None else {}),
        "delivery_id": str(alert.delivery_id),
        **_news(alert),
    }


def _news(alert: Alert) -> dict[str, Any]:
    """What is new about it; the same keys whatever the kind."""
    return {
        "kind": alert.kind,
        "reopened": alert.reopened,
        "gathered_runs": alert.gathered.runs if alert.gathered is not None else 0,
        "gathered_since": alert.gathered.since if alert.gathered is not None else None,
        "issue": alert.issue._asdict() if alert.issue is not None else None,
    }


def _headers(event: str, body: bytes, delivery_id: str, secret: str | None, sent_at: float) -> dict[str, str]:
    timestamp = str(int(sent_at))
    headers = {
        "Content-Type": "application/json",
        "X-Dunetrace-Event": event,
        "X-Dunetrace-Version": SCHEMA_VERSION,
        "webhook-id": delivery_id,
        "webhook-timestamp": timestamp,
    }
    if secret:
        keys = signing_keys(secret)
        sealed = hmac.digest(keys.standard, f"{delivery_id}.{timestamp}.".encode() + body, hashlib.sha256)
        headers["X-Dunetrace-Signature"] = hmac.digest(keys.dunetrace, body, hashlib.sha256).hex()
        headers["webhook-signature"] = "v1," + base64.b64encode(sealed).decode()
    return headers
