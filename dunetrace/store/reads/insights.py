"""What an agent's runs of the last 30 days have in common. Called by the API's routes, one unit of work a request.

Counts of runs come from the totals and from indexes, and only the runs with live signals are read one by one, so that
an agent of a hundred thousand runs is answered within a tenth of a second. Days are UTC days of the run's start.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from datetime import UTC, date, datetime, time, timedelta
from typing import TYPE_CHECKING, Any

from dunetrace.store.reads.paging import Row
from dunetrace.store.reads.rate import SYSTEMIC_RATE, SYSTEMIC_RUNS

if TYPE_CHECKING:
    from dunetrace.store.gateway import Connection
    from dunetrace.store.reads.scope import Scope

DAYS = 30  # today included
SYSTEMIC_DAYS = 7
MAX_VERSIONS = 10
MAX_INPUTS = 20
MAX_DEPLOYS = 50

_RUNS = "r.customer_id = $1 AND r.agent_id = $2 AND ($3::text[] IS NULL OR r.agent_id = ANY($3)) AND r.start_day >= $4"

# A run with a live signal has signal_count > 0, and only those are in the index this names. A signal is found after its
# run's start; clocks may differ by a day.
_HITS = f"""
FROM runs r JOIN failure_signals s ON s.run_id = r.run_id AND s.customer_id = r.customer_id
WHERE {_RUNS} AND r.signal_count > 0
  AND s.customer_id = $1 AND s.agent_id = $2 AND NOT s.shadow AND s.detected_at >= $4::date - 1
"""

_TRENDS = f"""
SELECT r.start_day AS day, s.failure_type, r.agent_version, count(*) AS count {_HITS}
GROUP BY 1, 2, 3 ORDER BY 1, 2, 3
"""

# Ordered before the runs of each input are counted, so that counting stops at the last row wanted.
_INPUTS = f"""
SELECT hit.*, given.total_runs, hit.triggered_count::float8 / given.total_runs AS rate
FROM (SELECT r.input_hash, s.failure_type, count(*) AS triggered_count {_HITS} AND r.input_hash <> ''
      GROUP BY 1, 2 ORDER BY triggered_count DESC, input_hash, failure_type) hit,
     LATERAL (SELECT count(*) AS total_runs FROM runs r WHERE {_RUNS} AND r.input_hash = hit.input_hash) given
WHERE given.total_runs >= 2
ORDER BY hit.triggered_count DESC, hit.input_hash, hit.failure_type LIMIT {MAX_INPUTS}
"""  # noqa: S608 - made of constants

_FIRST_TOOL = f"""
SELECT r.start_day AS day, r.first_tool_step AS step, count(*) AS runs FROM runs r WHERE {_RUNS}
GROUP BY 1, 2 ORDER BY 1, 2
"""  # noqa: S608 - made of constants

_STARTED = """
SELECT agent_version, extract(hour FROM hour AT TIME ZONE 'UTC')::int AS hour_of_day, min(hour) AS first_hour,
       max(hour) AS last_hour, sum(run_count)::bigint AS runs
FROM agent_hours r
WHERE r.customer_id = $1 AND r.agent_id = $2 AND ($3::text[] IS NULL OR r.agent_id = ANY($3)) AND r.hour >= $4
  AND r.run_count > 0
GROUP BY 1, 2
"""

_WITH_SIGNALS = f"""
SELECT r.agent_version, extract(hour FROM r.start_hour AT TIME ZONE 'UTC')::int AS hour_of_day, count(*) AS runs
FROM runs r WHERE {_RUNS} AND r.signal_count > 0
GROUP BY 1, 2
"""  # noqa: S608 - made of constants

# The exact moments within the first and the last hour a version was seen in; the hour itself where clocks disagree.
_SEEN = """
SELECT v.version, coalesce(
    (SELECT started_at FROM runs WHERE customer_id = $1 AND agent_id = $2 AND agent_version = v.version
       AND started_at >= v.first_s AND started_at < v.first_s + 3600 ORDER BY started_at LIMIT 1), v.first_s) AS first,
  coalesce(
    (SELECT started_at FROM runs WHERE customer_id = $1 AND agent_id = $2 AND agent_version = v.version
       AND started_at >= v.last_s AND started_at < v.last_s + 3600 ORDER BY started_at DESC LIMIT 1), v.last_s) AS last
