"""What the poller makes of rows: in flight, at the end, after a stall, again; parked, leased and counted once."""

from __future__ import annotations

from typing import Any

import pytest
import trio

from dunetrace import judgements
from dunetrace.errors import DetectorError, LeaseLostError
from dunetrace.store.gateway import Gateway
from dunetrace.store.reads import work
from tests.actors.world import World
from tests.harness.invariants import violations


@pytest.fixture
def world(gateway: Gateway) -> World:
    return World(gateway)


async def assert_sound(database: str) -> None:
    """Nothing but deliveries is owed: there is no dispatcher here."""
    found = await trio.to_thread.run_sync(violations, database)
    assert [line for line in found if "fanned out" not in line] == []


async def test_a_loop_is_found_while_the_run_goes_on_and_updated_at_its_end(world: World, database: str) -> None:
    world.start += 57  # just now, so that the call left open is not one that hangs
    rows = world.looping_run("r", calls=5)
    await world.append(*rows[:6])  # up to the third tool.called
    await world.judge()
    early = await world.one("SELECT * FROM failure_signals")
    assert (early["failure_type"], early["severity"], early["in_flight"]) == ("TOOL_LOOP", "HIGH", True)
    assert (await world.one("SELECT trigger, due_at IS NOT NULL AS due FROM runs")) == {"trigger": None, "due": True}
    assert await world.rows("SELECT * FROM processed_runs") == []
    await world.append(*rows[6:])
    await world.judge()
    late = await world.one("SELECT * FROM failure_signals")
    assert (late["id"], late["detected_at"]) == (early["id"], early["detected_at"])
    assert late["evidence"]["call_count"] > early["evidence"]["call_count"]
    assert (await world.one("SELECT trigger, signal_count FROM processed_runs")) == {
        "trigger": "run.completed",
        "signal_count": 1,
    }
    assert (await world.one("SELECT status, affected_runs FROM issues")) == {"status": "open", "affected_runs": 1}
    await assert_sound(database)


async def test_arrival_order_does_not_matter(world: World, database: str) -> None:
    rows = world.looping_run("r", calls=4)
    for row in reversed(rows):
        await world.append(row)
        await world.judge()
    run = await world.one("SELECT * FROM runs")
    assert (run["trigger"], run["tool_calls"], run["event_count"]) == ("run.completed", 4, len(rows))
    assert len(await world.rows("SELECT * FROM failure_signals")) == 1
    await assert_sound(database)


async def test_events_after_the_end_are_judged_too(world: World, database: str) -> None:
    rows = world.looping_run("r", calls=3)
    late = rows[3:5]
    await world.append(*[row for row in rows if row not in late])
    await world.judge()
    assert await world.rows("SELECT * FROM failure_signals") == []
    await world.append(*late)
    await world.judge()
    assert len(await world.rows("SELECT * FROM failure_signals")) == 1
    assert (await world.one("SELECT count(*) AS n FROM processed_runs"))["n"] == 1
    await assert_sound(database)


async def test_events_sent_twice_count_once(world: World, database: str) -> None:
    rows = world.clean_run("r")
    assert await world.append(*rows) == len(rows)
    await world.judge()
    more = world.row("r", "llm.called", 0.7, 2, model="m")
    assert await world.append(*rows, more) == 1
    await world.judge()
    assert (await world.one("SELECT event_count, llm_calls FROM runs")) == {"event_count": 5, "llm_calls": 1}
    await assert_sound(database)


async def test_a_silent_run_is_judged_as_stalled_and_again_when_it_goes_on(gateway: Gateway, database: str) -> None:
    world = World(gateway, stall_timeout_s=30)
    await world.append(*world.looping_run("r", calls=2, ended=False))  # a minute ago
    await world.judge()
    run = await world.one("SELECT trigger, issue_effect, due_at FROM runs")
    assert run == {"trigger": "stalled", "issue_effect": None, "due_at": None}
    now = 60.0
    await world.append(*world.call("r", 3, now))
    await world.judge()
    assert (await world.one("SELECT trigger FROM runs"))["trigger"] is None
    assert len(await world.rows("SELECT * FROM failure_signals")) == 1
    await world.append(world.completed("r", now + 1))
    await world.judge()
    assert (await world.one("SELECT trigger FROM processed_runs"))["trigger"] == "run.completed"
    await assert_sound(database)


