"""What a poller has to look at: runs with news, runs whose time has come, and the events it has not folded yet."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import date
from typing import TYPE_CHECKING, Any, NamedTuple

from dunetrace.store.columns import columns

if TYPE_CHECKING:
    from dunetrace.store.gateway import Connection

MAX_TOUCHES = 500
MAX_DUE = 500
MAX_EVENTS = 50_000  # events of one pass in memory; a larger run is taken alone
BASELINE_RUNS = 50

RunKey = tuple[str, str]  # customer_id, run_id


class StoredSignal(NamedTuple):
    failure_type: str
    severity: str
    confidence: float
    evidence: dict[str, Any]
    shadow: bool


class Folded(NamedTuple):
    """How far a cached RunState got: events folded, the last row id, the last (timestamp, step_index)."""

    event_count: int
    last_id: int
    last_order: tuple[float, int]


@dataclass(slots=True)
class Case:
    """One run in hand. `row` is its row of ``runs`` (None = first seen now)."""

    key: RunKey
    bucket: int
    row: Mapping[str, Any] | None
    announced: int = 0  # events announced by all touches so far, those in hand included
    first_day: date = date.max
    last_day: date = date.min
    touch_ids: list[int] = field(default_factory=list)
    signals: dict[str, StoredSignal] = field(default_factory=dict)
    rebuilt: bool = False  # `events` are all of the run's, not just those after what was folded
    events: list[Any] = field(default_factory=list)


class Work(NamedTuple):
    """`now` is Postgres's clock, `next_due` when the next run's time comes (Unix seconds); `more`: work is left."""

    now: float
    cases: list[Case]
    next_due: float | None
    more: bool


_RUN_COLUMNS = "r.*, extract(epoch FROM r.last_received_at)::float8 AS last_received_s"


async def take(conn: Connection, buckets: list[int], folded: Callable[[RunKey], Folded | None]) -> Work:
    """Read the next pass of work in `buckets`. Changes nothing: the judging transaction deletes the touches."""
    now = float(await conn.fetchval("SELECT extract(epoch FROM now())::float8"))
    touches = await conn.fetch(
        "SELECT id, customer_id, run_id, bucket, n, first_day, last_day FROM run_touches "
        "WHERE bucket = ANY($1::smallint[]) ORDER BY id LIMIT $2",
        buckets, MAX_TOUCHES,
    )  # fmt: skip
    due = await conn.fetch(
        f"SELECT {_RUN_COLUMNS} FROM runs r WHERE bucket = ANY($1::smallint[]) AND due_at <= now() "  # noqa: S608
        "ORDER BY due_at LIMIT $2",
        buckets, MAX_DUE,
    )  # fmt: skip
    next_due = await conn.fetchval(
        "SELECT extract(epoch FROM min(due_at))::float8 FROM runs "
        "WHERE bucket = ANY($1::smallint[]) AND due_at > now()",
        buckets,
    )
    cases = await _cases(conn, touches, due)
    chosen = _within_budget(cases, folded)
    await _load_signals(conn, chosen)
    await _load_events(conn, chosen, folded)
    more = len(touches) == MAX_TOUCHES or len(due) == MAX_DUE or len(chosen) < len(cases)
    return Work(now, chosen, next_due, more)


async def baselines(conn: Connection, keys: Iterable[tuple[str, str, str, str]]) -> dict[tuple[str, ...], list[Any]]:
    """(customer, agent, version, task_hash) → [(run_id, step_count)] of its latest completed runs without live signals.

    One more than a baseline's 50, because the run that asks may be among them.
    """
    wanted = sorted(set(keys))
    rows = await conn.fetch(
        "SELECT k.*, b.run_id, b.step_count FROM unnest($1::text[], $2::text[], $3::text[], $4::text[]) "
        "AS k (customer_id, agent_id, agent_version, task_hash), LATERAL ("
        "SELECT r.run_id, r.step_count FROM runs r WHERE r.customer_id = k.customer_id AND r.agent_id = k.agent_id "
        "AND r.agent_version = k.agent_version AND r.task_hash = k.task_hash AND r.trigger = 'run.completed' "
        "AND r.signal_count = 0 AND r.dropped_events = 0 ORDER BY r.processed_at DESC LIMIT $5) b",
        *columns(wanted, 4), BASELINE_RUNS + 1,
    )  # fmt: skip
    found: dict[tuple[str, ...], list[Any]] = defaultdict(list)
    for row in rows:
        key = (row["customer_id"], row["agent_id"], row["agent_version"], row["task_hash"])
        found[key].append((row["run_id"], row["step_count"]))
    return found


async def unseen_agents(conn: Connection, agent_ids: list[str]) -> list[str]:
    """Those of `agent_ids` under which no run of any customer was ever judged."""
    rows = await conn.fetch(
        "SELECT n FROM unnest($1::text[]) AS n WHERE NOT EXISTS (SELECT FROM agents WHERE agent_id = n) ORDER BY n",
        agent_ids,
    )
    return [row["n"] for row in rows]


async def _cases(conn: Connection, touches: list[Any], due: list[Any]) -> list[Case]:
    cases: dict[RunKey, Case] = {}
    for touch in touches:
        key = (touch["customer_id"], touch["run_id"])
        case = cases.setdefault(key, Case(key, touch["bucket"], None))
        case.announced += touch["n"]
        case.touch_ids.append(touch["id"])
        case.first_day = min(case.first_day, touch["first_day"])
        case.last_day = max(case.last_day, touch["last_day"])
    known = await conn.fetch(
        f"SELECT {_RUN_COLUMNS} FROM runs r JOIN unnest($1::text[], $2::text[]) AS k (customer_id, run_id) "  # noqa: S608
        "ON r.run_id = k.run_id AND r.customer_id = k.customer_id",
        [customer_id for customer_id, _ in cases], [run_id for _, run_id in cases],
    )  # fmt: skip
    for row in (*known, *due):
        key = (row["customer_id"], row["run_id"])
        case = cases.setdefault(key, Case(key, row["bucket"], None))
        if case.row is None:
            case.row = row
            case.announced += row["event_count"]
            case.first_day = min(case.first_day, row["first_day"])
            case.last_day = max(case.last_day, row["last_day"])
    return list(cases.values())


def _within_budget(cases: list[Case], folded: Callable[[RunKey], Folded | None]) -> list[Case]:
    chosen: list[Case] = []
    events = 0
    for case in cases:
        at = folded(case.key)
        events += max(0, case.announced - (at.event_count if at else 0))
        if chosen and events > MAX_EVENTS:
            break
        chosen.append(case)
    return chosen


async def _load_signals(conn: Connection, cases: list[Case]) -> None:
    by_key = {case.key: case for case in cases}
    rows = await conn.fetch(
        "SELECT s.customer_id, s.run_id, failure_type, severity, confidence, evidence, shadow FROM failure_signals s "
        "JOIN unnest($1::text[], $2::text[]) AS k (customer_id, run_id) "
        "ON s.run_id = k.run_id AND s.customer_id = k.customer_id",
        *_keys(cases),
    )
    for row in rows:
        case = by_key[row["customer_id"], row["run_id"]]
        case.signals[row["failure_type"]] = StoredSignal(*tuple(row)[2:])


async def _load_events(conn: Connection, cases: list[Case], folded: Callable[[RunKey], Folded | None]) -> None:
    """New events of runs whose cached state can be trusted to go on, all events of the others."""
    whole: list[Case] = []
    onward: list[Case] = []
    for case in cases:
        at = folded(case.key)
        if at is None:
            whole.append(case)
        elif at.event_count < case.announced:
            onward.append(case)
    positions = {case.key: folded(case.key) for case in onward}
    await _fetch_events(conn, onward, [at.last_id if at else 0 for at in positions.values()])
    for case in onward:
        at = positions[case.key]
        first = (case.events[0]["timestamp"], case.events[0]["step_index"]) if case.events else (0.0, 0)
        # A cached state goes on only if what came is all that was announced and nothing of it belongs before its end.
        # Else (a restart, disorder, a gap in commit order) the run is built anew.
        if at is None or at.event_count + len(case.events) != case.announced or first < at.last_order:
            case.events = []
            whole.append(case)
    for case in whole:
        case.rebuilt = True
    await _fetch_events(conn, whole, [0] * len(whole))


async def _fetch_events(conn: Connection, cases: list[Case], after_ids: list[int]) -> None:
    if not cases:
        return
    by_key = {case.key: case for case in cases}
    rows = await conn.fetch(
        "SELECT e.id, e.customer_id, e.run_id, e.event_type, e.agent_id, e.agent_version, e.step_index, e.timestamp, "
        "e.payload, e.parent_run_id, extract(epoch FROM e.received_at)::float8 AS received_s FROM events e "
        "JOIN unnest($1::text[], $2::text[], $3::bigint[], $4::date[], $5::date[]) "
        "AS k (customer_id, run_id, after_id, first_day, last_day) ON e.run_id = k.run_id "
        "AND e.customer_id = k.customer_id AND e.day BETWEEN k.first_day AND k.last_day AND e.id > k.after_id "
        "ORDER BY e.run_id, e.timestamp, e.step_index, e.id",
        *_keys(cases), after_ids, [case.first_day for case in cases], [case.last_day for case in cases],
    )  # fmt: skip
    for row in rows:
        by_key[row["customer_id"], row["run_id"]].events.append(row)


def _keys(cases: list[Case]) -> tuple[list[str], list[str]]:
    return [case.key[0] for case in cases], [case.key[1] for case in cases]
