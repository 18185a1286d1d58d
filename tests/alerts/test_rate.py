"""The rate beside an alert: whose runs count, which signals count, and when it is systemic."""

from __future__ import annotations

from typing import Any

import pytest

from dunetrace.explain import RateContext
from dunetrace.signals import FailureType
from dunetrace.store.reads.rate import rate_context
from dunetrace.store.reads.scope import Scope
from tests.alerts.ground import Ground

DAY_S = 86_400.0
EVERYTHING = Scope("default")


async def _judged(ground: Ground, *run_ids: str, age_s: float = 0.0, **columns: str) -> None:
    """Runs judged `age_s` ago."""
    for run_id in run_ids:
        await ground.rows(
            """
            INSERT INTO runs (run_id, customer_id, bucket, agent_id, agent_version, started_at, first_day, last_day,
                              start_day, start_hour, last_received_at, processed_at)
            VALUES ($1, $2, 0, $3, 'v', 0, current_date, current_date, current_date, now(), now(),
                    now() - make_interval(secs => $4))
            """,
            run_id,
            columns.get("customer_id", "default"),
            columns.get("agent_id", "agent"),
            age_s,
        )


async def _rate(ground: Ground, scope: Scope = EVERYTHING) -> RateContext:
    return await ground.gateway.unit(rate_context, scope, "agent", FailureType.TOOL_LOOP)


async def test_nothing_known(ground: Ground) -> None:
    assert await _rate(ground) == RateContext(0, 0, 0.0, False)


async def test_runs_of_seven_days_and_their_live_signals(ground: Ground) -> None:
    await _judged(ground, "a", "b", "c", "d")
    await _judged(ground, "old", age_s=8 * DAY_S)
    await _judged(ground, "foreign", customer_id="other")
    await _judged(ground, "another", agent_id="another")
    await ground.add_signal("a")
    others: list[tuple[str, dict[str, Any]]] = [
        ("b", {"shadow": True}),
        ("c", {"failure_type": "REASONING_STALL"}),
        ("old", {"age_s": 8 * DAY_S}),
        ("foreign", {"customer_id": "other"}),
        ("another", {"agent_id": "another"}),
    ]
    for run_id, columns in others:
        await ground.add_signal(run_id, **columns)
    assert await _rate(ground) == RateContext(4, 1, 0.25, False)


async def test_a_run_found_while_it_is_going_on_counts_in_both(ground: Ground) -> None:
    await _judged(ground, "a")
    await ground.add_signal("going on")
    assert await _rate(ground) == RateContext(2, 1, 0.5, False)


@pytest.mark.parametrize(
    ("affected", "total", "systemic"), [(1, 1, False), (2, 2, True), (2, 20, True), (2, 21, False)]
)
async def test_systemic(ground: Ground, affected: int, total: int, systemic: bool) -> None:
    run_ids = [f"run {n}" for n in range(total)]
    await _judged(ground, *run_ids)
    for run_id in run_ids[:affected]:
        await ground.add_signal(run_id)
    assert (await _rate(ground)).is_systemic is systemic


async def test_a_scope_sees_its_own_agents_only(ground: Ground) -> None:
    await _judged(ground, "a")
    await ground.add_signal("a")
    assert (await _rate(ground, Scope("default", frozenset({"agent"})))).total_runs == 1
    assert (await _rate(ground, Scope("default", frozenset({"another"})))).total_runs == 0
