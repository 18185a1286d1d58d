"""The webhook's body and signatures: the contract's fields and no others, no digest, and seals others can check."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from standardwebhooks import Webhook, WebhookVerificationError

from dunetrace.alerts import webhook
from dunetrace.alerts.webhook import Message, signing_keys
from dunetrace.deliveries import Alert, Kind
from dunetrace.errors import SettingError
from dunetrace.explain import RateContext, explain
from dunetrace.signals import FailureSignal, FailureType, Severity, without_digests

DELIVERY_ID = UUID("5f4dcc3b-5aa7-55d6-8327-deb882cf99aa")
DIGEST = hashlib.sha256(b"what the user said").hexdigest()
FIELDS = """schema_version event sent_at failure_type severity confidence run_id agent_id agent_version step_index
detected_at title what why_it_matters evidence_summary evidence suggested_fixes rate_context cost delivery_id kind
reopened gathered_runs gathered_since issue""".split()  # noqa: SIM905 - read as a table

EVIDENCE: dict[FailureType, dict[str, Any]] = {
    FailureType.TOOL_LOOP: {
        "kind": "strong",
        "tool_name": "suche für „Wüste“",
        "args_hash": DIGEST,
        "steps": [1, 3, 5],
        "calls": [{"step": 1, "args_hash": DIGEST}, {"step": 3, "output_hashes": [DIGEST]}],
    },
    FailureType.PROMPT_INJECTION_SIGNAL: {"input_hash": DIGEST, "matched_patterns": ["ignore_previous"]},
    FailureType.REASONING_STALL: {"ratio": 5.0},
    FailureType.STEP_COUNT_INFLATION: {"step_count": 40},
}


def _alert(failure_type: FailureType = FailureType.TOOL_LOOP, kind: Kind = Kind.FIRST) -> Alert:
    signal = FailureSignal(
        failure_type=failure_type,
        severity=Severity.HIGH,
        run_id="run/1",
        agent_id="agent",
        agent_version="6ddeb0c4",
        step_index=5,
        confidence=0.95,
        evidence=EVIDENCE[failure_type],
    )
    return Alert(DELIVERY_ID, kind, signal, 1_770_000_000.25, RateContext(20, 3, 0.15, True))


def _made(secret: str | None = "s3cret", **alert: Any) -> Message:
    return webhook.message(_alert(**alert), secret, time.time())


def test_the_body_is_the_contracts() -> None:
    sent_at = 1_770_000_001.5
    document = json.loads(webhook.message(_alert(), "s3cret", sent_at).body)
    assert list(document) == FIELDS
    words = explain(_alert().signal, _alert().rate_context).as_json()
    assert {name: document[name] for name in words} == words
    assert document | words == {
        **words,
        "schema_version": "1.0",
        "event": "failure_signal",
        "sent_at": sent_at,
        "failure_type": "TOOL_LOOP",
        "severity": "HIGH",
        "confidence": 0.95,
        "run_id": "run/1",
        "agent_id": "agent",
        "agent_version": "6ddeb0c4",
        "step_index": 5,
        "detected_at": 1_770_000_000.25,
        "evidence": {
            "kind": "strong",
            "tool_name": "suche für „Wüste“",
            "steps": [1, 3, 5],
            "calls": [{"step": 1}, {"step": 3}],
        },
        "rate_context": {"total_runs": 20, "affected_runs": 3, "rate": 0.15, "is_systemic": True},
        "cost": None,
        "delivery_id": str(DELIVERY_ID),
        "kind": "first",
        "reopened": False,
        "gathered_runs": 0,
        "gathered_since": None,
        "issue": None,
    }


@pytest.mark.parametrize("failure_type", EVIDENCE)
def test_no_digest_leaves_in_the_evidence_or_the_words(failure_type: FailureType) -> None:
    body = _made(failure_type=failure_type).body
    assert b"_hash" not in body
    assert DIGEST[:8].encode() not in body


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(st.sampled_from(["a", "args_hash", "hash_count", "output_hashes"]), inner, max_size=4)
        ),
    )
)
def test_without_digests_drops_those_keys_and_nothing_else(value: Any) -> None:
    cleaned = without_digests(value)
    assert "args_hash" not in json.dumps(cleaned) and "output_hashes" not in json.dumps(cleaned)
    assert without_digests(cleaned) == cleaned
    if not isinstance(value, dict | list):
        assert cleaned == value
    if isinstance(value, dict):
        assert set(cleaned) == set(value) - {"args_hash", "output_hashes"}


@pytest.mark.parametrize(
    ("kind", "event"),
    [
        (Kind.FIRST, "failure_signal"),
        (Kind.UPDATE, "failure_update"),
        (Kind.ESCALATED, "failure_update"),
        (Kind.RESOLVED, "issue_resolved"),
    ],
)
def test_the_event_names_why(kind: Kind, event: str) -> None:
    made = _made(kind=kind)
    assert json.loads(made.body)["event"] == made.headers["X-Dunetrace-Event"] == event
    assert made.headers["X-Dunetrace-Version"] == "1.0"


@pytest.mark.parametrize("secret", ["s3cret", "пароль", "whsec_" + base64.b64encode(b"k" * 24).decode()])
def test_our_signature_is_over_the_exact_body(secret: str) -> None:
    made = _made(secret)
    expected = hmac.new(secret.encode("utf-8"), made.body, hashlib.sha256).hexdigest()
    assert made.headers["X-Dunetrace-Signature"] == expected


@pytest.mark.parametrize(
    ("secret", "verifier"),
    [
        ("whsec_" + base64.b64encode(b"k" * 24).decode(), Webhook("whsec_" + base64.b64encode(b"k" * 24).decode())),
        ("whsec_" + base64.b64encode(b"k" * 25).decode().rstrip("="), Webhook(b"k" * 25)),
        ("any words at all", Webhook(b"any words at all")),
    ],
)
def test_standard_webhooks_libraries_accept_it(secret: str, verifier: Webhook) -> None:
    made = _made(secret)
    assert verifier.verify(made.body, made.headers)["delivery_id"] == str(DELIVERY_ID)
    assert made.headers["webhook-id"] == str(DELIVERY_ID)
    with pytest.raises(WebhookVerificationError):
        verifier.verify(made.body.replace(b"HIGH", b"LOW "), made.headers)
    with pytest.raises(WebhookVerificationError):
        Webhook(b"another").verify(made.body, made.headers)


@pytest.mark.parametrize("secret", [None, ""])
def test_without_a_secret_there_is_no_signature(secret: str | None) -> None:
    assert not {"X-Dunetrace-Signature", "webhook-signature"} & _made(secret).headers.keys()


@pytest.mark.parametrize("secret", ["whsec_", "whsec_===", "whsec_not base64!", "whsec_a"])
def test_a_broken_whsec_secret(secret: str) -> None:
    with pytest.raises(SettingError, match="WEBHOOK_SECRET") as raised:
        signing_keys(secret)
    assert secret.removeprefix("whsec_") in {"", "==="} or secret not in str(raised.value)


def test_a_test_has_the_form_of_the_real_thing() -> None:
    made = webhook.test_message(DELIVERY_ID, "s3cret", time.time())
    real = json.loads(_made().body)
    document = json.loads(made.body)
    assert list(document) == FIELDS
    assert document["event"] == made.headers["X-Dunetrace-Event"] == "test"
    for name, value in document.items():
        assert type(value) is type(real[name]), name
    assert Webhook(b"s3cret").verify(made.body, made.headers) == document


def test_text_no_encoder_likes_is_still_sent() -> None:
    """Names are any text; JSON carries it, and what Postgres cannot hold never gets this far."""
    alert = _alert()
    odd = 'quote " slash \\ newline \n null \x00 emoji 🐫 mention <!channel>'
    signal = FailureSignal(FailureType.TOOL_LOOP, Severity.LOW, odd, odd, odd, 0, 0.5, {"tool_name": odd})
    document = json.loads(webhook.message(alert._replace(signal=signal), "s", time.time()).body)
    assert document["run_id"] == document["agent_id"] == document["evidence"]["tool_name"] == odd
