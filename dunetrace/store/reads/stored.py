"""Runs that are stored, page by page with all their events, as the backtest judges them anew. Writes nothing."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any, NamedTuple

from dunetrace.store.reads.work import BASELINE_RUNS, MAX_EVENTS, Case, fetch_events

if TYPE_CHECKING:
    from dunetrace.store.gateway import Connection
    from dunetrace.store.reads.scope import Scope

MOST_RUNS = 200  # of a page


class Place(NamedTuple):
    """Where the next page begins: after this run."""

    started_at: float
    run_id: str


class Stored(NamedTuple):
    """A run with its events. `usual_steps` are what its step count was compared with when it was judged."""

    case: Case
    last_received_at: datetime
    usual_steps: tuple[int, ...]


class Page(NamedTuple):
    """Runs, oldest first; `after` is None behind the last. `now` is Postgres's clock, Unix seconds."""

    runs: list[Stored]
    after: Place | None
    now: float


async def page(conn: Connection, scope: Scope, agent_id: str, place: Place) -> Page:
    """The agent's next runs behind `place`: at most `MOST_RUNS`, and no more than `MAX_EVENTS` events, but for a single
    run that has more.
    """
    rows = await conn.fetch(
        """
        SELECT r.run_id, r.customer_id, r.bucket, r.started_at, r.first_day, r.last_day, r.event_count,
               r.last_received_at, date_part('epoch', now()) AS now,
               ARRAY(SELECT b.step_count FROM runs b WHERE b.customer_id = r.customer_id AND b.agent_id = r.agent_id
                     AND b.agent_version = r.agent_version AND b.task_hash = r.task_hash
                     AND b.trigger = 'run.completed' AND b.signal_count = 0 AND b.dropped_events = 0
                     AND b.run_id <> r.run_id AND b.processed_at < coalesce(r.processed_at, 'infinity')
                     ORDER BY b.processed_at DESC LIMIT $6) AS usual_steps
        FROM runs r
        WHERE r.customer_id = $1 AND r.agent_id = $2 AND ($3::text[] IS NULL OR r.agent_id = ANY($3))
          AND (r.started_at, r.run_id) > ($4, $5)
        ORDER BY r.started_at, r.run_id LIMIT $7
        """,
        scope.customer_id, agent_id, scope.agent_list, place.started_at, place.run_id, BASELINE_RUNS, MOST_RUNS,
    )  # fmt: skip
    chosen: list[Any] = []
    events = 0
    for row in rows:
        events += row["event_count"]
        if chosen and events > MAX_EVENTS:
            break
        chosen.append(row)
    cases = [
        Case(
            (row["customer_id"], row["run_id"]),
            row["bucket"],
            row,
            first_day=row["first_day"],
            last_day=row["last_day"],
        )
        for row in chosen
    ]
    await fetch_events(conn, cases, [0] * len(cases))
    last = chosen[-1] if chosen else None
    whole = len(chosen) == len(rows) < MOST_RUNS
    return Page(
        [
            Stored(case, row["last_received_at"], tuple(row["usual_steps"]))
            for case, row in zip(cases, chosen, strict=True)
        ],
        None if last is None or whole else Place(last["started_at"], last["run_id"]),
        rows[0]["now"] if rows else 0.0,
    )


async def agents(conn: Connection, scope: Scope) -> list[str]:
    """The names of the customer's agents, for whoever misspelt one."""
    rows = await conn.fetch(
        "SELECT agent_id FROM agents WHERE customer_id = $1 AND ($2::text[] IS NULL OR agent_id = ANY($2)) "
        "ORDER BY agent_id",
        scope.customer_id, scope.agent_list,
    )  # fmt: skip
    return [row["agent_id"] for row in rows]
