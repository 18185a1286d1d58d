"""The checker finds each kind of broken promise, and nothing where nothing is broken."""

from __future__ import annotations

import pytest
import trio

from tests.harness.checks import CHECKS
from tests.harness.invariants import SHOWN, assert_invariants, settle, violations
from tests.harness.load import Ledger
from tests.harness.world import CLEAN, LOOPING, SHADOWED, UNENDING, build, event, execute

# what was broken → the words it has to be found with
PLANTED = {
    "an event was stored twice": [
        event(LOOPING, 0, 1777888800.0).replace("date '2026-05-04'", "date '2026-05-05'"),
        f"UPDATE runs SET event_count = 3, judged_event_count = 3 WHERE run_id = '{LOOPING}'",
    ],
    "a row was set aside": [
        "INSERT INTO set_aside_events (event_key, error, row_json, received_at) VALUES ('k', 'DataError', '', now())"
    ],
    "a touch was left": [
        "INSERT INTO run_touches (run_id, bucket, n, first_day, last_day, received_at) "
        f"VALUES ('{LOOPING}', 0, 1, current_date, current_date, now())"
    ],
    "events of a run that nobody judged": [event("run-unknown", 0, 1.0)],
    "stored, announced and judged events differ": [
        f"UPDATE runs SET judged_event_count = 1 WHERE run_id = '{CLEAN[0]}'"
    ],
    "more than one signal of a run and type": [
        "ALTER TABLE failure_signals DROP CONSTRAINT failure_signals_run_id_customer_id_failure_type_key",
        "INSERT INTO failure_signals (failure_type, severity, run_id, agent_id, agent_version, step_index, confidence, "
        "evidence, shadow) SELECT failure_type, severity, run_id, agent_id, agent_version, step_index, confidence, "
        f"evidence, TRUE FROM failure_signals WHERE run_id = '{LOOPING}'",
    ],
    "a signal without a run": [f"UPDATE failure_signals SET run_id = 'run-unknown' WHERE run_id = '{SHADOWED}'"],
    "a run's signal_count is not its live signals": [f"UPDATE runs SET signal_count = 2 WHERE run_id = '{LOOPING}'"],
    "a run and its processed mark differ": [f"DELETE FROM processed_runs WHERE run_id = '{CLEAN[1]}'"],
    "a processed mark without a run": ["UPDATE processed_runs SET run_id = 'x' WHERE run_id = '" + CLEAN[2] + "'"],
    "an ended run was never counted": [
        f"UPDATE runs SET issue_effect = NULL, effect_seq = NULL WHERE run_id = '{CLEAN[0]}'"
    ],
    "a run that has not ended, or lost events, was counted": [
        f"UPDATE runs SET issue_effect = 'clean', effect_seq = 9 WHERE run_id = '{UNENDING}'"
    ],
    "a run counts as affected and has no live signal": [
        f"UPDATE runs SET issue_effect = 'affected' WHERE run_id = '{CLEAN[0]}'"
    ],
    "two runs have one place in the order of effects": [f"UPDATE runs SET effect_seq = 3 WHERE run_id = '{CLEAN[0]}'"],
    "an issue's affected_runs is not a recount": ["UPDATE issues SET affected_runs = 2"],
    "an issue's clean_runs_since is not a recount": ["UPDATE issues SET clean_runs_since = 2"],
    "an issue's status does not fit its clean runs": ["UPDATE issues SET status = 'resolved', resolved_at = now()"],
    "a run's tokens by model do not add up to its tokens": [
        f"""UPDATE runs SET token_mix = '{{"gpt-4o": [999, 0, 999]}}' WHERE run_id = '{LOOPING}'"""
    ],
    "agents is not a recount": ["UPDATE agents SET run_count = 7"],
    "agent_hours is not a recount": ["UPDATE agent_hours SET total_tokens = 500"],
    "signal_hours is not a recount": ["DELETE FROM signal_hours"],
    "a live signal was never fanned out": [
        f"UPDATE failure_signals SET fanned_out_at = NULL WHERE run_id = '{LOOPING}'"
    ],
    "a live signal was neither told nor gathered for a destination it applies to": [
        "DELETE FROM deliveries",
        "UPDATE failure_signals SET alerted = FALSE",
    ],
    "a gathered signal waits for nothing": [
        "INSERT INTO gathered_signals (run_id, failure_type, destination, agent_id) "
        f"VALUES ('{LOOPING}', 'TOOL_LOOP', 'slack', 'agent')"
    ],
    "a gathered signal is counted by no delivery": [
        "INSERT INTO gathered_signals (run_id, failure_type, destination, agent_id, delivery_id) "
        f"SELECT '{LOOPING}', 'TOOL_LOOP', 'webhook', 'agent', id FROM deliveries"
    ],
    "an issue that goes on owes a note of its end": ["UPDATE issues SET note_due = TRUE"],
    "a shadow signal was alerted": [f"UPDATE failure_signals SET alerted = TRUE WHERE run_id = '{SHADOWED}'"],
    "alerted is not what was delivered": ["UPDATE deliveries SET state = 'refused'"],
    "a delivery is stuck": [
        "INSERT INTO deliveries (id, run_id, failure_type, destination, kind, next_attempt_at, lease_until) VALUES "
        f"(gen_random_uuid(), '{LOOPING}', 'TOOL_LOOP', 'webhook', 'update', '2026-05-04', '2026-05-05')"
    ],
}


