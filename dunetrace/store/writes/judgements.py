"""The judging transaction: what was found of some runs, and everything that follows from it, all of it or nothing."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NamedTuple
from uuid import UUID

from dunetrace import totals
from dunetrace.errors import LeaseLostError
from dunetrace.issues import IssueState, affected, clean
from dunetrace.signals import FailureSignal, Severity
from dunetrace.store.writes import leases

if TYPE_CHECKING:
    from dunetrace.judgements import Judgement
    from dunetrace.store.gateway import Connection

# column → SQL type, in the order they are written
_RUN_COLUMNS = {
    "run_id": "text", "customer_id": "text", "bucket": "smallint", "agent_id": "text", "agent_version": "text",
    "task_hash": "text", "parent_run_id": "text", "input_hash": "text", "started_at": "float8", "ended_at": "float8",
    "first_day": "date", "last_day": "date", "start_day": "date", "start_hour": "timestamptz",
    "last_received_at": "timestamptz", "event_count": "bigint", "judged_event_count": "bigint", "step_count": "int",
    "llm_calls": "int", "tool_calls": "int", "first_tool_step": "int", "total_tokens": "bigint",
    "dropped_events": "bigint", "signal_count": "int", "trigger": "text", "due_at": "timestamptz",
    "processed_at": "timestamptz", "attempts": "smallint", "parked_error": "text", "issue_effect": "text",
    "effect_seq": "bigint",
}  # fmt: skip
_RUN_UPSERT = (
    f"INSERT INTO runs ({', '.join(_RUN_COLUMNS)}) SELECT * FROM unnest("  # noqa: S608
    + ", ".join(f"${n}::{sql_type}[]" for n, sql_type in enumerate(_RUN_COLUMNS.values(), 1))
    + ") ON CONFLICT (run_id, customer_id) DO UPDATE SET "
    + ", ".join(f"{name} = excluded.{name}" for name in list(_RUN_COLUMNS)[2:])
)


class Committed(NamedTuple):
    """`fresh` = new signals and signals whose severity rose: the dispatcher owes them deliveries."""

    fresh: int


class _Change(NamedTuple):
    """One stored signal of a judgement."""

    judgement: Judgement
    signal: FailureSignal
    inserted: bool


async def commit(conn: Connection, holder: UUID, epochs: dict[int, int], judgements: Sequence[Judgement]) -> Committed:
    """Write `judgements` in one transaction: signals, issues, totals, runs, processed marks; and delete their touches.

    `epochs` are the leases of the buckets they were read under; LeaseLostError when one of them is no longer ours.
    Rows that many runs share (agents, issues, hours) come last and in key order, so that they are locked for
    milliseconds and never in a circle.
    """
    if not await leases.still_held(conn, holder, epochs):
        raise LeaseLostError
    at: datetime = await conn.fetchval("SELECT now()")
    changes = await _write_signals(conn, judgements, at)
    await _delete_touches(conn, judgements)
    await _add_totals(conn, judgements, changes, at)
    await _apply_issues(conn, judgements, changes, at)
    await _write_runs(conn, judgements)
    risen = sum(1 for change in changes if not change.signal.shadow and (change.inserted or _rises(change)))
    return Committed(risen)


async def _write_signals(conn: Connection, judgements: Sequence[Judgement], at: datetime) -> list[_Change]:
    pairs = [(judgement, signal) for judgement in judgements for signal in judgement.signals]
    changes = []
    inserts = []
    for judgement, signal in pairs:
        stored = judgement.case.signals.get(signal.failure_type)
        change = _Change(judgement, signal, stored is None)
        changes.append(change)
        values = (
            judgement.case.key[0], signal.run_id, signal.failure_type.value, signal.severity.value, signal.agent_id,
            signal.agent_version, signal.step_index, signal.confidence, signal.evidence, signal.shadow,
            judgement.in_flight,
        )  # fmt: skip
        inserts.append(values)
    # A severity only rises, and one that did is due at the dispatcher again: it makes just the missing deliveries.
    # One statement, as everywhere here: a host that freezes between two messages of a pipeline (executemany) never
    # counts as idle in Postgres, which would keep its locks, those on the leases too.
    await conn.execute(
        "INSERT INTO failure_signals AS s (customer_id, run_id, failure_type, severity, agent_id, agent_version, "
        "step_index, confidence, evidence, shadow, in_flight, detected_at, updated_at) "
        "SELECT k.*, $12, $12 FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], "
        "$7::int[], $8::real[], $9::jsonb[], $10::bool[], $11::bool[]) AS k "
        "ON CONFLICT (run_id, customer_id, failure_type) DO UPDATE SET evidence = excluded.evidence, "
        "confidence = excluded.confidence, updated_at = excluded.updated_at, "
        "severity = CASE WHEN severity_rank(excluded.severity) > severity_rank(s.severity) "
        "THEN excluded.severity ELSE s.severity END, "
        "fanned_out_at = CASE WHEN severity_rank(excluded.severity) > severity_rank(s.severity) "
        "THEN NULL ELSE s.fanned_out_at END",
        *_columns(inserts, 11), at,
    )  # fmt: skip
    return changes


async def _delete_touches(conn: Connection, judgements: Sequence[Judgement]) -> None:
    pairs = [(judgement.case.key[1], touch_id) for judgement in judgements for touch_id in judgement.case.touch_ids]
    await conn.execute(
        "DELETE FROM run_touches t USING unnest($1::text[], $2::bigint[]) AS k (run_id, id) "
        "WHERE t.run_id = k.run_id AND t.id = k.id",
        *_columns(pairs, 2),
    )


async def _add_totals(conn: Connection, judgements: Sequence[Judgement], changes: list[_Change], at: datetime) -> None:
    """Agents first: their row locks put all judging of one agent in one order, which is the order issues count in."""
    seen: dict[tuple[str, str], list[Any]] = {}
    runs: Counter[totals.AgentHour] = Counter()
    tokens: Counter[totals.AgentHour] = Counter()
    for judgement in judgements:
        run, before = judgement.run, judgement.case.row
        agent = seen.setdefault((run["customer_id"], run["agent_id"]), [at, run["last_received_at"]])
        agent[1] = max(agent[1], run["last_received_at"])
        runs.update(totals.difference(totals.runs_of(run), totals.runs_of(before)))
        tokens.update(totals.difference(totals.tokens_of(run), totals.tokens_of(before)))
    agents: Counter[tuple[str, str]] = Counter()
    for hour, n in runs.items():
        agents[hour.customer_id, hour.agent_id] += n
    keys = sorted({*seen, *agents})
    await conn.execute(
        "INSERT INTO agents AS a (customer_id, agent_id, first_seen, last_seen, run_count) "
        "SELECT * FROM unnest($1::text[], $2::text[], $3::timestamptz[], $4::timestamptz[], $5::bigint[]) "
        "ON CONFLICT (customer_id, agent_id) DO UPDATE SET run_count = a.run_count + excluded.run_count, "
        "last_seen = greatest(a.last_seen, excluded.last_seen)",
        *_columns([(*key, *seen.get(key, [at, at]), agents[key]) for key in keys], 5),
    )
    hours = sorted(key for key in {*runs, *tokens} if runs[key] or tokens[key])
    await conn.execute(
        "INSERT INTO agent_hours AS h (customer_id, agent_id, agent_version, hour, run_count, total_tokens) "
        "SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::timestamptz[], $5::bigint[], $6::bigint[]) "
        "ON CONFLICT (customer_id, agent_id, hour, agent_version) DO UPDATE SET "
        "run_count = h.run_count + excluded.run_count, total_tokens = h.total_tokens + excluded.total_tokens",
        *_columns([(*key, runs[key], tokens[key]) for key in hours], 6),
    )
    await _add_signal_hours(conn, changes)


async def _add_signal_hours(conn: Connection, changes: list[_Change]) -> None:
    """Live signals that are new, or that moved to a higher severity: out of the old one's count, into the new one's."""
    moved = [change for change in changes if change.inserted or _rises(change)]
    if not moved:
        return
    rows = await conn.fetch(
        "SELECT s.customer_id, s.run_id, s.failure_type, s.agent_id, s.agent_version, s.severity, s.detected_at "
        "FROM failure_signals s "
        "JOIN unnest($1::text[], $2::text[], $3::text[]) AS k (customer_id, run_id, failure_type) "
        "ON s.run_id = k.run_id AND s.customer_id = k.customer_id AND s.failure_type = k.failure_type "
        "WHERE NOT s.shadow",
        *_columns([(c.judgement.case.key[0], c.signal.run_id, c.signal.failure_type.value) for c in moved], 3),
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
        *_columns([(*key, counts[key]) for key in sorted(counts) if counts[key]], 7),
    )


async def _apply_issues(
    conn: Connection, judgements: Sequence[Judgement], changes: list[_Change], at: datetime
) -> None:
    """Each run's effect on its agent's issues, in the order the runs were heard of last, numbered in commit order."""
    first_live: dict[tuple[str, str], list[str]] = defaultdict(list)
    for change in changes:
        if change.inserted and not change.signal.shadow:
            first_live[change.judgement.case.key].append(change.signal.failure_type.value)
    effective = [j for j in judgements if j.counts or first_live[j.case.key]]
    if not effective:
        return
    effective.sort(key=lambda j: (j.run["last_received_at"], j.case.key))
    await _open_missing(conn, effective, first_live, at)
    rows = await conn.fetch(
        "SELECT i.*, extract(epoch FROM i.first_seen)::float8 AS first_s, "
        "extract(epoch FROM i.last_seen)::float8 AS last_s, "
        "extract(epoch FROM i.resolved_at)::float8 AS resolved_s FROM issues i "
        "JOIN (SELECT DISTINCT * FROM unnest($1::text[], $2::text[]) AS u (customer_id, agent_id)) k "
        "USING (customer_id, agent_id) ORDER BY i.id FOR UPDATE OF i",
        *_columns([(j.run["customer_id"], j.run["agent_id"]) for j in effective], 2),
    )
    numbers = await conn.fetch("SELECT nextval('issue_effect_seq') AS n FROM generate_series(1, $1)", len(effective))
    issues: dict[tuple[str, str], dict[str, _Issue]] = defaultdict(dict)
    for row in rows:
        issues[row["customer_id"], row["agent_id"]][row["failure_type"]] = _Issue(row)
    now = at.timestamp()
    for judgement, number in zip(effective, sorted(row["n"] for row in numbers), strict=True):
        mine = issues[judgement.run["customer_id"], judgement.run["agent_id"]]
        for failure_type in first_live[judgement.case.key]:
            mine[failure_type].affect(now, number)
        if judgement.counts:
            judgement.run["effect_seq"] = number
            live = judgement.live_types
            for failure_type, issue in mine.items():
                if failure_type not in live:
                    issue.clean(now)
    await _update_issues(conn, [issue for mine in issues.values() for issue in mine.values() if issue.changed])


class _Issue:
    """An issue's row while a batch is applied to it. A row that was only just opened stands for no state yet."""

    def __init__(self, row: Any) -> None:
        self.id: int = row["id"]
        self.seq: int = row["last_affected_seq"]
        self.changed = False
        self.state = (
            IssueState(
                row["status"], row["first_s"], row["last_s"], row["resolved_s"], row["affected_runs"],
                row["clean_runs_since"],
            )
            if row["affected_runs"]
            else None
        )  # fmt: skip

    def affect(self, at: float, number: int) -> None:
        self.state, self.seq, self.changed = affected(self.state, at), number, True

    def clean(self, at: float) -> None:
        if self.state is not None:
            after = clean(self.state, at)
            self.changed |= after != self.state
            self.state = after


