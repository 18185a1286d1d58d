"""The judging transaction: what was found of some runs, and everything that follows from it, all of it or nothing."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from operator import itemgetter
from typing import TYPE_CHECKING, NamedTuple
from uuid import UUID

from dunetrace.errors import LeaseLostError
from dunetrace.store.columns import columns
from dunetrace.store.writes import issues, leases, signals, totals

if TYPE_CHECKING:
    from dunetrace.judgements import Judgement
    from dunetrace.store.gateway import Connection

# column → SQL type, in the order they are written
_RUN_COLUMNS = {
    "run_id": "text", "customer_id": "text", "bucket": "smallint", "agent_id": "text", "agent_version": "text",
    "task_hash": "text", "parent_run_id": "text", "input_hash": "text", "started_at": "float8", "ended_at": "float8",
    "first_day": "date", "last_day": "date", "start_day": "date", "start_hour": "timestamptz",
    "last_received_at": "timestamptz", "event_count": "bigint", "judged_event_count": "bigint", "step_count": "int",
    "llm_calls": "int", "tool_calls": "int", "first_tool_step": "int", "total_tokens": "bigint", "token_mix": "jsonb",
    "dropped_events": "bigint", "signal_count": "int", "trigger": "text", "due_at": "timestamptz",
    "processed_at": "timestamptz", "attempts": "smallint", "parked_error": "text", "issue_effect": "text",
    "effect_seq": "bigint",
}  # fmt: skip
_run_values = itemgetter(*_RUN_COLUMNS)
_RUN_UPSERT = (
    f"INSERT INTO runs ({', '.join(_RUN_COLUMNS)}) SELECT * FROM unnest("  # noqa: S608
    + ", ".join(f"${n}::{sql_type}[]" for n, sql_type in enumerate(_RUN_COLUMNS.values(), 1))
    + ") ON CONFLICT (run_id, customer_id) DO UPDATE SET "
    + ", ".join(f"{name} = excluded.{name}" for name in list(_RUN_COLUMNS)[2:])
)


class Committed(NamedTuple):
    """`fresh` = new signals, signals whose severity rose and issues that were resolved: the dispatcher's debts."""

    fresh: int


async def commit(conn: Connection, holder: UUID, epochs: dict[int, int], judgements: Sequence[Judgement]) -> Committed:
    """Write `judgements` in one transaction: signals, issues, totals, runs, processed marks; and delete their touches.

    `epochs` are the leases of the buckets they were read under; LeaseLostError when one of them is no longer ours.
    Rows that many runs share (agents, issues, hours) come last and in key order, so that they are locked for
    milliseconds and never in a circle.
    """
    if not await leases.still_held(conn, holder, epochs):
        raise LeaseLostError
    at: datetime = await conn.fetchval("SELECT now()")
    changes = await signals.write(conn, judgements, at)
    await _delete_touches(conn, judgements)
    await totals.add(conn, judgements, changes, at)
    resolved = await issues.apply(conn, judgements, changes, at)
    await _write_runs(conn, judgements)
    risen = sum(1 for change in changes if not change.signal.shadow and (change.inserted or change.rises))
    return Committed(risen + resolved)


async def _delete_touches(conn: Connection, judgements: Sequence[Judgement]) -> None:
    pairs = [(judgement.case.key[1], touch_id) for judgement in judgements for touch_id in judgement.case.touch_ids]
    await conn.execute(
        "DELETE FROM run_touches t USING unnest($1::text[], $2::bigint[]) AS k (run_id, id) "
        "WHERE t.run_id = k.run_id AND t.id = k.id",
        *columns(pairs, 2),
    )


async def _write_runs(conn: Connection, judgements: Sequence[Judgement]) -> None:
    runs = sorted((judgement.run for judgement in judgements), key=lambda run: (run["run_id"], run["customer_id"]))
    await conn.execute(_RUN_UPSERT, *columns(map(_run_values, runs), len(_RUN_COLUMNS)))
    processed = [
        (
            run["run_id"], run["customer_id"], run["agent_id"], run["agent_version"], run["processed_at"],
            run["signal_count"], run["trigger"],
        )
        for run in runs
        if run["trigger"] is not None
    ]  # fmt: skip
    if not processed:
        return
    await conn.execute(
        "INSERT INTO processed_runs "
        "(run_id, customer_id, agent_id, agent_version, processed_at, signal_count, trigger) SELECT * FROM unnest("
        "$1::text[], $2::text[], $3::text[], $4::text[], $5::timestamptz[], $6::int[], $7::text[]) "
        "ON CONFLICT (run_id, customer_id) DO UPDATE SET agent_id = excluded.agent_id, "
        "agent_version = excluded.agent_version, processed_at = excluded.processed_at, "
        "signal_count = excluded.signal_count, trigger = excluded.trigger",
        *columns(processed, 7),
    )