def test_every_check_is_tried() -> None:
    assert set(PLANTED) == {check.words for check in CHECKS}


def test_nothing_is_found_where_all_is_well(database: str) -> None:
    assert violations(database) == []
    build(database)
    assert violations(database) == []


def test_an_issue_a_person_resolved_is_resolved_before_its_fifth_clean_run(database: str) -> None:
    build(database)
    execute(database, "UPDATE issues SET status = 'resolved', resolved_at = now(), resolved_by_hand = TRUE")
    assert violations(database) == []
    execute(database, "UPDATE issues SET status = 'reopened', resolved_at = NULL")
    assert any(found.startswith("an issue's status does not fit its clean runs:") for found in violations(database))


@pytest.mark.parametrize("words", PLANTED)
def test_a_planted_violation_is_found(database: str, words: str) -> None:
    build(database)
    execute(database, *PLANTED[words])
    found = violations(database)
    assert any(sentence.startswith(words + ":") for sentence in found), found


def test_a_destination_is_owed_only_what_it_asked_for(database: str) -> None:
    build(database)
    execute(database, *PLANTED["a live signal was neither told nor gathered for a destination it applies to"])
    assert violations(database, min_severity={"webhook": "CRITICAL"}) == []
    assert violations(database, min_severity={"webhook": "HIGH"}) != []


def test_the_ledger_is_compared_with_what_was_stored(database: str) -> None:
    build(database)
    stored = {(run, at) for run in (LOOPING, SHADOWED, UNENDING, *CLEAN) for at in (1777888800.0, 1777888801.0)}
    promised = Ledger(sent=set(stored), accepted=set(stored))
    assert violations(database, promised) == []

    promised.sent.add(("run-gone", 5.0))
    assert violations(database, promised) == []  # sent and never promised: both are right
    promised.accepted.add(("run-gone", 5.0))
    assert violations(database, promised) == ["an accepted event was lost: run_id=run-gone, timestamp=5.0"]

    execute(
        database,
        event(LOOPING, 2, 1777888801.0),
        f"UPDATE runs SET event_count = 3, judged_event_count = 3 WHERE run_id = '{LOOPING}'",
    )
    promised.accepted.discard(("run-gone", 5.0))
    promised.sent.discard((UNENDING, 1777888801.0))
    assert violations(database, promised) == [
        f"a sent event was stored more than once: run_id={LOOPING}, timestamp=1777888801.0",
        f"an event was stored that nobody sent: run_id={UNENDING}, timestamp=1777888801.0",
    ]


def test_many_of_one_kind_are_counted(database: str) -> None:
    execute(database, *(event(f"run-{n}", 0, 1.0) for n in range(SHOWN + 3)))
    found = violations(database)
    assert len(found) == SHOWN + 1
    assert found[-1] == "events of a run that nobody judged: 3 more"


@pytest.mark.parametrize(
    ("statement", "words"),
    [
        (PLANTED["a touch was left"][0], "runs have events nobody has looked at: 1"),
        (f"UPDATE runs SET judged_event_count = 1 WHERE run_id = '{LOOPING}'", "not judged up to their last event"),
        (f"UPDATE runs SET due_at = now() WHERE run_id = '{UNENDING}'", "are due"),
        (PLANTED["a live signal was never fanned out"][0], "live signals are not fanned out: 1"),
        ("UPDATE deliveries SET state = 'pending'", "deliveries are pending: 1"),
    ],
)
async def test_settle_says_what_is_left(database: str, statement: str, words: str) -> None:
    await trio.to_thread.run_sync(build, database)
    await settle(database)
    await trio.to_thread.run_sync(execute, database, statement)
    with pytest.raises(AssertionError, match="not quiet after") as left:
        await settle(database, timeout_s=0)
    assert words in str(left.value)


async def test_settle_waits_for_what_was_promised(database: str) -> None:
    await trio.to_thread.run_sync(build, database)
    promised = Ledger(sent={("run-late", 5.0)}, accepted={("run-late", 5.0)})
    with pytest.raises(AssertionError, match="accepted events are not stored: 1"):
        await settle(database, promised, timeout_s=0)


async def test_settle_goes_on_once_the_work_is_done(database: str) -> None:
    await trio.to_thread.run_sync(build, database)
    await trio.to_thread.run_sync(execute, database, PLANTED["a touch was left"][0])
    async with trio.open_nursery() as nursery:
        nursery.start_soon(assert_invariants, database)
        await trio.to_thread.run_sync(execute, database, "DELETE FROM run_touches")


async def test_deliveries_that_wait_may_be_left_out(database: str) -> None:
    await trio.to_thread.run_sync(build, database)
    await trio.to_thread.run_sync(
        execute,
        database,
        "UPDATE deliveries SET state = 'pending', next_attempt_at = now() + interval '1 hour'",
        "UPDATE failure_signals SET alerted = FALSE",
    )
    await assert_invariants(database, delivered=False)
    with pytest.raises(AssertionError, match="deliveries are pending"):
        await settle(database, timeout_s=0)