async def _open_missing(
    conn: Connection, judgements: list[Judgement], first_live: dict[tuple[str, str], list[str]], at: datetime
) -> None:
    """Make the rows of issues seen for the first time, so that there is something to lock."""
    wanted = {
        (judgement.run["customer_id"], judgement.run["agent_id"], failure_type)
        for judgement in judgements
        for failure_type in first_live[judgement.case.key]
    }
    await conn.execute(
        "INSERT INTO issues (customer_id, agent_id, failure_type, first_seen, last_seen) "
        "SELECT k.*, $4, $4 FROM unnest($1::text[], $2::text[], $3::text[]) AS k "
        "ON CONFLICT (customer_id, agent_id, failure_type) DO NOTHING",
        *_columns(sorted(wanted), 3), at,
    )  # fmt: skip


async def _update_issues(conn: Connection, issues: list[_Issue]) -> None:
    rows = [
        (
            issue.id, issue.state.status, _moment(issue.state.first_seen), _moment(issue.state.last_seen),
            _moment(issue.state.resolved_at), issue.state.affected_runs, issue.state.clean_runs_since, issue.seq,
        )
        for issue in issues
        if issue.state is not None
    ]  # fmt: skip
    await conn.execute(
        "UPDATE issues i SET status = k.status, first_seen = k.first_seen, last_seen = k.last_seen, "
        "resolved_at = k.resolved_at, affected_runs = k.affected_runs, clean_runs_since = k.clean_runs_since, "
        "last_affected_seq = k.seq FROM unnest($1::bigint[], $2::text[], $3::timestamptz[], $4::timestamptz[], "
        "$5::timestamptz[], $6::int[], $7::int[], $8::bigint[]) "
        "AS k (id, status, first_seen, last_seen, resolved_at, affected_runs, clean_runs_since, seq) WHERE i.id = k.id",
        *_columns(rows, 8),
    )


