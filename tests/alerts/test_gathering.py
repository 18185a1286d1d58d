"""Gathering on a real Postgres: one first, a handful of updates, a note of the end, and nothing told twice."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import trio

from dunetrace.actors.dispatcher import Dispatcher
from dunetrace.deliveries import Kind
from dunetrace.signals import Severity
from dunetrace.store.reads.scope import Scope
from dunetrace.store.writes import resolving
from dunetrace.store.writes.deliveries import again
from tests.alerts.ground import Ground, courier, dispatcher_for, slack, webhook
from tests.receiver import Mode, Receiver

WINDOW_S = 3600.0
PEOPLE = slack("http://127.0.0.1:1/", gather_s=WINDOW_S)
HOOK = webhook("http://127.0.0.1:1/")
SCOPE = Scope("default")
Told = list[tuple[str, str, int, str]]


async def _pass(ground: Ground, dispatcher: Dispatcher) -> None:
    while (await dispatcher.run_once(ground.ctx)).more:
        pass
    await dispatcher.tell_late(ground.ctx)


async def _made(ground: Ground) -> Told:
    rows = await ground.rows("SELECT * FROM deliveries ORDER BY created_at, destination DESC, run_id, kind")
    return [(row["destination"], row["kind"], row["seq"], row["run_id"]) for row in rows]


async def _deliver(ground: Ground, *destinations: Any) -> None:
    for destination in destinations:
        async with courier(ground, destination) as actor:
            await actor.until_idle()


async def _arrived(ground: Ground) -> None:
    """Every delivery, and what it counts, as if its destination had taken it."""
    await ground.rows("UPDATE deliveries SET state = 'done', done_at = now() WHERE state = 'pending'")


async def _untold(ground: Ground) -> int:
    rows = await ground.rows("SELECT count(*) AS n FROM failure_signals WHERE NOT alerted")
    return int(rows[0]["n"])


async def test_a_thousand_signals_are_one_first_and_a_handful_of_updates(
    ground: Ground, slack_receiver: Receiver, receiver: Receiver
) -> None:
    people, hook = slack(slack_receiver.url, gather_s=WINDOW_S), webhook(receiver.url)
    dispatcher = dispatcher_for(people, hook)
    await dispatcher.run_once(ground.ctx)
    for minute in range(10):
        await ground.rows(
            """
            INSERT INTO failure_signals (failure_type, severity, run_id, agent_id, agent_version, step_index,
                                         confidence, evidence, shadow, detected_at)
            SELECT 'TOOL_LOOP', 'HIGH', 'run ' || $1 || '/' || n, 'agent', 'v', 1, 0.9, '{}', FALSE, clock_timestamp()
            FROM generate_series(1, 100) AS n
            """,
            str(minute),
        )
        await _pass(ground, dispatcher)
        await _deliver(ground, people)
        await ground.advance(60)
    await ground.advance(WINDOW_S)
    await _pass(ground, dispatcher)
    await _deliver(ground, people)
    texts = [request.document["text"] for request in slack_receiver.requests]
    assert texts[0].startswith("HIGH: ") and "Still" not in texts[0]
    assert [text.split(" (")[0] for text in texts[1:]] == [
        "HIGH: Still happening: 199 more runs",
        "HIGH: Still happening: 500 more runs",
        "HIGH: Still happening: 300 more runs",
    ]
    assert len(await ground.rows("SELECT FROM deliveries WHERE destination = 'webhook'")) == 1000
    assert await _untold(ground) == 0


async def test_an_update_counts_what_came_and_points_at_the_newest(ground: Ground) -> None:
    dispatcher = dispatcher_for(PEOPLE)
    for run_id in ("a", "b", "c"):
        await ground.add_signal(run_id)
    await _pass(ground, dispatcher)
    assert await _made(ground) == [("slack", "first", 0, "a")]
    waits = await dispatcher.tell_late(ground.ctx)
    assert waits.wait_s is not None and 55 < waits.wait_s <= 60
    await _arrived(ground)
    await ground.advance(61)
    await _pass(ground, dispatcher)
    assert (await _made(ground))[1:] == [("slack", "update", 1, "c")]
    counted = await ground.rows("SELECT run_id, delivery_id IS NOT NULL AS counted FROM gathered_signals ORDER BY 1")
    assert counted == [{"run_id": "b", "counted": True}, {"run_id": "c", "counted": True}]
    await ground.advance(WINDOW_S + 1)
    await ground.add_signal("d")
    await _pass(ground, dispatcher)
    assert (await _made(ground))[-1] == ("slack", "first", 0, "d")


async def test_no_update_while_the_last_message_has_not_arrived(ground: Ground) -> None:
    dispatcher = dispatcher_for(PEOPLE)
    await ground.add_signal("a")
    await ground.add_signal("b")
    await _pass(ground, dispatcher)
    for _ in range(5):
        await ground.advance(400)
        await ground.add_signal(f"later {_}")
        await _pass(ground, dispatcher)
    assert len(await ground.deliveries()) == 1
    await _arrived(ground)
    await _pass(ground, dispatcher)
    assert (await _made(ground))[1:] == [("slack", "update", 1, "later 4")]


async def test_an_update_that_is_refused_keeps_what_it_counts(ground: Ground, slack_receiver: Receiver) -> None:
    people = slack(slack_receiver.url, gather_s=WINDOW_S)
    dispatcher = dispatcher_for(people)
    await ground.add_signal("a")
    await ground.add_signal("b")
    await _pass(ground, dispatcher)
    await _deliver(ground, people)
    await ground.advance(61)
    await _pass(ground, dispatcher)
    slack_receiver.script(Mode.GONE)
    await _deliver(ground, people)
    assert await _untold(ground) == 1
    assert await ground.gateway.unit(again, ["slack"]) == 1
    await _deliver(ground, people)
    assert await _untold(ground) == 0
    assert slack_receiver.requests[-1].document["text"].startswith("HIGH: Still happening: 1 more run (")


async def test_what_is_worse_is_told_at_once(ground: Ground) -> None:
    dispatcher = dispatcher_for(PEOPLE, HOOK)
    await ground.add_signal("a")
    await ground.add_signal("b", severity="CRITICAL")
    await _pass(ground, dispatcher)
    assert await _made(ground) == [
        ("webhook", "first", 0, "a"),
        ("webhook", "first", 0, "b"),
        ("slack", "first", 0, "a"),
        ("slack", "escalated", Severity.CRITICAL.rank, "b"),
    ]


async def test_a_gathered_signal_that_gets_worse_is_told_at_once(ground: Ground) -> None:
    dispatcher = dispatcher_for(PEOPLE)
    await ground.add_signal("a")
    await ground.add_signal("b")
    await _pass(ground, dispatcher)
    await ground.rows("UPDATE failure_signals SET severity = 'CRITICAL', fanned_out_at = NULL WHERE run_id = 'b'")
    await _pass(ground, dispatcher)
    assert (await _made(ground))[1:] == [("slack", "escalated", Severity.CRITICAL.rank, "b")]


async def test_who_was_told_hears_of_the_end_once_and_of_the_next_life(
    ground: Ground, slack_receiver: Receiver, receiver: Receiver
) -> None:
    people, hook = slack(slack_receiver.url, gather_s=WINDOW_S), webhook(receiver.url)
    quiet = slack("http://127.0.0.1:1/", name="pager", min_severity=Severity.CRITICAL)
    dispatcher = dispatcher_for(people, hook, quiet)
    issue = await ground.add_issue(affected_runs=2)
    await ground.add_signal("a")
    await ground.add_signal("b")
    await _pass(ground, dispatcher)
    await ground.gateway.unit(resolving.resolve, SCOPE, issue)
    for _ in range(2):
        await _pass(ground, dispatcher)
        await _deliver(ground, people, hook)
    (note,) = (request.document for request in receiver.requests if request.document["kind"] == "resolved")
    assert (note["event"], note["issue"]["affected_runs"], note["issue"]["by_hand"]) == ("issue_resolved", 2, True)
    first, end = slack_receiver.requests
    assert end.document["text"].startswith("Resolved: ") and end.document["attachments"][0]["color"] == "#36A64F"
    shown = [block["text"]["text"] for block in end.document["attachments"][0]["blocks"] if block["type"] == "section"]
    assert shown == [
        "A person resolved it. It affected 2 runs, the first of them 1 minute ago. "
        "1 of them came after the last message."
    ]
    assert first.document["text"].startswith("HIGH: ")
    assert await _untold(ground) == 0

    await ground.rows("UPDATE issues SET status = 'reopened', times_reopened = 1, resolved_at = NULL")
    await ground.add_signal("c")
    await _pass(ground, dispatcher)
    await _deliver(ground, people, hook)
    assert slack_receiver.requests[-1].document["text"].startswith("HIGH: Back again: ")
    assert receiver.requests[-1].document["reopened"] is True
    assert {row["destination"] for row in await ground.deliveries()} == {"slack", "webhook"}


async def test_a_note_waits_for_the_signals_before_it(ground: Ground) -> None:
    dispatcher = dispatcher_for(PEOPLE)
    await dispatcher.run_once(ground.ctx)
    issue = await ground.add_issue()
    await ground.add_signal("a")
    await ground.gateway.unit(resolving.resolve, SCOPE, issue)
    await dispatcher.tell_late(ground.ctx)
    assert await ground.rows("SELECT note_due FROM issues") == [{"note_due": True}]
    await _pass(ground, dispatcher)
    assert [kind for _, kind, *_ in await _made(ground)] == ["first", "resolved"]
    assert await ground.rows("SELECT note_due FROM issues") == [{"note_due": False}]


async def test_who_does_not_want_to_hear_of_the_end_gets_the_last_update_instead(ground: Ground) -> None:
    dispatcher = dispatcher_for(replace(PEOPLE, resolved=False))
    await dispatcher.run_once(ground.ctx)
    issue = await ground.add_issue()
    await ground.add_signal("a")
    await ground.add_signal("b")
    await _pass(ground, dispatcher)
    await ground.gateway.unit(resolving.resolve, SCOPE, issue)
    await _pass(ground, dispatcher)
    await _arrived(ground)
    await ground.advance(61)
    await _pass(ground, dispatcher)
    assert [kind for _, kind, *_ in await _made(ground)] == ["first", "update"]


async def test_an_acknowledged_issue_is_not_told_again_unless_it_is_worse(ground: Ground) -> None:
    dispatcher = dispatcher_for(PEOPLE)
    issue = await ground.add_issue()
    await ground.add_signal("a")
    await _pass(ground, dispatcher)
    await _arrived(ground)
    await ground.gateway.unit(resolving.acknowledge, SCOPE, issue, True)
    for n in range(3):
        await ground.add_signal(f"known {n}")
        await ground.advance(2 * WINDOW_S)
        await _pass(ground, dispatcher)
    assert len(await ground.deliveries()) == 1
    await ground.add_signal("worse", severity="CRITICAL")
    await _pass(ground, dispatcher)
    assert await ground.rows("SELECT acknowledged_at FROM issues") == [{"acknowledged_at": None}]
    await _arrived(ground)
    await _pass(ground, dispatcher)
    assert (await _made(ground))[1:] == [
        ("slack", "escalated", Severity.CRITICAL.rank, "worse"),
        ("slack", "update", 1, "known 2"),
    ]


async def test_what_came_while_it_was_snoozed_is_told_when_that_ends(ground: Ground) -> None:
    dispatcher = dispatcher_for(PEOPLE, HOOK)
    issue = await ground.add_issue()
    await ground.gateway.unit(resolving.snooze, SCOPE, issue, 600.0)
    await ground.add_signal("a")
    await ground.add_signal("b", severity="CRITICAL")
    await _pass(ground, dispatcher)
    assert {destination for destination, *_ in await _made(ground)} == {"webhook"}
    await ground.advance(601)
    await _pass(ground, dispatcher)
    assert (await _made(ground))[-1][1:] == ("update", 1, "b")
    await ground.gateway.unit(resolving.resolve, SCOPE, issue)
    await _pass(ground, dispatcher)
    assert {(made[0], made[1]) for made in await _made(ground)} == {
        ("webhook", "first"), ("webhook", "resolved"), ("slack", "update"), ("slack", "resolved"),
    }  # fmt: skip


async def test_agents_are_chosen_by_pattern(ground: Ground) -> None:
    dispatcher = dispatcher_for(replace(PEOPLE, agents=("shop-*",)))
    for agent_id in ("shop-eu", "shop-us", "mail"):
        await ground.add_signal(agent_id, agent_id=agent_id)
    await _pass(ground, dispatcher)
    assert [run_id for *_, run_id in await _made(ground)] == ["shop-eu", "shop-us"]


@pytest.mark.parametrize("signals", [200])
async def test_dispatchers_side_by_side_tell_nothing_twice(ground: Ground, signals: int) -> None:
    """Of the same agents, while they are resolved and reopened."""
    dispatchers = [dispatcher_for(PEOPLE, HOOK) for _ in range(3)]
    await dispatchers[0].run_once(ground.ctx)
    agents = [f"agent {n}" for n in range(5)]
    for agent_id in agents:
        await ground.add_issue(agent_id=agent_id)
    for n in range(signals):
        await ground.add_signal(f"run {n}", agent_id=agents[n % 5])
    await ground.rows("UPDATE issues SET status = 'resolved', resolved_at = now(), note_due = TRUE")

    async def work(dispatcher: Dispatcher) -> None:
        for _ in range(4):
            await _pass(ground, dispatcher)

    async with trio.open_nursery() as nursery:
        for dispatcher in dispatchers:
            nursery.start_soon(work, dispatcher)
    kinds = [(destination, kind) for destination, kind, *_ in await _made(ground)]
    assert kinds.count(("slack", Kind.FIRST)) == kinds.count(("slack", Kind.RESOLVED)) == len(agents)
    assert kinds.count(("webhook", Kind.FIRST)) == signals
    assert kinds.count(("webhook", Kind.RESOLVED)) == len(agents)
    untold = await ground.rows("SELECT FROM gathered_signals WHERE delivery_id IS NULL")
    assert untold == []
    assert len(await ground.rows("SELECT FROM gathered_signals")) == signals - len(agents)
