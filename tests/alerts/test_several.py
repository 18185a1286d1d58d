"""Destinations side by side: each has its own deliveries, circuit and pace, and none harms another."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
import trio
from structlog.testing import capture_logs

from dunetrace.actors import destination as destination_module
from dunetrace.actors.destination import DestinationActor
from dunetrace.alerts import Destination
from dunetrace.signals import Severity
from tests import pagerduty as pagerduty_server
from tests import slack as slack_server
from tests.alerts.ground import PAGE, Ground, courier, dispatcher_for, pagerduty, slack, webhook
from tests.receiver import Mode, Receiver


async def _owe(ground: Ground, *destinations: Destination, **columns: str) -> None:
    dispatcher = dispatcher_for(*destinations)
    await ground.add_signal(**columns)
    await dispatcher.run_once(ground.ctx)


async def _states(ground: Ground) -> dict[str, str]:
    return {row["destination"]: row["state"] for row in await ground.deliveries()}


async def test_slack_takes_an_alert(ground: Ground, slack_receiver: Receiver) -> None:
    to_slack = slack(slack_receiver.url)
    await _owe(ground, to_slack, run_id="a/run")
    async with courier(ground, to_slack) as actor:
        await actor.until_idle()
    assert await _states(ground) == {"slack": "done"}
    (request,) = slack_receiver.requests
    document = slack_server.accept(request.body)
    slack_server.assert_only_says_what_it_says(document)
    shown = document["attachments"][0]["blocks"]
    assert shown[2]["text"]["text"] == "In 1 of 1 run (100 %) in the last 7 days"
    assert shown[-1]["elements"][0]["url"] == f"{PAGE}/#/runs/a%2Frun"


async def test_each_gets_what_it_asked_for(ground: Ground, receiver: Receiver, slack_receiver: Receiver) -> None:
    both = webhook(receiver.url), slack(slack_receiver.url)
    dispatcher = dispatcher_for(*both)
    for severity in ("LOW", "MEDIUM", "HIGH", "CRITICAL"):
        await ground.add_signal(severity, severity=severity)
    assert (await dispatcher.run_once(ground.ctx)).told == {"webhook", "slack"}
    for destination in both:
        async with courier(ground, destination) as actor:
            await actor.until_idle()
    assert {request.document["severity"] for request in receiver.requests} == {"LOW", "MEDIUM", "HIGH", "CRITICAL"}
    assert {request.document["text"].split(":")[0] for request in slack_receiver.requests} == {"HIGH", "CRITICAL"}
    assert len(receiver.requests) == 4 and len(slack_receiver.requests) == 2


async def test_a_severity_that_rises_past_slacks_minimum_is_told_once(
    ground: Ground, receiver: Receiver, slack_receiver: Receiver
) -> None:
    both = webhook(receiver.url), slack(slack_receiver.url)
    dispatcher = dispatcher_for(*both)
    await ground.add_signal(severity="MEDIUM")
    assert (await dispatcher.run_once(ground.ctx)).told == {"webhook"}
    await ground.rows("UPDATE failure_signals SET severity = 'HIGH', fanned_out_at = NULL")
    assert (await dispatcher.run_once(ground.ctx)).told == {"slack"}
    await ground.rows("UPDATE failure_signals SET severity = 'CRITICAL', fanned_out_at = NULL")
    assert (await dispatcher.run_once(ground.ctx)).told == frozenset()
    for destination in both:
        async with courier(ground, destination) as actor:
            await actor.until_idle()
    assert len(receiver.requests) == len(slack_receiver.requests) == 1
    assert slack_receiver.requests[0].document["text"].startswith("CRITICAL: ")


async def test_a_slack_that_hangs_harms_no_webhook(
    ground: Ground, receiver: Receiver, slack_receiver: Receiver
) -> None:
    slack_receiver.mode = Mode.HANG
    both = webhook(receiver.url), slack(slack_receiver.url)
    dispatcher = dispatcher_for(*both)
    actors = [DestinationActor(destination, trio.open_memory_channel[None](1)[1]) for destination in both]
    for n in range(20):
        await ground.add_signal(f"run {n}")
    await dispatcher.run_once(ground.ctx)
    async with trio.open_nursery() as nursery:
        for actor in actors:
            await nursery.start(actor.run, ground.ctx)
        await trio.to_thread.run_sync(slack_receiver.wait_for, 1)  # it hangs from here on
        await trio.to_thread.run_sync(receiver.wait_for, 20)
        ground.stopping.set()
        slack_receiver.close()
    assert len(slack_receiver.requests) <= destination_module.FEW
    rows = await ground.rows("SELECT DISTINCT state FROM deliveries WHERE destination = 'webhook'")
    assert rows == [{"state": "done"}]


async def test_a_slack_that_is_down_opens_its_own_circuit_only(
    ground: Ground, receiver: Receiver, slack_receiver: Receiver
) -> None:
    slack_receiver.mode = Mode.ERROR
    both = webhook(receiver.url), slack(slack_receiver.url)
    await _owe(ground, *both)
    for destination in both:
        async with courier(ground, destination) as actor:
            await actor.until_idle()
    assert await _states(ground) == {"webhook": "done", "slack": "pending"}
    opened = await ground.rows("SELECT name FROM destinations WHERE circuit_open_since IS NOT NULL")
    assert opened == [{"name": "slack"}]
    assert (await ground.rows("SELECT alerted FROM failure_signals")) == [{"alerted": True}]


async def test_slack_asks_for_time_and_gets_it(ground: Ground, slack_receiver: Receiver) -> None:
    slack_receiver.retry_after = "30"
    slack_receiver.script(Mode.RATE_LIMITED)
    to_slack = slack(slack_receiver.url)
    await _owe(ground, to_slack)
    async with courier(ground, to_slack) as actor:
        turn = await actor.turn()
        assert turn.wait_s == 30.0
        await ground.advance(29.0)
        assert (await actor.turn()).delivery_id is None
        await ground.advance(1.5)
        await actor.until_idle()
    assert await _states(ground) == {"slack": "done"}
    assert len(slack_receiver.requests) == 2


@pytest.mark.parametrize(
    ("mode", "status"),
    [(Mode.BAD_REQUEST, 400), (Mode.FORBIDDEN, 403), (Mode.NOT_FOUND, 404), (Mode.GONE, 410)],
    ids=["invalid_payload", "action_prohibited", "no_service", "channel_is_archived"],
)
async def test_what_slack_refuses_is_refused_for_good_and_shown_without_its_address(
    ground: Ground, slack_receiver: Receiver, mode: Mode, status: int
) -> None:
    slack_receiver.mode = mode
    to_slack = slack(slack_receiver.url)
    await _owe(ground, to_slack)
    with capture_logs() as logs:
        async with courier(ground, to_slack) as actor:
            await actor.until_idle()
    row = await ground.delivery()
    assert (row["state"], row["last_status"], row["last_error"]) == ("refused", status, None)
    assert len(slack_receiver.requests) <= destination_module.FEW
    assert [(line["event"], line["destination"], line["status"]) for line in logs] == [
        ("delivery.refused", "slack", status)
    ]
    assert slack_receiver.path not in str(logs)


async def test_a_receiver_that_asks_for_a_pause_is_told_slowly_from_then_on(
    ground: Ground, slack_receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(destination_module, "FEW", 1)
    monkeypatch.setattr(destination_module, "LANES", 1)
    monkeypatch.setattr(destination_module, "PACED_LANE_S", 0.5)
    slack_receiver.retry_after = "1"
    slack_receiver.script(Mode.OK, Mode.OK, Mode.RATE_LIMITED)
    to_slack = slack(slack_receiver.url)
    dispatcher = dispatcher_for(to_slack)
    for n in range(5):
        await ground.add_signal(f"run {n}")
    await dispatcher.run_once(ground.ctx)
    async with trio.open_nursery() as nursery:
        await nursery.start(DestinationActor(to_slack, trio.open_memory_channel[None](1)[1]).run, ground.ctx)
        await trio.to_thread.run_sync(slack_receiver.wait_for, 6)
        ground.stopping.set()
    arrived = [request.monotonic for request in slack_receiver.requests]
    pauses = [later - earlier for earlier, later in pairwise(arrived)]
    assert pauses[2] >= 1.0
    assert min(pauses[3:]) >= destination_module.PACED_LANE_S > min(pauses[:2])
    assert {row["state"] for row in await ground.deliveries()} == {"done"}


async def test_agents_and_severities_choose_who_is_told(
    ground: Ground, receiver: Receiver, slack_receiver: Receiver, pager: Receiver
) -> None:
    everything = webhook(receiver.url)
    checkout = replace(slack(slack_receiver.url), name="checkout", agents=("checkout", "checkout-*"))
    critical = pagerduty(pager.url, min_severity=Severity.CRITICAL, agents=("*-eu", "[bc]*"))
    all_three = everything, checkout, critical
    dispatcher = dispatcher_for(*all_three)
    found = [("checkout", "HIGH"), ("checkout-eu", "CRITICAL"), ("Checkout", "HIGH"), ("support-eu", "CRITICAL"),
             ("checkout", "MEDIUM"), ("billing", "HIGH")]  # fmt: skip
    for agent_id, severity in found:
        await ground.add_signal(f"{agent_id} {severity}", agent_id=agent_id, severity=severity)
    assert (await dispatcher.run_once(ground.ctx)).told == {"webhook", "checkout", "pager"}
    for destination in all_three:
        async with courier(ground, destination) as actor:
            await actor.until_idle()
    told: dict[str, set[str]] = {}
    for row in await ground.deliveries():
        assert row["state"] == "done"
        told.setdefault(row["destination"], set()).add(row["run_id"])
    assert told == {
        "webhook": {f"{agent_id} {severity}" for agent_id, severity in found},
        "checkout": {"checkout HIGH", "checkout-eu CRITICAL"},
        "pager": {"checkout-eu CRITICAL", "support-eu CRITICAL"},
    }
    sources = {pagerduty_server.accept(request.body)["payload"]["source"] for request in pager.requests}
    assert sources == {"checkout-eu", "support-eu"}


async def test_a_destination_that_is_taken_off_the_list_keeps_what_it_is_owed(
    ground: Ground, receiver: Receiver, pager: Receiver
) -> None:
    paged = pagerduty(pager.url)
    await _owe(ground, webhook(receiver.url), paged)
    await _owe(ground, webhook(receiver.url), run_id="while it is off the list")  # a start without it
    async with courier(ground, webhook(receiver.url)) as actor:
        await actor.until_idle()
    assert not pager.requests
    await _owe(ground, webhook(receiver.url), paged, run_id="once it is back")
    async with courier(ground, paged) as actor:
        await actor.until_idle()
    told = [pagerduty_server.accept(request.body)["payload"]["custom_details"]["run_id"] for request in pager.requests]
    assert told == ["run", "once it is back"]


async def test_a_destination_of_another_kind_keeps_its_names_history(
    ground: Ground, receiver: Receiver, pager: Receiver
) -> None:
    hook = replace(webhook(receiver.url), name="ops")
    await _owe(ground, hook)
    paged = replace(pagerduty(pager.url), name="ops")
    await _owe(ground, paged, run_id="two")
    since = await ground.rows("SELECT count(*) AS n FROM destinations")
    async with courier(ground, paged) as actor:
        await actor.until_idle()
    assert since == [{"n": 1}] and len(pager.requests) == 2 and not receiver.requests
