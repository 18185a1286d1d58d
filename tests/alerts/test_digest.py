"""The weekly digest: once a week whoever is up, late rather than never, and true to the rows."""

from __future__ import annotations

import ssl
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import trio
from structlog.testing import capture_logs

from dunetrace.actors.digest import LEASE_S, LOOK_S, Digest, Pass
from dunetrace.alerts import Destination, digest
from dunetrace.alerts.post import open_post
from dunetrace.deliveries import Next, Outcome, State, Verdict
from dunetrace.errors import StoreUnavailableError
from dunetrace.explain import RateContext
from dunetrace.store.gateway import Gateway, open_gateway
from dunetrace.store.reads import digest as reads
from dunetrace.store.reads.scope import Scope
from dunetrace.store.writes import digest as writes
from dunetrace.weekly import WEEK, AgentCount, Pattern, Schedule, Span, TypeCount, Week
from tests import slack as slack_server
from tests.alerts.ground import Ground, ground_on, pagerduty, slack, webhook
from tests.alerts.test_slack import HOSTILE
from tests.receiver import Mode, Receiver

TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # unused here, and made in no time
SPAN = Span.before(datetime(2026, 5, 4, 9, tzinfo=UTC))


async def one_pass(ground: Ground, *destinations: Destination) -> Pass:
    async with open_post(allow_private=True, tls=TLS) as post:
        return await Digest(destinations).run_once(ground.ctx, post)


async def a_week_later(ground: Ground) -> None:
    """The moment that is next taken care of lies a week further back."""
    await ground.rows("UPDATE digests SET due_at = due_at - interval '7 days'")


async def standing(ground: Ground) -> dict[str, Any]:
    (row,) = await ground.rows("SELECT * FROM digests")
    return row


async def owed(ground: Ground, destination: Destination) -> None:
    """An installation that owes `destination` last week's digest."""
    assert (await one_pass(ground, destination)).attempted == {}
    await a_week_later(ground)


async def test_a_fresh_installation_owes_nothing_for_the_time_before_it(
    ground: Ground, slack_receiver: Receiver
) -> None:
    to_slack = slack(slack_receiver.url)
    for _ in range(3):
        done = await one_pass(ground, to_slack)
        assert done.attempted == {} and 0 < done.wait_s <= LOOK_S
    assert slack_receiver.requests == []
    row = await standing(ground)
    assert row["state"] == "done" and row["due_at"].weekday() == 0 and row["due_at"].hour == 9


async def test_it_is_sent_once_a_week_and_recorded(ground: Ground, slack_receiver: Receiver) -> None:
    to_slack = slack(slack_receiver.url)
    await owed(ground, to_slack)
    with capture_logs() as logs:
        assert (await one_pass(ground, to_slack)).attempted == {"slack": State.DONE}
        assert (await one_pass(ground, to_slack)).attempted == {}
    assert [line["event"] for line in logs] == ["digest.sent"]
    await a_week_later(ground)
    await ground.rows("UPDATE digest_log SET due_at = due_at - interval '7 days'")
    assert (await one_pass(ground, to_slack)).attempted == {"slack": State.DONE}
    log = await ground.rows("SELECT digest_type, destination, sent_at, due_at FROM digest_log ORDER BY id")
    assert [(row["digest_type"], row["destination"]) for row in log] == [("weekly", "slack")] * 2
    assert log[1]["due_at"] - log[0]["due_at"] == WEEK and log[1]["sent_at"] > log[1]["due_at"]
    assert len(slack_receiver.requests) == 2
    for request in slack_receiver.requests:
        slack_server.assert_only_says_what_it_says(slack_server.accept(request.body))


async def test_each_slack_destination_that_wants_it_gets_its_own(
    ground: Ground, receiver: Receiver, slack_receiver: Receiver, pager: Receiver
) -> None:
    first = slack(slack_receiver.url)
    second, without = replace(first, name="second"), replace(first, name="without", digest=False)
    everybody = first, second, without, webhook(receiver.url), pagerduty(pager.url)
    assert (await one_pass(ground, *everybody)).attempted == {}
    await a_week_later(ground)
    assert (await one_pass(ground, *everybody)).attempted == {"slack": State.DONE, "second": State.DONE}
    assert len(slack_receiver.requests) == 2 and not receiver.requests and not pager.requests


