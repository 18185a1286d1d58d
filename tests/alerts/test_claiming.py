"""Claiming and keeping many at a time, on a real Postgres: in order, each once, and whatever else is stored."""

from __future__ import annotations

import random

import pytest
import trio

from dunetrace.actors.delivering import LEASE_S
from dunetrace.deliveries import Outcome, State, Verdict, after, outcome_of
from dunetrace.store.gateway import Connection
from dunetrace.store.writes import deliveries as writes
from dunetrace.store.writes.deliveries import Claim, Claimed, Settled
from tests.alerts.ground import Ground, dispatcher_for, webhook

FAILED = Outcome(Verdict.FAILED, error="ReadError")


async def _owe(ground: Ground, *run_ids: str) -> None:
    """Deliveries to the webhook, oldest first."""
    dispatcher = dispatcher_for(webhook("http://127.0.0.1:1/"))
    for run_id in run_ids:
        await ground.add_signal(run_id)
        await dispatcher.run_once(ground.ctx)


async def _claim(ground: Ground, most: int) -> Claimed:
    return await ground.gateway.unit(writes.claim, "webhook", LEASE_S, most)


def _runs(claims: list[Claim]) -> list[str]:
    return [claim.alert.signal.run_id for claim in claims]


def _settled(claim: Claim, outcome: Outcome) -> Settled:
    return Settled(claim, outcome, after(claim.standing, outcome, random.Random(1)))


async def _states(ground: Ground) -> dict[str, str]:
    return {row["run_id"]: row["state"] for row in await ground.deliveries()}


async def test_the_oldest_come_first_and_each_once(ground: Ground) -> None:
    await _owe(ground, *"abcde")
    first, second, third = [await _claim(ground, 2) for _ in range(3)]
    assert [_runs(claimed.claims) for claimed in (first, second, third)] == [["a", "b"], ["c", "d"], ["e"]]
    assert (first.wait_s, second.wait_s) == (0.0, 0.0)  # as much was due as was wanted
    assert third.wait_s is not None and LEASE_S - 5 < third.wait_s <= LEASE_S
    assert (await _claim(ground, 2)).claims == []


async def test_side_by_side_nobody_gets_what_another_has(ground: Ground) -> None:
    run_ids = [f"run {n:02}" for n in range(40)]
    await _owe(ground, *run_ids)
    claimed: list[Claim] = []

    async def take() -> None:
        claimed.extend((await _claim(ground, 10)).claims)

    async with trio.open_nursery() as nursery:
        for _ in range(6):
            nursery.start_soon(take)
    claimed += (await _claim(ground, 40)).claims
    assert sorted(_runs(claimed)) == run_ids


async def test_a_probe_goes_alone(ground: Ground) -> None:
    await _owe(ground, *"abcd")
    for _ in range(3):
        ((claim, *_), _) = await _claim(ground, 1)
        await ground.gateway.unit(writes.keep, [_settled(claim, FAILED)])
        await ground.advance(9.0)
    assert await ground.circuit_is_open()
    assert (await _claim(ground, 50)).claims == []
    await ground.advance(60.0)
    ((probe,), wait_s) = await _claim(ground, 50)
    assert probe.standing.probe and wait_s == LEASE_S
    assert (await _claim(ground, 50)).claims == []


async def test_those_that_cannot_be_told_make_place_for_others(ground: Ground) -> None:
    await _owe(ground, *"abcdef")
    await ground.rows("UPDATE failure_signals SET shadow = TRUE WHERE run_id IN ('a', 'c', 'd')")
    assert _runs((await _claim(ground, 3)).claims) == ["b", "e", "f"]
    assert [run_id for run_id, state in (await _states(ground)).items() if state == "expired"] == ["a", "c", "d"]


async def test_what_is_given_back_is_due_at_once_and_in_its_old_place(ground: Ground) -> None:
    await _owe(ground, *"abc")
    claims = (await _claim(ground, 3)).claims
    await ground.gateway.unit(writes.give_back, claims[:2])
    assert _runs((await _claim(ground, 3)).claims) == ["a", "b"]


async def test_only_what_is_still_ours_can_be_given_back(ground: Ground) -> None:
    await _owe(ground, "taken over", "done")
    stale = (await _claim(ground, 2)).claims
    await ground.gateway.unit(writes.keep, [_settled(stale[1], outcome_of(200))])
    await ground.advance(LEASE_S)
    assert _runs((await _claim(ground, 2)).claims) == ["taken over"]
    await ground.gateway.unit(writes.give_back, stale)
    assert (await _claim(ground, 2)).claims == []