async def test_a_run_stalls_by_its_due_time_without_any_news(gateway: Gateway) -> None:
    world = World(gateway, stall_timeout_s=61.0)
    await world.append(*world.looping_run("r", calls=1, ended=False))
    await world.judge()
    assert (await world.one("SELECT trigger FROM runs"))["trigger"] is None
    with trio.fail_after(5):
        while (await world.one("SELECT trigger FROM runs"))["trigger"] is None:
            await trio.sleep(world.poller._next_due_s or 0.05)
            await world.judge()
    assert (await world.one("SELECT trigger FROM runs"))["trigger"] == "stalled"


async def test_five_clean_runs_resolve_an_issue_and_the_next_loop_reopens_it(world: World, database: str) -> None:
    await world.append(*world.looping_run("loop-1"))
    await world.judge()
    for n in range(5):
        assert (await world.one("SELECT status FROM issues"))["status"] == "open"
        await world.append(*world.clean_run(f"clean-{n}", at=10 + n))
        await world.judge()
    issue = await world.one("SELECT status, clean_runs_since, resolved_at FROM issues")
    assert (issue["status"], issue["clean_runs_since"]) == ("resolved", 5)
    assert issue["resolved_at"] is not None
    assert await world.one(_DEBTS) == {"note_due": True, "times_reopened": 0}
    await world.append(*world.looping_run("loop-2", at=20))
    await world.judge()
    issue = await world.one("SELECT status, affected_runs, clean_runs_since, resolved_at FROM issues")
    assert issue == {"status": "reopened", "affected_runs": 2, "clean_runs_since": 0, "resolved_at": None}
    assert await world.one(_DEBTS) == {"note_due": False, "times_reopened": 1}  # what is back owes no note of its end
    await assert_sound(database)


_DEBTS = "SELECT note_due, times_reopened FROM issues"


async def test_what_a_person_asked_for_an_issue_ends_with_it(world: World, database: str) -> None:
    asked = "SELECT acknowledged_at, snoozed_until FROM issues"
    await world.append(*world.looping_run("loop-1"))
    await world.judge()
    await world.execute("UPDATE issues SET acknowledged_at = now(), snoozed_until = now() + interval '1 hour'")
    before = await world.one(asked)
    await world.append(*world.looping_run("loop-2", at=5), *world.clean_run("clean", at=8))
    await world.judge()
    assert await world.one(asked) == before and None not in before.values()
    for n in range(5):
        await world.append(*world.clean_run(f"clean-{n}", at=10 + n))
    await world.append(*world.looping_run("loop-3", at=20))  # judged with them: resolved and reopened in one batch
    await world.judge()
    assert await world.one(asked) == {"acknowledged_at": None, "snoozed_until": None}
    assert await world.one(_DEBTS) == {"note_due": False, "times_reopened": 1}
    await assert_sound(database)


async def test_one_batch_of_many_runs_counts_like_one_run_at_a_time(world: World, database: str) -> None:
    rows = [row for n in range(4) for row in world.looping_run(f"loop-{n}", at=n)]
    rows += [row for n in range(6) for row in world.clean_run(f"clean-{n}", at=10 + n)]
    await world.append(*rows)
    await world.judge()
    issue = await world.one("SELECT status, affected_runs, clean_runs_since FROM issues")
    assert issue == {"status": "resolved", "affected_runs": 4, "clean_runs_since": 5}
    await assert_sound(database)


async def test_a_run_that_lost_events_is_neither_clean_nor_an_issue(world: World, database: str) -> None:
    rows = world.looping_run("r", ended=False)
    await world.append(*rows, world.completed("r", 5, dropped_events=3))
    await world.judge()
    assert (await world.one("SELECT shadow FROM failure_signals"))["shadow"] is True
    assert await world.rows("SELECT * FROM issues") == []
    run = await world.one("SELECT issue_effect, signal_count, dropped_events FROM runs")
    assert run == {"issue_effect": None, "signal_count": 0, "dropped_events": 3}
    await assert_sound(database)