async def _write_runs(conn: Connection, judgements: Sequence[Judgement]) -> None:
    runs = sorted((judgement.run for judgement in judgements), key=lambda run: (run["run_id"], run["customer_id"]))
    await conn.execute(_RUN_UPSERT, *([run[name] for run in runs] for name in _RUN_COLUMNS))
    processed = [
        (
            run["run_id"], run["customer_id"], run["agent_id"], run["agent_version"], run["processed_at"],
            run["signal_count"], run["trigger"],
        )
        for run in runs
        if run["trigger"] is not None
    ]  # fmt: skip
    await conn.execute(
        "INSERT INTO processed_runs "
        "(run_id, customer_id, agent_id, agent_version, processed_at, signal_count, trigger) SELECT * FROM unnest("
        "$1::text[], $2::text[], $3::text[], $4::text[], $5::timestamptz[], $6::int[], $7::text[]) "
        "ON CONFLICT (run_id, customer_id) DO UPDATE SET agent_id = excluded.agent_id, "
        "agent_version = excluded.agent_version, processed_at = excluded.processed_at, "
        "signal_count = excluded.signal_count, trigger = excluded.trigger",
        *_columns(processed, 7),
    )


def _rises(change: _Change) -> bool:
    stored = change.judgement.case.signals.get(change.signal.failure_type)
    return stored is not None and change.signal.severity.rank > Severity(stored.severity).rank


def _columns(rows: Iterable[Sequence[Any]], width: int) -> list[list[Any]]:
    """Rows as columns, for unnest; `width` empty columns when there are no rows."""
    table = list(rows)
    return [list(column) for column in zip(*table, strict=True)] if table else [[] for _ in range(width)]


def _moment(at: float | None) -> datetime | None:
    return None if at is None else datetime.fromtimestamp(at, UTC)