async def test_several_processes_send_one(ground: Ground, database: str, slack_receiver: Receiver) -> None:
    slack_receiver.mode, slack_receiver.slow_s = Mode.SLOW, 0.2
    to_slack = slack(slack_receiver.url)
    await owed(ground, to_slack)
    passes: list[Pass] = []

    async def process() -> None:
        async with open_gateway(database) as gateway:
            passes.append(await one_pass(replace(ground, gateway=gateway), to_slack))

    async with trio.open_nursery() as nursery:
        for _ in range(4):
            nursery.start_soon(process)
    assert sorted(len(done.attempted) for done in passes) == [0, 0, 0, 1]
    assert len(slack_receiver.requests) == 1
    # The others look again when the one in hand could have been lost, not before.
    assert all(done.attempted or 0 < done.wait_s <= LEASE_S for done in passes)


async def test_a_crash_between_sending_and_recording_repeats_and_never_skips(
    ground: Ground, slack_receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    to_slack = slack(slack_receiver.url)
    await owed(ground, to_slack)

    async def crash(*_: object) -> bool:
        raise RuntimeError

    with monkeypatch.context() as patched:
        patched.setattr(writes, "keep", crash)
        with pytest.raises(RuntimeError):
            await one_pass(ground, to_slack)
    assert (await one_pass(ground, to_slack)).attempted == {}  # the lease still holds
    await ground.rows("UPDATE digests SET lease_until = now()")
    assert (await one_pass(ground, to_slack)).attempted == {"slack": State.DONE}
    assert len(slack_receiver.requests) == 2
    assert len(await ground.rows("SELECT FROM digest_log")) == 1


async def test_a_failure_is_tried_again_in_rounds(ground: Ground, slack_receiver: Receiver) -> None:
    slack_receiver.mode = Mode.ERROR
    to_slack = slack(slack_receiver.url)
    await owed(ground, to_slack)
    waits = []
    with capture_logs() as logs:
        for _ in range(6):
            done = await one_pass(ground, to_slack)
            assert done.attempted == {"slack": State.PENDING}
            assert (await one_pass(ground, to_slack)).attempted == {}  # not before its time
            waits.append((await ground.rows("SELECT next_attempt_at - now() AS wait FROM digests"))[0]["wait"])
            await ground.rows("UPDATE digests SET next_attempt_at = now()")
    assert {line["event"] for line in logs} == {"digest.failed"}
    assert [wait > timedelta(seconds=50) for wait in waits] == [False, False, True] * 2
    assert waits[5] > timedelta(seconds=290)
    slack_receiver.mode = Mode.OK
    assert (await one_pass(ground, to_slack)).attempted == {"slack": State.DONE}
    assert (await standing(ground))["last_status"] == 200


async def test_slack_asks_for_time_and_gets_it(ground: Ground, slack_receiver: Receiver) -> None:
    slack_receiver.mode, slack_receiver.retry_after = Mode.RATE_LIMITED, "600"
    to_slack = slack(slack_receiver.url)
    await owed(ground, to_slack)
    assert (await one_pass(ground, to_slack)).attempted == {"slack": State.PENDING}
    (row,) = await ground.rows("SELECT extract(epoch FROM next_attempt_at - now())::float8 AS wait_s FROM digests")
    assert 590 < row["wait_s"] <= 600


@pytest.mark.parametrize("mode", [Mode.BAD_REQUEST, Mode.FORBIDDEN, Mode.NOT_FOUND, Mode.GONE], ids=str)
async def test_what_is_refused_is_refused_until_next_week(ground: Ground, slack_receiver: Receiver, mode: Mode) -> None:
    slack_receiver.mode = mode
    to_slack = slack(slack_receiver.url)
    await owed(ground, to_slack)
    with capture_logs() as logs:
        assert (await one_pass(ground, to_slack)).attempted == {"slack": State.REFUSED}
        assert (await one_pass(ground, to_slack)).attempted == {}
    assert [line["event"] for line in logs] == ["digest.refused"]
    assert slack_receiver.path not in str(logs)
    assert await ground.rows("SELECT FROM digest_log") == []
    slack_receiver.mode = Mode.OK
    await a_week_later(ground)
    assert (await one_pass(ground, to_slack)).attempted == {"slack": State.DONE}


async def test_a_refused_one_can_be_sent_again_by_hand(ground: Ground, slack_receiver: Receiver) -> None:
    slack_receiver.script(Mode.NOT_FOUND)
    to_slack = slack(slack_receiver.url)
    await owed(ground, to_slack)
    await one_pass(ground, to_slack)
    assert await ground.gateway.unit(writes.again, ["webhook"]) == 0
    assert await ground.gateway.unit(writes.again, ["slack", "webhook"]) == 1
    assert (await one_pass(ground, to_slack)).attempted == {"slack": State.DONE}


async def test_one_that_could_not_be_sent_for_a_week_gives_way_to_the_next(
    ground: Ground, slack_receiver: Receiver
) -> None:
    slack_receiver.script(Mode.ERROR)
    to_slack = slack(slack_receiver.url)
    await owed(ground, to_slack)
    await one_pass(ground, to_slack)
    await a_week_later(ground)
    assert (await one_pass(ground, to_slack)).attempted == {"slack": State.DONE}
    row = await standing(ground)
    assert (row["round"], row["attempt"]) == (0, 1)


async def test_a_clock_that_was_far_ahead_silences_nothing(ground: Ground, slack_receiver: Receiver) -> None:
    to_slack = slack(slack_receiver.url)
    await one_pass(ground, to_slack)
    due_at = (await standing(ground))["due_at"]
    await ground.rows("UPDATE digests SET due_at = due_at + interval '100 days'")
    assert (await one_pass(ground, to_slack)).attempted == {}
    assert (await standing(ground))["due_at"] == due_at
    await a_week_later(ground)
    assert (await one_pass(ground, to_slack)).attempted == {"slack": State.DONE}


async def test_a_webhook_gets_no_digest_and_nobody_does_when_it_is_off(
    gateway: Gateway, tmp_path: Path, receiver: Receiver, slack_receiver: Receiver
) -> None:
    ground = ground_on(gateway, tmp_path)
    assert (await one_pass(ground, webhook(receiver.url))).attempted == {}
    assert await ground.rows("SELECT FROM digests") == []
    off = ground_on(gateway, tmp_path, DIGEST_ENABLED="false")
    assert await one_pass(off, slack(slack_receiver.url)) == Pass({}, LOOK_S)
    assert await ground.rows("SELECT FROM digests") == []


async def test_the_actor_sends_what_is_owed_at_its_start_and_stops_at_once(
    ground: Ground, slack_receiver: Receiver
) -> None:
    to_slack = slack(slack_receiver.url)
    await owed(ground, to_slack)
    async with trio.open_nursery() as nursery:
        await nursery.start(Digest([to_slack]).run, ground.ctx)
        await trio.to_thread.run_sync(slack_receiver.wait_for, 1)
        ground.stopping.set()
    assert (await standing(ground))["state"] == "done"


async def test_an_outage_is_waited_out(tmp_path: Path, slack_receiver: Receiver) -> None:
    async with open_gateway("postgresql://nobody@127.0.0.1:1/nothing") as away:
        ground = ground_on(away, tmp_path)
        with pytest.raises(StoreUnavailableError):
            await one_pass(ground, slack(slack_receiver.url))
        async with trio.open_nursery() as nursery:
            await nursery.start(Digest([slack(slack_receiver.url)]).run, ground.ctx)
            ground.stopping.set()


async def test_a_late_report_of_a_success_counts_and_of_a_failure_does_not(ground: Ground) -> None:
    to_slack = slack("http://127.0.0.1:1/")
    await owed(ground, to_slack)
    first = await ground.gateway.unit(writes.claim, "slack", Schedule(0, 9), LEASE_S)
    await ground.rows("UPDATE digests SET lease_until = now()")
    second = await ground.gateway.unit(writes.claim, "slack", Schedule(0, 9), LEASE_S)
    assert isinstance(first, writes.Claim) and isinstance(second, writes.Claim)
    failed = Outcome(Verdict.FAILED, 500), Next(State.PENDING, 0, 1, 1.0)
    done = Outcome(Verdict.DELIVERED, 200), Next(State.DONE, 0, 1)
    assert await ground.gateway.unit(writes.keep, first, *failed) is False
    assert await ground.gateway.unit(writes.keep, first, *done) is True
    assert await ground.gateway.unit(writes.keep, second, *failed) is False
    assert await ground.gateway.unit(writes.keep, second, *done) is False
    assert len(await ground.rows("SELECT FROM digest_log")) == 1


async def _totals(
    ground: Ground, agent_id: str, hours_before_end: int, runs: int, customer_id: str = "default"
) -> None:
    hour = SPAN.until - timedelta(hours=hours_before_end)
    await ground.rows(
        "INSERT INTO agents (customer_id, agent_id, first_seen, last_seen, run_count) VALUES ($1, $2, $3, $3, $4) "
        "ON CONFLICT DO NOTHING",
        customer_id, agent_id, hour, runs,
    )  # fmt: skip
    await ground.rows(
        "INSERT INTO agent_hours (customer_id, agent_id, agent_version, hour, run_count, total_tokens) "
        "VALUES ($1, $2, 'v', $3, $4, $5)",
        customer_id, agent_id, hour, runs, 100 * runs,
    )  # fmt: skip
    for n in range(runs):
        await ground.rows(
            """
            INSERT INTO runs (run_id, customer_id, bucket, agent_id, agent_version, started_at, first_day, last_day,
                              start_day, start_hour, last_received_at, processed_at)
            VALUES ($1, $2, 0, $3, 'v', 0, current_date, current_date, current_date, now(), now(), $4)
            """,
            f"{agent_id} {hours_before_end} {n}", customer_id, agent_id, hour,
        )  # fmt: skip


async def _found(
    ground: Ground, agent_id: str, hours_before_end: int, n: int, failure_type: str = "TOOL_LOOP", **columns: Any
) -> None:
    await ground.add_signal(
        f"{agent_id} {hours_before_end} {n}", agent_id=agent_id, failure_type=failure_type, **columns
    )
    at = SPAN.until - timedelta(hours=hours_before_end)
    customer_id = columns.get("customer_id", "default")
    await ground.rows(
        "UPDATE failure_signals SET detected_at = $1 WHERE run_id = $2 AND customer_id = $3",
        at, f"{agent_id} {hours_before_end} {n}", customer_id,
    )  # fmt: skip
    if not columns.get("shadow"):
        await ground.rows(
            "INSERT INTO signal_hours (customer_id, agent_id, agent_version, failure_type, severity, hour, "
            "signal_count) VALUES ($1, $2, 'v', $3, 'HIGH', $4, 1) ON CONFLICT (customer_id, agent_id, hour, "
            "failure_type, severity, agent_version) DO UPDATE SET signal_count = signal_hours.signal_count + 1",
            customer_id, agent_id, failure_type, at,
        )  # fmt: skip


async def _week(ground: Ground, scope: Scope = Scope("default")) -> Week:  # noqa: B008
    return await ground.gateway.unit(reads.week, scope, SPAN)


async def test_a_week_is_what_the_rows_say(ground: Ground) -> None:
    await _totals(ground, "bot", 1, 10)
    await _totals(ground, "bot", 168, 10)  # the first hour of the week
    await _totals(ground, "bot", 169, 5)  # the week before
    await _totals(ground, "bot", 0, 5)  # the week after
    await _totals(ground, "calm", 5, 3)
    await _totals(ground, "bot", 1, 50, customer_id="other")
    for n in range(2):
        await _found(ground, "bot", 1, n)
    await _found(ground, "bot", 168, 0, "RETRY_STORM")
    await _found(ground, "bot", 169, 0, "RETRY_STORM")
    await _found(ground, "bot", 0, 0, "RETRY_STORM")
    await _found(ground, "bot", 1, 5, shadow=True)
    await _found(ground, "bot", 1, 0, "RETRY_STORM", customer_id="other")
    week = await _week(ground)
    assert (week.runs, week.tokens, week.agents, week.signals, week.affected_runs) == (23, 2_300, 2, 3, 3)
    assert week.types == (TypeCount("TOOL_LOOP", 2, 1), TypeCount("RETRY_STORM", 1, 1))
    assert week.top_agents == (AgentCount("bot", 3, 20),)
    assert week.systemic == (Pattern("bot", "TOOL_LOOP", RateContext(20, 2, 0.1, True)),)
    assert await ground.gateway.unit(reads.customers) == ["default", "other"]
    assert (await _week(ground, Scope("default", frozenset({"calm"})))).runs == 3


async def test_what_is_rare_or_happened_once_is_not_systemic(ground: Ground) -> None:
    await _totals(ground, "rare", 1, 21)
    await _totals(ground, "once", 1, 1)
    for n in range(2):
        await _found(ground, "rare", 1, n)
    await _found(ground, "once", 1, 0)
    assert (await _week(ground)).systemic == ()
    await _found(ground, "going on", 1, 0)
    await _found(ground, "going on", 1, 1)
    assert (await _week(ground)).systemic == (Pattern("going on", "TOOL_LOOP", RateContext(2, 2, 1.0, True)),)


async def test_issues_that_opened_and_that_were_resolved(ground: Ground) -> None:
    within, before = SPAN.since, SPAN.since - timedelta(seconds=1)
    for n, (first_seen, resolved_at) in enumerate([(within, None), (before, within), (before, None), (within, within)]):
        await ground.rows(
            "INSERT INTO issues (agent_id, failure_type, first_seen, last_seen, resolved_at) "
            "VALUES ($1, 'TOOL_LOOP', $2, $2, $3)",
            f"agent {n}", first_seen, resolved_at,
        )  # fmt: skip
    week = await _week(ground)
    assert (week.issues_opened, week.opened) == (2, (("agent 0", "TOOL_LOOP"), ("agent 3", "TOOL_LOOP")))
    assert (week.issues_resolved, week.resolved) == (2, (("agent 1", "TOOL_LOOP"), ("agent 3", "TOOL_LOOP")))


def _shown(week: Week) -> str:
    document = slack_server.accept(digest.message(week, SPAN, "https://page.example/#/").body)
    slack_server.assert_only_says_what_it_says(document)
    return "\n".join(slack_server.texts(document))


FULL = Week(
    runs=1_234, tokens=5_000_000, agents=3, signals=12, affected_runs=11, issues_opened=7, issues_resolved=1,
    types=(TypeCount("TOOL_LOOP", 11, 2), TypeCount("SLOW_STEP", 1, 1)),
    top_agents=(AgentCount("support", 11, 200), AgentCount("bot", 1, 1)),
    systemic=(Pattern("support", "TOOL_LOOP", RateContext(20, 3, 0.15, True)),),
    opened=(("support", "TOOL_LOOP"), ("bot", "SLOW_STEP")), resolved=(("bot", "TOOL_LOOP"),),
)  # fmt: skip


def test_the_digest_in_words() -> None:
    shown = _shown(FULL)
    for line in (
        "Dunetrace: the week to Monday 4 May 2026",
        "2026-04-27 09:00 to 2026-05-04 09:00 UTC",
        "1,234 runs of 3 agents, 5,000,000 tokens. 12 signals in 11 runs.",
        "• `TOOL_LOOP`: 11 signals, 2 agents",
        "• `SLOW_STEP`: 1 signal, 1 agent",
        "• `support`: 11 signals, 200 runs",
        "• `support`: `TOOL_LOOP` in 3 of 20 runs (15 %)",
        "7 opened: `support` `TOOL_LOOP`, `bot` `SLOW_STEP` and 5 more",
        "1 resolved: `bot` `TOOL_LOOP`",
    ):
        assert line in shown, line


def test_a_quiet_week_is_told_as_well() -> None:
    shown = _shown(Week())
    assert "0 runs of 0 agents, 0 tokens. 0 signals in 0 runs." in shown
    assert "Systemic" not in shown and "0 opened\n0 resolved" in shown


@pytest.mark.parametrize("name", HOSTILE.values(), ids=HOSTILE.keys())
def test_hostile_names(name: str) -> None:
    _shown(
        FULL._replace(
            types=(TypeCount(name, 1, 1),) * 5,
            top_agents=(AgentCount(name, 10**15, 10**15),) * 5,
            systemic=(Pattern(name, name, RateContext(10**15, 10**15, 1.0, True)),) * 5,
            opened=((name, name),) * 5,
            resolved=((name, name),) * 5,
        )
    )