async def test_customers_are_kept_apart(world: World, database: str) -> None:
    for customer in ("one", "two"):
        await world.append(*[row._replace(customer_id=customer) for row in world.looping_run("same-run")])
    await world.judge()
    found = await world.rows("SELECT customer_id, count(*) AS n FROM failure_signals GROUP BY 1 ORDER BY 1")
    assert found == [{"customer_id": "one", "n": 1}, {"customer_id": "two", "n": 1}]
    await assert_sound(database)


async def test_a_run_whose_detection_raises_is_parked_after_three_tries(
    world: World, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def judge(run: Any, limits: Any, phase: Any, known: Any) -> Any:
        if run.run_id == "poison":
            raise DetectorError("tool_loop", "ZeroDivisionError", "tool_loop.py:1")
        return real(run, limits, phase, known)

    real = judgements.judge
    monkeypatch.setattr(judgements, "judge", judge)
    monkeypatch.setattr(judgements, "RETRY_BASE_S", 0.01)
    await world.append(*world.clean_run("poison"), *world.looping_run("good"))
    await world.judge()
    assert (await world.one("SELECT run_id FROM failure_signals"))["run_id"] == "good"
    with trio.fail_after(10):
        while (await world.one("SELECT attempts FROM runs WHERE run_id = 'poison'"))["attempts"] < 3:
            await trio.sleep(0.02)
            await world.judge()
    run = await world.one("SELECT * FROM runs WHERE run_id = 'poison'")
    assert run["parked_error"] == "tool_loop: ZeroDivisionError at tool_loop.py:1"
    assert (run["due_at"], run["issue_effect"], run["trigger"]) == (None, None, None)
    assert await world.rows("SELECT * FROM run_touches") == []
    await assert_sound(database)


async def test_a_batch_that_fails_is_committed_run_by_run(
    world: World, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = judgements.judge_case

    def poisoned(case: Any, *args: Any, **kwargs: Any) -> Any:
        judgement = real(case, *args, **kwargs)
        if case.key[1] == "poison":
            judgement.run["tool_calls"] = 2**40  # Postgres refuses it
        return judgement

    monkeypatch.setattr(judgements, "judge_case", poisoned)
    await world.append(*world.clean_run("poison"), *world.looping_run("good"))
    await world.judge()
    assert (await world.one("SELECT run_id FROM failure_signals"))["run_id"] == "good"
    assert (await world.one("SELECT attempts FROM runs WHERE run_id = 'poison'"))["attempts"] == 1
    assert await world.rows("SELECT * FROM run_touches") == []


async def test_a_stale_owner_commits_nothing(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    await world.append(*world.looping_run("r"))
    await world.poller._renew(world.ctx)
    real = world.poller._commit

    async def steal_first(*args: Any) -> None:
        await world.execute("UPDATE bucket_leases SET epoch = epoch + 1, holder = gen_random_uuid()")
        await real(*args)

    monkeypatch.setattr(world.poller, "_commit", steal_first)
    with pytest.raises(LeaseLostError):
        await world.poller.run_once(world.ctx)
    assert await world.rows("SELECT * FROM failure_signals") == []
    assert len(await world.rows("SELECT * FROM run_touches")) == 1


async def test_a_restarted_poller_goes_on_where_the_rows_are(world: World, database: str) -> None:
    rows = world.looping_run("r", calls=4)
    await world.append(*rows[:4])
    await world.judge()
    await world.execute("UPDATE bucket_leases SET expires_at = '-infinity'")  # it was killed, ten seconds ago
    await world.append(*rows[4:])
    await world.judge(world.new_poller())
    assert (await world.one("SELECT event_count, judged_event_count, tool_calls FROM runs")) == {
        "event_count": len(rows),
        "judged_event_count": len(rows),
        "tool_calls": 4,
    }
    await assert_sound(database)


async def test_buckets_are_shared_and_given_up_fairly(world: World) -> None:
    first, second = world.poller, world.new_poller()
    await first._renew(world.ctx)
    assert len(first._epochs) == 64
    await second._renew(world.ctx)  # nothing is free yet
    assert len(second._epochs) == 0
    await first._renew(world.ctx)
    await second._renew(world.ctx)
    assert (len(first._epochs), len(second._epochs)) == (32, 32)
    assert not first._epochs.keys() & second._epochs.keys()


async def test_rows_deleted_by_hand_do_not_keep_a_run_in_the_queue(world: World) -> None:
    await world.append(*world.looping_run("r", ended=False))
    await world.judge()
    await world.execute("DELETE FROM events WHERE event_type = 'tool.responded'")
    await world.append(world.completed("r", 9))
    await world.judge()
    run = await world.one("SELECT event_count, judged_event_count, trigger FROM runs")
    assert run["event_count"] == run["judged_event_count"]
    assert run["trigger"] == "run.completed"


async def test_a_baseline_is_made_of_earlier_clean_runs(world: World, database: str) -> None:
    for n in range(12):
        await world.append(*world.clean_run(f"base-{n}", at=n))
    await world.judge()
    long = [world.started("long", 20.0)]
    for n in range(9):
        long += world.call("long", n + 1, 20.2 + n, args=f"{n:064x}")
    await world.append(*long, world.completed("long", 40))
    await world.judge()
    signal = await world.one("SELECT failure_type, run_id, in_flight FROM failure_signals")
    assert signal == {"failure_type": "STEP_COUNT_INFLATION", "run_id": "long", "in_flight": False}
    await assert_sound(database)


async def test_a_call_that_hangs_is_found_while_it_hangs(gateway: Gateway, database: str) -> None:
    world = World(gateway, detectors={"default": {"slow_step": {"tool_ms": 61_000}}})  # the world starts 60 s ago
    await world.append(world.started("r"), *world.call("r", 1, 0.1)[:1])
    await world.judge()
    assert await world.rows("SELECT * FROM failure_signals") == []
    wait = await world.one("SELECT extract(epoch FROM due_at - now())::float8 AS s FROM runs")
    assert 0 < wait["s"] < 5  # when the call will be over its limit, long before the run counts as stalled
    await trio.sleep(wait["s"])
    await world.judge()
    signal = await world.one("SELECT * FROM failure_signals")
    assert (signal["failure_type"], signal["severity"], signal["in_flight"]) == ("SLOW_STEP", "MEDIUM", True)
    assert signal["evidence"]["kind"] == "hanging_tool"
    assert (await world.one("SELECT trigger FROM runs"))["trigger"] is None
    await assert_sound(database)


async def test_news_that_waited_are_taken_run_by_run(
    world: World, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(work, "MAX_TOUCHES", 1)  # a pass begins with one touch of each bucket
    rows = world.looping_run("r", calls=3)
    for row in rows:
        await world.append(row)
    await world.poller._renew(world.ctx)
    await world.poller.run_once(world.ctx)
    assert (await world.one("SELECT judged_event_count, trigger FROM runs")) == {
        "judged_event_count": len(rows),
        "trigger": "run.completed",
    }
    await assert_sound(database)


async def test_a_run_that_goes_on_keeps_its_time_until_it_comes(gateway: Gateway, database: str) -> None:
    world = World(gateway, stall_timeout_s=61.0)
    await world.append(*world.looping_run("r", calls=1, ended=False))
    await world.judge()
    first = await world.one("SELECT due_at FROM runs")
    await world.append(*world.call("r", 2, 30))
    await world.judge()
    assert (await world.one("SELECT due_at FROM runs")) == first
    with trio.fail_after(5):
        while (await world.one("SELECT due_at FROM runs")) == first:
            await trio.sleep(world.poller._next_due_s or 0.05)
            await world.judge()
    later = await world.one(
        "SELECT trigger, extract(epoch FROM due_at - last_received_at)::float8 AS after_s FROM runs"
    )
    assert later == {"trigger": None, "after_s": pytest.approx(61.0, abs=0.01)}
    await assert_sound(database)
