"""What a poller has to look at: runs with news, runs whose time has come, and the events it has not folded yet."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date
from itertools import groupby
from operator import itemgetter
from typing import TYPE_CHECKING, Any, NamedTuple

from dunetrace.events import Event
from dunetrace.store.columns import columns

if TYPE_CHECKING:
    from dunetrace.store.gateway import Connection

MAX_TOUCHES = 1_000
MAX_DUE = 500
MAX_EVENTS = 50_000  # events of one pass in memory; a larger run is taken alone
BASELINE_RUNS = 50

_EVENT_WIDTH = len(Event._fields)

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
    rows: list[Any] = field(default_factory=list)  # of its events, as they are folded; see `events`
    last_id: int = 0  # the highest id among them

    def events(self) -> Iterator[Event]:
        """The events, once: whoever folds them lets go of the rows, and does both where it takes nobody's time."""
        rows, self.rows = self.rows, []
        return (Event._make(row[:_EVENT_WIDTH]) for row in rows)


class Work(NamedTuple):
    """`now` is Postgres's clock, `next_due` when the next run's time comes (Unix seconds); `more`: work is left."""

    now: float
    cases: list[Case]
    next_due: float | None
    more: bool


# What judging goes on from, and what the totals held of the run before.
_RUN_COLUMNS = (
    "r.customer_id, r.run_id, r.bucket, r.agent_id, r.agent_version, r.start_hour, r.first_day, r.last_day, "
    "r.event_count, r.judged_event_count, r.total_tokens, r.signal_count, r.trigger, r.due_at, r.processed_at, "
    "r.attempts, r.parked_error, r.issue_effect, r.effect_seq"
)


async def take(conn: Connection, buckets: list[int], folded: Callable[[RunKey], Folded | None]) -> Work:
    """Read the next pass of work in `buckets`. Changes nothing: the judging transaction deletes the touches."""
    # One snapshot, so that a run's touches say exactly which of its events can be read.
    await conn.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
    touches = await _touches(conn, buckets)
    due = await conn.fetch(
        f"SELECT {_RUN_COLUMNS} FROM runs r WHERE bucket = ANY($1::smallint[]) AND due_at <= now() "  # noqa: S608
        "ORDER BY due_at LIMIT $2",
        buckets, MAX_DUE,
    )  # fmt: skip
    # Bucket by bucket, as the index is: else every run that goes on would be looked at for the first of them.
    (clock,) = await conn.fetch(
        "SELECT date_part('epoch', now()) AS now, date_part('epoch', min(d.due_at)) AS next_due "
        "FROM unnest($1::smallint[]) AS k (bucket), LATERAL (SELECT r.due_at FROM runs r "
        "WHERE r.bucket = k.bucket AND r.due_at > now() ORDER BY r.due_at LIMIT 1) d",
        buckets,
    )
    cases = await _cases(conn, touches, due)
    chosen = _within_budget(cases, folded)
    await _load_signals(conn, chosen)
    await _load_events(conn, chosen, folded)
    by_bucket = Counter(touch["bucket"] for touch in touches)
    full = max(by_bucket.values(), default=0) >= _share(buckets)
    more = full or len(due) == MAX_DUE or len(chosen) < len(cases)
    return Work(clock["now"], chosen, clock["next_due"], more)


class BaselineKey(NamedTuple):
    """Whose latest runs a run is compared with; `run_id` is the run itself where it may be among them, else ""."""

    customer_id: str
    agent_id: str
    agent_version: str
    task_hash: str
    run_id: str


async def baselines(conn: Connection, keys: Iterable[BaselineKey]) -> dict[BaselineKey, tuple[int, ...]]:
    """The step counts of the latest completed runs without live signals, newest first."""
    wanted = sorted(set(keys))
    rows = await conn.fetch(
        "SELECT ARRAY(SELECT r.step_count FROM runs r WHERE r.customer_id = k.customer_id AND r.agent_id = k.agent_id "
        "AND r.agent_version = k.agent_version AND r.task_hash = k.task_hash AND r.trigger = 'run.completed' "
        "AND r.signal_count = 0 AND r.dropped_events = 0 AND r.run_id <> k.run_id "
        "ORDER BY r.processed_at DESC LIMIT $6) AS steps "
        "FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[]) WITH ORDINALITY "
        "AS k (customer_id, agent_id, agent_version, task_hash, run_id, place) ORDER BY k.place",
        *columns(wanted, 5), BASELINE_RUNS,
    )  # fmt: skip
    return {key: tuple(row["steps"]) for key, row in zip(wanted, rows, strict=True)}