FROM unnest($3::text[], $4::float8[], $5::float8[]) AS v (version, first_s, last_s)
"""

# Runs that show it while they are still going on count as judged, so that a rate lies in 0..1.
_SYSTEMIC = """
WITH shown AS (
    SELECT s.failure_type, s.detected_at, r.processed_at >= $4 AS judged, s.run_id
    FROM failure_signals s JOIN runs r ON r.run_id = s.run_id AND r.customer_id = s.customer_id
    WHERE s.customer_id = $1 AND s.agent_id = $2 AND ($3::text[] IS NULL OR s.agent_id = ANY($3)) AND NOT s.shadow
      AND s.detected_at >= $4 AND r.signal_count > 0
), judged AS (
    SELECT count(*) AS runs FROM runs
    WHERE customer_id = $1 AND agent_id = $2 AND ($3::text[] IS NULL OR agent_id = ANY($3)) AND processed_at >= $4
)
SELECT failure_type, (SELECT runs FROM judged) + count(*) FILTER (WHERE judged IS NOT TRUE) AS total_runs,
       count(*) AS affected_runs, extract(epoch FROM min(detected_at))::float8 AS first_seen,
       extract(epoch FROM max(detected_at))::float8 AS last_seen
FROM shown GROUP BY 1 ORDER BY 3 DESC, 1
"""

_DEPLOYS = f"""
SELECT version, extract(epoch FROM deployed_at)::float8 AS deployed_at FROM (
    SELECT version, deployed_at FROM deploys
    WHERE customer_id = $1 AND agent_id = $2 AND ($3::text[] IS NULL OR agent_id = ANY($3)) AND deployed_at >= $4
    ORDER BY deployed_at DESC LIMIT {MAX_DEPLOYS}) newest
