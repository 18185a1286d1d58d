"""A small database in which everything is as promised, for tests that then break one thing."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor

import asyncpg

LOOPING, SHADOWED, UNENDING = "run-loop", "run-shadow", "run-open"
CLEAN = tuple(f"run-clean-{n}" for n in range(3))

_HOUR = "timestamptz '2026-05-04 10:00+00'"
_DAY = "date '2026-05-04'"
_FOUND = "timestamptz '2026-05-04 10:05+00'"


def execute(url: str, *statements: str) -> None:
    """Run SQL in the database at `url`; on a thread of its own, so that trio tests may call it."""

    async def go() -> None:
        conn = await asyncpg.connect(url)
        try:
            for statement in statements:
                await conn.execute(statement)
        finally:
            await conn.close()

    with ThreadPoolExecutor(1) as pool:
        pool.submit(lambda: asyncio.run(go())).result()


def build(url: str) -> None:
    """One agent: a run that looped and was alerted, three clean runs after it, one with lost events, one still open."""
    execute(
        url,
        *_run(LOOPING, "run.completed", effect="affected", seq=1, signals=1),
        *(statement for n, run in enumerate(CLEAN) for statement in _run(run, "run.completed", "clean", seq=n + 2)),
        *_run(SHADOWED, "run.completed", dropped=2),
        *_run(UNENDING, None),
        _signal(LOOPING, "TOOL_LOOP", shadow=False),
        _signal(SHADOWED, "REASONING_STALL", shadow=True),
        f"INSERT INTO destinations (name, kind, first_seen) VALUES ('webhook', 'webhook', {_HOUR})",
        "INSERT INTO deliveries (id, run_id, failure_type, destination, kind, state, done_at) "
        f"VALUES (gen_random_uuid(), '{LOOPING}', 'TOOL_LOOP', 'webhook', 'first', 'done', {_FOUND})",
        "INSERT INTO issues (agent_id, failure_type, status, first_seen, last_seen, affected_runs, clean_runs_since, "
        f"last_affected_seq) VALUES ('agent', 'TOOL_LOOP', 'open', {_FOUND}, {_FOUND}, 1, 3, 1)",
        f"INSERT INTO agents (agent_id, first_seen, last_seen, run_count) VALUES ('agent', {_HOUR}, {_HOUR}, 6)",
        "INSERT INTO agent_hours (agent_id, agent_version, hour, run_count, total_tokens) "
        f"VALUES ('agent', 'v1', {_HOUR}, 6, 600)",
        "INSERT INTO signal_hours (agent_id, agent_version, failure_type, severity, hour, signal_count) "
        f"VALUES ('agent', 'v1', 'TOOL_LOOP', 'HIGH', {_HOUR}, 1)",
    )


def event(run_id: str, n: int, timestamp: float) -> str:
    """One more event of a run, told apart by its number `n`."""
    return (
        "INSERT INTO events (batch_id, event_type, run_id, agent_id, agent_version, step_index, timestamp, payload, "
        f"event_key, day) VALUES ('b', 'llm.called', '{run_id}', 'agent', 'v1', {n}, {timestamp}, "
        f"'{{}}'::jsonb, '{run_id}/{n}', {_DAY})"
    )


def _run(
    run_id: str, trigger: str | None, effect: str | None = None, *, seq: int = 0, signals: int = 0, dropped: int = 0
) -> list[str]:
    ended = f"'{trigger}'" if trigger else "NULL"
    counted = f"'{effect}', {seq}" if effect else "NULL, NULL"
    statements = [
        "INSERT INTO runs (run_id, bucket, agent_id, agent_version, started_at, first_day, last_day, start_day, "
        "start_hour, last_received_at, event_count, judged_event_count, total_tokens, signal_count, dropped_events, "
        f"trigger, issue_effect, effect_seq) VALUES ('{run_id}', 0, 'agent', 'v1', 1777888800, {_DAY}, {_DAY}, {_DAY}, "
        f"{_HOUR}, {_HOUR}, 2, 2, 100, {signals}, {dropped}, {ended}, {counted})",
        event(run_id, 0, 1777888800.0),
        event(run_id, 1, 1777888801.0),
    ]
    if trigger:
        statements.append(
            "INSERT INTO processed_runs (run_id, agent_id, agent_version, signal_count, trigger) "
            f"VALUES ('{run_id}', 'agent', 'v1', {signals}, '{trigger}')"
        )
    return statements


def _signal(run_id: str, failure_type: str, *, shadow: bool) -> str:
    alerted, fanned_out = ("FALSE", "NULL") if shadow else ("TRUE", _FOUND)
    return (
        "INSERT INTO failure_signals (failure_type, severity, run_id, agent_id, agent_version, step_index, confidence, "
        "evidence, detected_at, shadow, alerted, fanned_out_at) VALUES "
        f"('{failure_type}', 'HIGH', '{run_id}', 'agent', 'v1', 1, 0.9, '{{}}'::jsonb, {_FOUND}, {shadow}, {alerted}, "
        f"{fanned_out})"
    )