async def test_each_outcome_of_many_is_its_own(ground: Ground) -> None:
    await _owe(ground, *"abcd")
    claims = (await _claim(ground, 4)).claims
    await ground.rows("UPDATE deliveries SET lease_until = lease_until + interval '1 second' WHERE run_id = 'd'")
    outcomes = (outcome_of(200), outcome_of(404), FAILED, FAILED)
    settled = [_settled(claim, outcome) for claim, outcome in zip(claims, outcomes, strict=True)]
    kept = await ground.gateway.unit(writes.keep, settled)
    assert [each.known for each in kept] == [True, True, True, False]
    found = {row["run_id"]: (row["state"], row["attempt"], row["last_status"]) for row in await ground.deliveries()}
    assert found == {
        "a": ("done", 1, 200),
        "b": ("refused", 1, 404),
        "c": ("pending", 1, None),
        "d": ("pending", 0, None),
    }
    alerted = await ground.rows("SELECT run_id FROM failure_signals WHERE alerted")
    assert alerted == [{"run_id": "a"}]


@pytest.mark.parametrize(
    ("last", "opens", "closes"),
    [(outcome_of(200), [True, False], [False, True]), (FAILED, [False, True], [False, False])],
)
async def test_the_last_outcome_decides_about_the_circuit(
    ground: Ground, last: Outcome, opens: list[bool], closes: list[bool]
) -> None:
    await _owe(ground, *"ab")
    claims = (await _claim(ground, 2)).claims
    first = FAILED if last.verdict is Verdict.DELIVERED else outcome_of(200)
    standing = claims[0].standing._replace(attempt=2)  # one more failure ends the round
    claims = [claim._replace(standing=standing) for claim in claims]
    settled = [_settled(claim, outcome) for claim, outcome in zip(claims, (first, last), strict=True)]
    kept = await ground.gateway.unit(writes.keep, settled)
    assert [each.circuit_opened for each in kept] == opens
    assert [each.circuit_closed for each in kept] == closes
    assert await ground.circuit_is_open() == (last is FAILED)


async def test_a_success_that_another_holds_the_lease_of_still_counts(ground: Ground) -> None:
    await _owe(ground, *"ab")
    stale = (await _claim(ground, 2)).claims
    await ground.advance(LEASE_S)
    assert len((await _claim(ground, 2)).claims) == 2
    kept = await ground.gateway.unit(writes.keep, [_settled(stale[0], outcome_of(200)), _settled(stale[1], FAILED)])
    assert [each.known for each in kept] == [True, False]
    assert await _states(ground) == {"a": State.DONE, "b": State.PENDING}


MANY_PENDING, MANY_DONE = 10_000, 100_000


@pytest.fixture
async def crowd(ground: Ground) -> Ground:
    """As after a hundred thousand alerts, with a destination that has been away for ten thousand."""
    insert = """
        INSERT INTO deliveries (id, run_id, failure_type, destination, kind, state, created_at, done_at)
        SELECT gen_random_uuid(), state || n, 'TOOL_LOOP', 'webhook', 'first', state, now() - (n || ' ms')::interval,
               CASE WHEN state = 'done' THEN now() END
        FROM (SELECT $1 AS state, generate_series(1, $2::int) AS n) AS made
    """
    for state, count in (("done", MANY_DONE), ("pending", MANY_PENDING)):
        await ground.rows(insert, state, count)
    await ground.rows(
        """
        INSERT INTO failure_signals (run_id, failure_type, severity, agent_id, agent_version, step_index, confidence,
                                     evidence, shadow, fanned_out_at)
        SELECT run_id, failure_type, 'HIGH', 'agent', 'v', 1, 0.9, '{}'::jsonb, FALSE, now() FROM deliveries
        """
    )
    return ground


@pytest.mark.parametrize("known", [False, True], ids=["before Postgres has looked at the tables", "after"])
@pytest.mark.parametrize("plan", ["force_custom_plan", "force_generic_plan"])
async def test_claiming_and_keeping_read_what_they_claim_and_no_more(crowd: Ground, known: bool, plan: str) -> None:
    if known:
        await crowd.rows("ANALYZE")
    scans, fetched, claims = await crowd.gateway.unit(_work_of_a_claim, plan)
    assert len(claims) == 50
    assert scans == 0
    assert fetched < 50 * 10  # found, taken, looked up, told beside, kept and marked: each some rows by its key


async def _work_of_a_claim(conn: Connection, plan: str) -> tuple[int, int, list[Claim]]:
    """Whole tables read, and rows found through an index, by a claim of 50 and the keeping of what came of them."""
    await conn.execute(f"SET LOCAL plan_cache_mode = {plan}")
    before = await conn.fetchrow(_READ)  # of the fixture, as long as Postgres has not passed that on
    claimed = await writes.claim(conn, "webhook", LEASE_S, 50)
    await writes.keep(conn, [_settled(claim, outcome_of(200)) for claim in claimed.claims])
    after = await conn.fetchrow(_READ)
    assert before is not None and after is not None
    return after["scans"] - before["scans"], after["fetched"] - before["fetched"], claimed.claims


_READ = """
SELECT coalesce(sum(seq_scan), 0)::int AS scans, coalesce(sum(idx_tup_fetch), 0)::int AS fetched
FROM pg_stat_xact_user_tables WHERE relname IN ('deliveries', 'failure_signals')
"""