async def unseen_agents(conn: Connection, agent_ids: list[str]) -> list[str]:
    """Those of `agent_ids` under which no run of any customer was ever judged."""
    rows = await conn.fetch(
        "SELECT n FROM unnest($1::text[]) AS n WHERE NOT EXISTS (SELECT FROM agents WHERE agent_id = n) ORDER BY n",
        agent_ids,
    )
    return [row["n"] for row in rows]


async def _touches(conn: Connection, buckets: list[int]) -> list[Any]:
    """Of the runs with the oldest touches of each bucket, all the touches: what waits longer is done in fewer looks."""
    return await conn.fetch(
        "SELECT t.id, t.customer_id, t.run_id, t.bucket, t.n, t.first_day, t.last_day FROM run_touches t "
        "JOIN (SELECT DISTINCT o.run_id, o.customer_id FROM unnest($1::smallint[]) AS k (bucket), LATERAL ("
        "SELECT run_id, customer_id FROM run_touches WHERE bucket = k.bucket ORDER BY id LIMIT $2) o) r "
        "USING (run_id, customer_id) ORDER BY t.id",
        buckets, _share(buckets),
    )  # fmt: skip


def _share(buckets: list[int]) -> int:
    """How many touches of one bucket a pass begins with."""
    return -(-MAX_TOUCHES // len(buckets))


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
    held = {case.key: folded(case.key) for case in cases}
    for case in cases:
        case.rebuilt = held[case.key] is None
    news = [case for case in cases if (at := held[case.key]) is None or at.event_count < case.announced]
    await fetch_events(conn, news, [at.last_id if (at := held[case.key]) else 0 for case in news])
    broken = [case for case in news if (at := held[case.key]) is not None and not _goes_on(case, at)]
    for case in broken:
        case.rebuilt, case.rows = True, []
    await fetch_events(conn, broken, [0] * len(broken))


def _goes_on(case: Case, at: Folded) -> bool:
    """Whether what came is all that was announced, and nothing of it belongs before the end of what was folded.

    Else (a restart, disorder, a gap in commit order) the run is built anew.
    """
    if at.event_count + len(case.rows) != case.announced:
        return False
    return not case.rows or (case.rows[0]["timestamp"], case.rows[0]["step_index"]) >= at.last_order


async def fetch_events(conn: Connection, cases: list[Case], after_ids: list[int]) -> None:
    """Give each case its events in order, those with a larger id than its one of `after_ids`."""
    if not cases:
        return
    rows = await conn.fetch(
        "SELECT e.event_type, e.run_id, e.agent_id, e.agent_version, e.step_index, e.timestamp, e.payload, "
        "e.parent_run_id, date_part('epoch', e.received_at) AS received_at, e.id, k.place FROM events e "
        "JOIN unnest($1::text[], $2::text[], $3::bigint[], $4::date[], $5::date[]) WITH ORDINALITY "
        "AS k (customer_id, run_id, after_id, first_day, last_day, place) ON e.run_id = k.run_id "
        "AND e.customer_id = k.customer_id AND e.day BETWEEN k.first_day AND k.last_day AND e.id > k.after_id "
        "ORDER BY k.place, e.timestamp, e.step_index, e.id",
        *_keys(cases), after_ids, [case.first_day for case in cases], [case.last_day for case in cases],
    )  # fmt: skip
    for place, of_case in groupby(rows, key=itemgetter("place")):
        case = cases[place - 1]
        case.rows = list(of_case)
        case.last_id = max(row["id"] for row in case.rows)


def _keys(cases: list[Case]) -> tuple[list[str], list[str]]:
    return [case.key[0] for case in cases], [case.key[1] for case in cases]
