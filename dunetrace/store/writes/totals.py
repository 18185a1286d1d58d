"""The totals part of the judging transaction: the differences that `dunetrace.totals` computes, added to the rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from dunetrace import totals
from dunetrace.store.columns import columns

if TYPE_CHECKING:
    from dunetrace.judgements import Judgement
    from dunetrace.store.gateway import Connection
    from dunetrace.store.writes.signals import Change


async def add(conn: Connection, judgements: Sequence[Judgement], changes: list[Change], at: datetime) -> None:
    """Agents first: their row locks put all judging of one agent in one order, which is the order issues count in."""
    seen: dict[tuple[str, str], list[Any]] = {}
    for judgement in judgements:
        run = judgement.run
        agent = seen.setdefault((run["customer_id"], run["agent_id"]), [at, run["last_received_at"]])
        agent[1] = max(agent[1], run["last_received_at"])
    hours = totals.difference((judgement.run, judgement.case.row) for judgement in judgements)
    agents: Counter[tuple[str, str]] = Counter()
    for hour, added in hours.items():
        agents[hour.customer_id, hour.agent_id] += added.runs
    keys = sorted({*seen, *agents})
    await conn.execute(
        "INSERT INTO agents AS a (customer_id, agent_id, first_seen, last_seen, run_count) "
        "SELECT * FROM unnest($1::text[], $2::text[], $3::timestamptz[], $4::timestamptz[], $5::bigint[]) "
        "ON CONFLICT (customer_id, agent_id) DO UPDATE SET run_count = a.run_count + excluded.run_count, "
        "last_seen = greatest(a.last_seen, excluded.last_seen)",
        *columns([(*key, *seen.get(key, [at, at]), agents[key]) for key in keys], 5),
    )
    await conn.execute(
        "INSERT INTO agent_hours AS h (customer_id, agent_id, agent_version, hour, run_count, total_tokens) "
        "SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::timestamptz[], $5::bigint[], $6::bigint[]) "
        "ON CONFLICT (customer_id, agent_id, hour, agent_version) DO UPDATE SET "
        "run_count = h.run_count + excluded.run_count, total_tokens = h.total_tokens + excluded.total_tokens",
        *columns([(*hour, *hours[hour]) for hour in sorted(hours)], 6),
    )
    await _add_signal_hours(conn, changes)


async def _add_signal_hours(conn: Connection, changes: list[Change]) -> None:
    """Live signals that are new, or that moved to a higher severity: out of the old one's count, into the new one's."""
    moved = [change for change in changes if change.inserted or change.rises]
    if not moved:
        return
    rows = await conn.fetch(
        "SELECT s.customer_id, s.run_id, s.failure_type, s.agent_id, s.agent_version, s.severity, s.detected_at "
        "FROM failure_signals s "
        "JOIN unnest($1::text[], $2::text[], $3::text[]) AS k (customer_id, run_id, failure_type) "
        "ON s.run_id = k.run_id AND s.customer_id = k.customer_id AND s.failure_type = k.failure_type "
        "WHERE NOT s.shadow",
        *columns([(c.judgement.case.key[0], c.signal.run_id, c.signal.failure_type.value) for c in moved], 3),
    )
    by_key = {(c.judgement.case.key, c.signal.failure_type.value): c for c in moved}
    counts: Counter[totals.SignalHour] = Counter()
    for row in rows:
        change = by_key[(row["customer_id"], row["run_id"]), row["failure_type"]]
        now = totals.SignalHour(
            row["customer_id"], row["agent_id"], row["agent_version"], row["failure_type"], row["severity"],
            totals.hour_of(row["detected_at"]),
        )  # fmt: skip
        counts[now] += 1
        if not change.inserted:
            counts[now._replace(severity=change.judgement.case.signals[row["failure_type"]].severity)] -= 1
    await conn.execute(
        "INSERT INTO signal_hours AS h "
        "(customer_id, agent_id, agent_version, failure_type, severity, hour, signal_count) SELECT * FROM unnest("
        "$1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::timestamptz[], $7::bigint[]) "
        "ON CONFLICT (customer_id, agent_id, hour, failure_type, severity, agent_version) DO UPDATE SET "
        "signal_count = h.signal_count + excluded.signal_count",
        *columns([(*key, counts[key]) for key in sorted(counts) if counts[key]], 7),
    )
