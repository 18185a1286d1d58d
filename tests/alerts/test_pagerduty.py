"""PagerDuty's events: its schema strictly, one alert for each failure of an agent, and no digest in it."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from typing import Any
from uuid import uuid4

import pytest
from structlog.testing import capture_logs

from dunetrace.actors import destination as destination_module
from dunetrace.alerts import FORMS
from dunetrace.alerts import pagerduty as form
from dunetrace.deliveries import Alert, Kind
from dunetrace.errors import SettingError
from dunetrace.explain import RateContext, explain
from dunetrace.signals import FailureSignal, FailureType, Severity
from tests import pagerduty
from tests.alerts.ground import PAGE, Ground, courier, dispatcher_for
from tests.alerts.ground import pagerduty as pager_at
from tests.pagerduty import ROUTING_KEY
from tests.receiver import Mode, Receiver

DIGEST = hashlib.sha256(b"what the user said").hexdigest()
AT = 1_770_000_000.25
RUN_URL = f"{PAGE}/#/runs/run%2F1"
HOSTILE = "x\n\u202e<script> @channel `" + "é" * 200

SIGNAL = FailureSignal(
    failure_type=FailureType.TOOL_LOOP,
    severity=Severity.HIGH,
    run_id="run/1",
    agent_id="checkout",
    agent_version="6ddeb0c4",
    step_index=5,
    confidence=0.95,
    evidence={
        "kind": "strong",
        "tool_name": "search",
        "args_hash": DIGEST,
        "count": 3,
        "window": 5,
        "steps": [1, 3, 5],
    },
)


def _alert(kind: Kind = Kind.FIRST, customer_id: str = "default", **signal: Any) -> Alert:
    return Alert(
        uuid4(),
        kind,
        replace(SIGNAL, **signal),
        AT,
        RateContext(20, 3, 0.15, True),
        f"{PAGE}/#/runs/run%2F1",
        customer_id,
    )


def _event(**alert: Any) -> dict[str, Any]:
    return pagerduty.accept(form.message(_alert(**alert), ROUTING_KEY, AT).body)


def test_an_alert_is_a_trigger_with_all_that_is_known() -> None:
    event = _event()
    details = event["payload"].pop("custom_details")
    assert event.pop("payload") == {
        "summary": f"HIGH: {explain(SIGNAL).title.replace('`', '')} (checkout)",
        "source": "checkout",
        "severity": "error",
        "timestamp": "2026-02-02T02:40:00.250+00:00",
        "component": "6ddeb0c4",
        "group": "default",
        "class": "TOOL_LOOP",
    }
    dedup_key = event.pop("dedup_key")
    assert event == {
        "routing_key": ROUTING_KEY,
        "event_action": "trigger",
        "client": "Dunetrace",
        "client_url": RUN_URL,
        "links": [{"href": RUN_URL, "text": "Open the run"}],
    }
    assert 0 < len(dedup_key) <= 255 and "checkout" not in dedup_key
    assert list(details)[:4] == ["what", "why_it_matters", "evidence_summary", "first_fix"]
    assert details["run_id"] == "run/1" and details["rate_context"]["affected_runs"] == 3


@pytest.mark.parametrize(
    ("severity", "theirs"),
    [(Severity.CRITICAL, "critical"), (Severity.HIGH, "error"), (Severity.MEDIUM, "warning"), (Severity.LOW, "info")],
)
def test_severities(severity: Severity, theirs: str) -> None:
    assert _event(severity=severity)["payload"]["severity"] == theirs


def test_one_failure_of_an_agent_is_one_alert_there_whatever_the_run() -> None:
    opened = _event()["dedup_key"]
    for kind in (Kind.UPDATE, Kind.ESCALATED):
        following = _event(kind=kind, run_id="another", severity=Severity.CRITICAL, agent_version="new")
        assert (following["event_action"], following["dedup_key"]) == ("trigger", opened)
    resolved = _event(kind=Kind.RESOLVED, run_id="a third")
    assert resolved == {"routing_key": ROUTING_KEY, "event_action": "resolve", "dedup_key": opened}
    others = [_event(customer_id="other"), _event(agent_id="search"), _event(failure_type=FailureType.RETRY_STORM)]
    assert len({opened, *(event["dedup_key"] for event in others)}) == 4


@pytest.mark.parametrize("failure_type", FailureType)
@pytest.mark.parametrize("kind", Kind)
def test_every_failure_of_every_kind_is_taken(failure_type: FailureType, kind: Kind) -> None:
    _event(
        failure_type=failure_type, kind=kind, evidence={"input_hash": DIGEST, "nested": [{"output_hashes": [DIGEST]}]}
    )


def test_no_digest_leaves() -> None:
    body = form.message(_alert(), ROUTING_KEY, AT).body
    assert b"_hash" not in body and DIGEST[:8].encode() not in body


def test_names_are_on_one_line_and_within_bounds() -> None:
    event = _event(agent_id=HOSTILE, agent_version=HOSTILE, customer_id=HOSTILE)
    for name in ("summary", "source", "component", "group"):
        shown = event["payload"][name]
        assert "\n" not in shown and "\u202e" not in shown, name
    assert event["payload"]["custom_details"]["agent_id"] == HOSTILE
    assert _event(agent_id=" ")["payload"]["source"] == "(no name)"


def test_without_a_page_there_is_no_link() -> None:
    event = pagerduty.accept(form.message(_alert()._replace(run_url=None, rate_context=None), ROUTING_KEY, AT).body)
    assert not {"client_url", "links"} & event.keys()


def test_evidence_that_is_too_much_stays_behind() -> None:
    event = _event(evidence={"steps": list(range(200_000))})
    assert "evidence" not in event["payload"]["custom_details"]
    assert event["payload"]["custom_details"]["run_id"] == "run/1"


def test_a_test_is_of_the_least_severity_and_always_the_same_alert() -> None:
    tests = [FORMS["pagerduty"].test_message(uuid4(), ROUTING_KEY, AT) for _ in range(2)]
    events = [pagerduty.accept(made.body) for made in tests]
    assert {event["dedup_key"] for event in events} == {"dunetrace-test"}
    assert {event["payload"]["severity"] for event in events} == {"info"}
    assert "Test alert" in events[0]["payload"]["summary"]


@pytest.mark.parametrize("key", ["", "short", ROUTING_KEY + "0", ROUTING_KEY[:-1] + "-", ROUTING_KEY[:-1] + "\n"])
def test_a_routing_key_that_cannot_be_one(key: str) -> None:
    with pytest.raises(SettingError, match="here: ") as raised:
        form.check_routing_key("here", key)
    assert not key or key not in str(raised.value)


@pytest.mark.parametrize(
    "event",
    [
        {},
        {"payload": {"summary": "", "source": "a", "severity": "info"}},
        {"payload": {"summary": "s", "source": "a", "severity": "HIGH"}},
        {"payload": {"summary": "s" * 1025, "source": "a", "severity": "info"}},
        {"payload": {"summary": "s", "source": "a", "severity": "info", "timestamp": "2026-02-02 02:40"}},
        {"payload": {"summary": "s", "source": "a", "severity": "info", "colour": "red"}},
        {"event_action": "resolve"},
        {"dedup_key": "k" * 256, "event_action": "resolve"},
        {"routing_key": "short", "event_action": "resolve", "dedup_key": "k"},
        {"links": [{"text": "no href"}], "payload": {"summary": "s", "source": "a", "severity": "info"}},
    ],
)
def test_the_receivers_reading_is_strict(event: dict[str, Any]) -> None:
    with pytest.raises(pagerduty.NotAcceptedError):
        pagerduty.accept(json.dumps({"routing_key": ROUTING_KEY, "event_action": "trigger", **event}).encode())


async def _owe(ground: Ground, url: str, *runs: str, **columns: Any) -> Any:
    destination = pager_at(url)
    dispatcher = dispatcher_for(destination)
    for run_id in runs:
        await ground.add_signal(run_id, **columns)
    await dispatcher.run_once(ground.ctx)
    return destination


async def test_pagerduty_takes_alerts_of_two_customers_apart(ground: Ground, pager: Receiver) -> None:
    destination = await _owe(ground, pager.url, "one", "two")
    await _owe(ground, pager.url, "one", customer_id="other")
    async with courier(ground, destination) as actor:
        await actor.until_idle()
    assert {row["state"] for row in await ground.deliveries()} == {"done"}
    assert {row["last_status"] for row in await ground.deliveries()} == {202}
    events = [pagerduty.accept(request.body) for request in pager.requests]
    assert len(events) == 3 and len({event["dedup_key"] for event in events}) == 2
    assert events[0]["client_url"].startswith(f"{PAGE}/#/runs/")


@pytest.mark.parametrize("mode", [Mode.BAD_REQUEST, Mode.FORBIDDEN, Mode.REDIRECT], ids=["400", "403", "302"])
async def test_what_it_refuses_is_refused_for_good_and_shown_without_the_key(
    ground: Ground, pager: Receiver, mode: Mode
) -> None:
    pager.mode = mode
    destination = await _owe(ground, pager.url, "run")
    with capture_logs() as logs:
        async with courier(ground, destination) as actor:
            await actor.until_idle()
    assert (await ground.delivery())["state"] == "refused"
    assert len(pager.requests) == 1
    said = str(logs) + repr(destination) + str(await ground.deliveries())
    assert "delivery.refused" in said
    assert ROUTING_KEY not in said and pager.path not in said


@pytest.mark.parametrize("mode", [Mode.RATE_LIMITED, Mode.ERROR, Mode.UNAVAILABLE, Mode.RESET, Mode.GARBAGE])
async def test_what_may_pass_is_tried_again(ground: Ground, pager: Receiver, mode: Mode) -> None:
    pager.retry_after = "20"
    pager.script(mode)
    destination = await _owe(ground, pager.url, "run")
    async with courier(ground, destination) as actor:
        turn = await actor.turn()
        if mode in {Mode.RATE_LIMITED, Mode.UNAVAILABLE}:
            assert turn.wait_s == 20.0
        await ground.advance(20.5)
        await actor.until_idle()
    assert (await ground.delivery())["state"] == "done"
    events = [pagerduty.accept(request.body) for request in pager.requests]
    assert len(events) == 2
    assert len({(e["dedup_key"], e["payload"]["custom_details"]["delivery_id"]) for e in events}) == 1


@pytest.mark.parametrize("mode", [Mode.SLOW, Mode.HUGE_BODY, Mode.STUCK_BODY])
async def test_an_odd_answer_is_an_answer(
    ground: Ground, pager: Receiver, mode: Mode, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dunetrace.alerts.post.READ_TIMEOUT_S", 0.2)
    pager.mode = mode
    destination = await _owe(ground, pager.url, "run")
    async with courier(ground, destination) as actor:
        await actor.until_idle()
    assert (await ground.delivery())["state"] == "done"
    assert len(pager.requests) == 1 <= destination_module.FEW


async def test_a_resolved_issue_closes_the_alert_its_first_signal_opened(ground: Ground, pager: Receiver) -> None:
    destination = await _owe(ground, pager.url, "opened", "closed", agent_id="a/b")
    await ground.rows("UPDATE deliveries SET kind = 'resolved' WHERE run_id = 'closed'")
    async with courier(ground, destination) as actor:
        await actor.until_idle()
    events = {event["event_action"]: event for event in (pagerduty.accept(sent.body) for sent in pager.requests)}
    assert events.keys() == {"trigger", "resolve"}
    assert events["trigger"]["dedup_key"] == events["resolve"]["dedup_key"]
