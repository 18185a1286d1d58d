"""What an alert tells beside its signal, in each form and as it really arrives: the rise of a fleet, and the cost."""

from __future__ import annotations

import json
from typing import Any
from uuid import UUID

import pytest

from dunetrace.actors.telling import completed
from dunetrace.alerts import FORMS
from dunetrace.alerts import slack as slack_form
from dunetrace.deliveries import Alert, Kind
from dunetrace.explain import explain
from dunetrace.fleet import FleetShift, Scope, Side
from dunetrace.prices import NO_PRICES, Cost, check
from dunetrace.signals import FailureSignal, FailureType, Severity
from tests import slack as slack_server
from tests.alerts.ground import Ground, courier, dispatcher_for, ground_on, slack, webhook
from tests.alerts.test_fleet_looks import Fleets
from tests.receiver import Receiver

SIGNAL = FailureSignal(
    FailureType.TOOL_LOOP, Severity.HIGH, "run-1", "agent", "8c1f2a3b", 3, 0.9,
    {"kind": "strong", "tool_name": "search", "wasted_tokens": 12_300, "wasted_ms": 48_000},
)  # fmt: skip
SHIFT = FleetShift(Scope.VERSION, "8c1f2a3b", FailureType.TOOL_LOOP, 1_700_000_000.0, Side(80, 25), Side(200, 8))
HOSTILE = "<!channel> `x`\n<https://evil.example|click>\u202e@here"


def _alert(kind: Kind = Kind.FIRST, **beside: Any) -> Alert:
    return Alert(UUID(int=7), kind, SIGNAL, 1_700_000_000.0, run_url="https://page.example/#/runs/run-1", **beside)


def _slack(alert: Alert) -> dict[str, Any]:
    document = slack_server.accept(FORMS["slack"].message(alert, None, 0.0).body)
    slack_server.assert_only_says_what_it_says(document)
    return document


def _webhook(alert: Alert) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(FORMS["webhook"].message(alert, None, 0.0).body)
    return document


def test_slack_says_the_rise_first_and_then_what_such_a_run_shows() -> None:
    document = _slack(_alert(Kind.FLEET, fleet=SHIFT))
    assert document["text"] == "HIGH: Since version 8c1f2a3b: TOOL_LOOP in 31 % of runs, was 4 % (agent)"
    head, _, what, *_ = document["attachments"][0]["blocks"]
    assert head["text"]["text"] == "🟠 Since version 8c1f2a3b: TOOL_LOOP in 31 % of runs, was 4 %"
    assert (
        "25 of 80 runs show it; 8 of 200 runs did in the 7 days before. In the newest of these runs: "
        in what["text"]["text"]
    )
    assert document["attachments"][0]["color"] == slack_form.COLOURS[Severity.HIGH]


@pytest.mark.parametrize("scope", Scope)
def test_a_version_s_name_says_only_what_it_says(scope: Scope) -> None:
    _slack(_alert(Kind.FLEET, fleet=SHIFT._replace(scope=scope, subject=HOSTILE)))


def test_the_webhook_has_the_rise_as_an_object() -> None:
    document = _webhook(_alert(Kind.FLEET, fleet=SHIFT))
    assert (document["event"], document["title"]) == ("failure_update", SHIFT.title())
    assert document["fleet"] == {
        "scope": "version", "subject": "8c1f2a3b", "since": 1_700_000_000.0, "runs": 80, "affected_runs": 25,
        "rate": 0.3125, "runs_before": 200, "affected_runs_before": 8, "rate_before": 0.04, "title": SHIFT.title(),
    }  # fmt: skip
    assert document["suggested_fixes"] == explain(SIGNAL).as_json()["suggested_fixes"]
    assert "fleet" not in _webhook(_alert())


def test_the_cost_is_one_line_in_slack_and_three_numbers_in_the_webhook() -> None:
    alert = _alert(cost=Cost(12_300, 48_000, 0.11))
    lines = [block["text"]["text"] for block in _slack(alert)["attachments"][0]["blocks"] if block["type"] == "section"]
    assert "Wasted 12,300 tokens and 48 s (about $0.11)" in lines
    assert _webhook(alert)["cost"] == {"wasted_tokens": 12_300, "wasted_ms": 48_000, "wasted_usd": 0.11}
    assert "Wasted" not in json.dumps(_slack(_alert(cost=Cost(0, 0))))


async def test_a_rise_arrives_at_slack_and_at_the_webhook(
    ground: Ground, receiver: Receiver, slack_receiver: Receiver
) -> None:
    fleets = Fleets(ground)
    await fleets.judged(200, 8, hours_ago=30)
    new = await fleets.judged(40, 14, "8c1f2a3b")
    await ground.rows("UPDATE failure_signals SET severity = 'CRITICAL' WHERE run_id <> $1", f"{new}14")
    hook, channel = webhook(receiver.url), slack(slack_receiver.url)
    await fleets.look(hook, channel)
    for destination in (hook, channel):
        async with courier(ground, destination) as carrying:
            await carrying.until_idle()
    (posted,) = receiver.requests
    assert posted.document["fleet"]["title"] == "Since version 8c1f2a3b: TOOL_LOOP in 35 % of runs, was 4 %"
    assert (posted.document["run_id"], posted.document["severity"]) == (f"{new}14", "CRITICAL")
    assert posted.headers["x-dunetrace-event"] == "failure_update"
    (said,) = slack_receiver.requests
    assert "Since version 8c1f2a3b" in said.document["text"]
    assert {row["state"] for row in await ground.deliveries()} == {"done"}


async def test_a_signal_arrives_with_what_it_cost(ground: Ground, receiver: Receiver, tmp_path: Any) -> None:
    (tmp_path / "prices.yml").write_text("models: {gpt-4o: {input: 2.5, cached_input: 1.25, output: 10}}")
    priced = ground_on(ground.gateway, tmp_path)
    await Fleets(ground).judged(1, 0, "v")
    await ground.rows("UPDATE runs SET run_id = 'run', token_mix = $1", {"gpt-4o": [900_000, 400_000, 100_000]})
    hook = webhook(receiver.url)
    dispatcher = dispatcher_for(hook)
    for run_id in ("run", "without a mix"):
        await ground.add_signal(run_id, evidence={"wasted_tokens": 100_000, "wasted_ms": 50})
    await dispatcher.run_once(ground.ctx)
    async with courier(priced, hook) as carrying:
        await carrying.until_idle()
    costs = {posted.document["run_id"]: posted.document["cost"] for posted in receiver.requests}
    assert costs == {
        "run": {"wasted_tokens": 100_000, "wasted_ms": 50, "wasted_usd": pytest.approx(0.275)},
        "without a mix": {"wasted_tokens": 100_000, "wasted_ms": 50, "wasted_usd": None},
    }


async def test_what_is_gone_from_the_tables_is_told_without_it(ground: Ground) -> None:
    prices = check({"models": {"*": {"input": 1, "output": 1}}})
    (told,) = await completed(ground.gateway, [_alert(Kind.FLEET)], prices)
    assert told == _alert(Kind.FLEET)
    (told,) = await completed(ground.gateway, [_alert()], prices)
    assert told.cost == Cost(12_300, 48_000, None)
    assert await completed(ground.gateway, [], NO_PRICES) == []