ORDER BY 2
"""  # noqa: S608 - made of constants


async def insights(conn: Connection, scope: Scope, agent_id: str, now: datetime) -> Row:
    """Everything of the agent's insights, keyed by the API's names; lists are empty where there is nothing to say."""
    whose = (scope.customer_id, agent_id, scope.agent_list)
    since = now.astimezone(UTC).date() - timedelta(days=DAYS - 1)
    start = datetime.combine(since, time(), UTC)
    trends = [dict(record) for record in await conn.fetch(_TRENDS, *whose, since)]
    first_tool = await conn.fetch(_FIRST_TOOL, *whose, since)
    started = await conn.fetch(_STARTED, *whose, start)
    troubled = await conn.fetch(_WITH_SIGNALS, *whose, since)
    return {
        "input_patterns": [dict(record) for record in await conn.fetch(_INPUTS, *whose, since)],
        "signal_trends": trends,
        "versions": await _versions(conn, whose[:2], started, troubled, trends),
        "time_to_tool": _time_to_tool(first_tool),
        "hourly_pattern": _hourly_pattern(started, troubled),
        "failure_rates": _failure_rates(first_tool, trends),
        "systemic_patterns": [
            _rated(dict(record)) for record in await conn.fetch(_SYSTEMIC, *whose, now - timedelta(days=SYSTEMIC_DAYS))
        ],
        "deploys": [dict(record) for record in await conn.fetch(_DEPLOYS, *whose, start)],
    }


async def _versions(
    conn: Connection, whose: tuple[str, str], started: list[Any], troubled: list[Any], trends: list[Row]
) -> list[Row]:
    """The versions seen last, newest first."""
    spans: dict[str, tuple[datetime, datetime]] = {}
    for row in started:
        first, last = spans.get(row["agent_version"], (row["first_hour"], row["last_hour"]))
        spans[row["agent_version"]] = (min(first, row["first_hour"]), max(last, row["last_hour"]))
    newest = sorted(spans, key=lambda version: (spans[version][1], version), reverse=True)[:MAX_VERSIONS]
    hours = [[spans[version][end].timestamp() for version in newest] for end in (0, 1)]
    runs, with_signals = _summed(started, "agent_version", "runs"), _summed(troubled, "agent_version", "runs")
    signals = _summed(trends, "agent_version", "count")
    found = [
        {
            "agent_version": version,
            "run_count": runs[version],
            "runs_with_signals": with_signals[version],
            "signal_count": signals[version],
            "signal_rate": with_signals[version] / runs[version],
            "first_seen": first,
            "last_seen": last,
        }
        for version, first, last in await conn.fetch(_SEEN, *whose, newest, *hours)
    ]
    return sorted(found, key=lambda one: (-one["last_seen"], one["agent_version"]))


def _hourly_pattern(started: list[Any], troubled: list[Any]) -> list[Row]:
    runs, with_signals = _summed(started, "hour_of_day", "runs"), _summed(troubled, "hour_of_day", "runs")
    return [
        {
            "hour_of_day": hour,
            "run_count": runs[hour],
            "signal_count": with_signals[hour],
            "signal_rate": with_signals[hour] / runs[hour],
        }
        for hour in sorted(runs)
    ]


def _time_to_tool(first_tool: list[Any]) -> Row:
    steps: Counter[int] = Counter()
    days: dict[date, Counter[int]] = defaultdict(Counter)
    runs = _summed(first_tool, "day", "runs")
    for row in first_tool:
        if row["step"] is not None:
            steps[row["step"]] += row["runs"]
            days[row["day"]][row["step"]] += row["runs"]
    return {
        "p25": _percentile(steps, 0.25),
        "p50": _percentile(steps, 0.5),
        "p75": _percentile(steps, 0.75),
        "avg_steps": _average(steps),
        "runs_with_tool": steps.total(),
        "total_runs": runs.total(),
        "daily_trend": [
            {
                "day": day,
                "run_count": runs[day],
                "runs_with_tool": days[day].total(),
                "avg_first_tool_step": _average(days[day]),
            }
            for day in sorted(runs)
        ],
    }


def _failure_rates(first_tool: list[Any], trends: list[Row]) -> list[Row]:
    """A run has at most one signal of a type, so that a day's signals are its affected runs."""
    runs = _summed(first_tool, "day", "runs")
    affected: Counter[tuple[date, str]] = Counter()
    for row in trends:
        affected[row["day"], row["failure_type"]] += row["count"]
    return [
        {
            "failure_type": failure_type,
            "day": day,
            "total_runs": runs[day],
            "affected_runs": count,
            "rate": count / runs[day],
        }
        for (day, failure_type), count in sorted(affected.items())
    ]


def _rated(row: Row) -> Row:
    rate = row["affected_runs"] / row["total_runs"]
    return row | {"rate": rate, "is_systemic": rate >= SYSTEMIC_RATE and row["affected_runs"] >= SYSTEMIC_RUNS}


def _summed(rows: Iterable[Mapping[str, Any]], key: str, value: str) -> Counter[Any]:
    sums: Counter[Any] = Counter()
    for row in rows:
        sums[row[key]] += row[value]
    return sums


def _average(steps: Counter[int]) -> float | None:
    return sum(step * runs for step, runs in steps.items()) / steps.total() if steps else None


def _percentile(steps: Counter[int], share: float) -> float | None:
    """Between the two nearest values, as SQL's ``percentile_cont`` does; None without values."""
    if not steps:
        return None
    place = share * (steps.total() - 1)
    below, above = _value_at(steps, int(place)), _value_at(steps, min(int(place) + 1, steps.total() - 1))
    return below + (above - below) * (place - int(place))


def _value_at(steps: Counter[int], index: int) -> int:
    """The value at `index` of all the values in order."""
    for step in sorted(steps):
        if index < steps[step]:
            return step
        index -= steps[step]
    raise IndexError(index)
