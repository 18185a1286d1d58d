"""What is watched for a rise, and the looks at it: which are due, what one finds, and who is told.

Each look is one transaction that holds the agent's watches, so that any number of processes find and tell a rise once.
Called by the `fleet` actor.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, NamedTuple

from dunetrace.deliveries import Kind
from dunetrace.fleet import MIN_RUNS, REFERENCE_DAYS, Scope, Side, following_look, has_risen, is_higher
from dunetrace.signals import FailureType, Severity
from dunetrace.store.reads.fleet import Counted, Runs, count, newest_affected
from dunetrace.store.writes import destinations, telling
from dunetrace.store.writes.telling import Owed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dunetrace.deliveries import Subscription
    from dunetrace.store.gateway import Connection

REFERENCE = timedelta(days=REFERENCE_DAYS)
HOUR = timedelta(hours=1)
CLOCKS = timedelta(days=1)  # a version appears by its agent's clock, which may be this far ahead of ours
_MOST_OUTBOX = 500

# Only agents that were heard of lately can have news. Beyond a week a version is not new any more when it is first
# met, so that an upgrade of Dunetrace does not tell of versions from before; within a month it must have had its runs.
_WATCH = f"""
INSERT INTO fleet_watches (customer_id, agent_id, scope, subject, since, next_runs)
WITH active AS (SELECT customer_id, agent_id FROM agents WHERE last_seen >= now() - interval '2 hours'),
versions AS (
    SELECT DISTINCT customer_id, agent_id, agent_version FROM active JOIN agent_hours h USING (customer_id, agent_id)
    WHERE h.hour >= now() - interval '1 day' AND h.run_count > 0 AND NOT EXISTS (
        SELECT FROM fleet_watches w WHERE w.customer_id = h.customer_id AND w.agent_id = h.agent_id
        AND w.scope = 'version' AND w.subject = h.agent_version)
), found AS (
    SELECT customer_id, agent_id, 'version' AS scope, agent_version AS subject, (
        SELECT min(hour) FROM agent_hours h WHERE h.customer_id = v.customer_id AND h.agent_id = v.agent_id
        AND h.agent_version = v.agent_version) AS since
    FROM versions v
    UNION ALL
    SELECT customer_id, agent_id, 'deploy', version, min(deployed_at)
    FROM active JOIN deploys USING (customer_id, agent_id)
    WHERE deployed_at >= now() - interval '7 days' GROUP BY 1, 2, 3, 4
    UNION ALL
    SELECT customer_id, agent_id, 'hour', '', 'epoch' FROM active
)
SELECT customer_id, agent_id, scope, subject, since,
       CASE WHEN scope = 'hour' OR since >= now() - interval '7 days' THEN {MIN_RUNS} END
FROM found
ON CONFLICT DO NOTHING
"""  # noqa: S608 - made of constants

# The totals say, nearly for nothing, whether there can be enough runs; a look then counts them.
_DUE = """
SELECT w.customer_id, w.agent_id, w.scope, w.subject, w.since, w.next_runs
FROM fleet_watches w JOIN agents a USING (customer_id, agent_id)
WHERE a.last_seen >= now() - interval '2 hours' AND w.next_runs IS NOT NULL AND CASE
    WHEN w.scope = 'hour' THEN w.since < $1
    ELSE w.since >= now() - interval '30 days' AND w.next_runs <= (
        SELECT sum(h.run_count) FROM agent_hours h
        WHERE h.customer_id = w.customer_id AND h.agent_id = w.agent_id AND h.hour >= date_trunc('hour', w.since, 'UTC')
          AND (w.scope = 'deploy' OR h.agent_version = w.subject))
END
ORDER BY w.scope = 'hour', w.since, w.customer_id, w.agent_id, w.subject
"""

_FOUND = """
INSERT INTO fleet_signals (customer_id, agent_id, failure_type, scope, subject, since, severity, run_id, runs, affected,
                           runs_before, affected_before)
SELECT $1::text, $2::text, $3::text, $4::text, $5::text, $6::timestamptz, $7::text, $8::text, $9::bigint, $10::bigint,
       $11::bigint, $12::bigint
WHERE NOT EXISTS (
    SELECT FROM fleet_signals f WHERE f.customer_id = $1 AND f.agent_id = $2 AND f.failure_type = $3
    AND CASE WHEN $4 = 'hour' THEN f.over_at IS NULL ELSE f.found_at >= $6 END)
ON CONFLICT DO NOTHING
RETURNING id
"""


class Watch(NamedTuple):
    """One subject of one agent. `since` is when it appeared; of an hour, its beginning."""

    customer_id: str
    agent_id: str
    scope: Scope
    subject: str
    since: datetime
    next_runs: int

    def runs(self, since: datetime, until: datetime | None = None, version: str | None = None, of: bool = True) -> Runs:
        """Runs of its agent."""
        return Runs(self.customer_id, self.agent_id, since, until, version, of)


async def watch(conn: Connection) -> None:
    """Begin to watch the versions and deploys that appeared, and the hours of agents that appeared. Idempotent."""
    await conn.execute(_WATCH)


async def due(conn: Connection) -> list[Watch]:
    """The watches to be looked at now: versions and deploys first, so that a rise is told with its cause.

    An hour is due a minute after it is over, when what was judged in it is committed.
    """
    hour: datetime = await conn.fetchval(
        "SELECT date_trunc('hour', now() - interval '1 minute', 'UTC') - interval '1 hour'"
    )
    watches = [Watch(*row)._replace(scope=Scope(row["scope"])) for row in await conn.fetch(_DUE, hour)]
    return [w._replace(since=hour, subject=f"{hour:%Y-%m-%dT%H:%MZ}") if w.scope is Scope.HOUR else w for w in watches]


async def look(conn: Connection, watched: Watch, error_rate: float) -> list[FailureType]:
    """Look once: what has risen and was not told yet, as rows of ``fleet_signals``.

    Atomic: a look that was made is not made again, and what it found is there. Another process may have made it since.
    """
    held = await conn.fetch(
        "SELECT scope, subject, since, next_runs FROM fleet_watches WHERE customer_id = $1 AND agent_id = $2 "
        "ORDER BY scope, subject FOR UPDATE",
        watched.customer_id,
        watched.agent_id,
    )
    if watched.scope is Scope.HOUR:
        return await _look_at_hour(conn, watched, held, error_rate)
    if not any(tuple(row) == watched[2:] for row in held):
        return []
    version = watched.subject if watched.scope is Scope.VERSION else None
    if version is None:  # whatever came after a deploy is not its doing
        later = [row["since"] for row in held if row["scope"] != Scope.HOUR and row["since"] > watched.since]
        shown = watched.runs(watched.since, min(later, default=None))
    else:
        shown = watched.runs(watched.since - CLOCKS, None, version)
    now = await count(conn, shown)
    if now.runs < watched.next_runs:
        return []
    before = await count(conn, watched.runs(watched.since - REFERENCE, watched.since, version, of=False))
    following = following_look(now.runs) if before.runs >= MIN_RUNS else None  # its past does not change any more
    await conn.execute(
        "UPDATE fleet_watches SET next_runs = $5 "
        "WHERE customer_id = $1 AND agent_id = $2 AND scope = $3 AND subject = $4",
        *watched[:4],
        following,
    )
    return await _keep_risen(conn, watched, shown, (now, before), error_rate)


async def _look_at_hour(conn: Connection, watched: Watch, held: Sequence[Any], error_rate: float) -> list[FailureType]:
    if not any(row["scope"] == Scope.HOUR and row["since"] < watched.since for row in held):
        return []
    await conn.execute(
        "UPDATE fleet_watches SET since = $3 WHERE customer_id = $1 AND agent_id = $2 AND scope = 'hour'",
        watched.customer_id,
        watched.agent_id,
        watched.since,
    )
    shown = watched.runs(watched.since, watched.since + HOUR)
    now = await count(conn, shown)
    if now.runs < MIN_RUNS:
        return []
    await _end_episodes(conn, watched, now)
    before = await count(conn, watched.runs(watched.since - REFERENCE, watched.since))
    return await _keep_risen(conn, watched, shown, (now, before), error_rate)


async def _end_episodes(conn: Connection, watched: Watch, now: Counted) -> None:
    """A rise is over when an hour is back below it: one of the version's, if it has enough runs, else of all runs."""
    going_on = await conn.fetch(
        "SELECT id, failure_type, scope, subject, runs_before, affected_before FROM fleet_signals "
        "WHERE customer_id = $1 AND agent_id = $2 AND over_at IS NULL",
        watched.customer_id,
        watched.agent_id,
    )
    over = []
    for row in going_on:
        counted = now
        if row["scope"] == Scope.VERSION:
            of_version = await count(conn, watched.runs(watched.since, watched.since + HOUR, row["subject"]))
            counted = of_version if of_version.runs >= MIN_RUNS else now
        side = counted.side(FailureType(row["failure_type"]))
        if not is_higher(side, Side(row["runs_before"], row["affected_before"])):
            over.append(row["id"])
    if over:
        await conn.execute("UPDATE fleet_signals SET over_at = now() WHERE id = ANY($1)", over)


async def _keep_risen(
    conn: Connection, watched: Watch, shown: Runs, counted: tuple[Counted, Counted], error_rate: float
) -> list[FailureType]:
    """Keep what has risen, except what was told already: since then, or, of an hour, in a rise that goes on.

    `counted` are the runs `shown` and those before.
    """
    now, before = counted
    kept = []
    for failure_type, severities in now.affected.items():
        here, there = now.side(failure_type), before.side(failure_type)
        if not has_risen(here, there, watched.scope, error_rate):
            continue
        severity = max(severities, key=lambda name: (severities[name], Severity(name).rank))
        run_id = await newest_affected(conn, shown, failure_type)
        row = (watched.customer_id, watched.agent_id, failure_type, watched.scope, watched.subject, watched.since)
        if await conn.fetchval(_FOUND, *row, severity, run_id, *here, *there) is not None:
            kept.append(failure_type)
    return kept


async def fan_out(conn: Connection, subscriptions: Sequence[Subscription], configured_at: float) -> frozenset[str]:
    """Make the deliveries of the fleet signals that still owe them; the destinations for which one is new.

    Atomic: a fleet signal is marked exactly when its deliveries are there. As with any signal, a destination gets
    nothing found before it was configured. `configured_at` is by `time.monotonic`.
    """
    first_seen = await destinations.register(conn, subscriptions, configured_at)
    owing = await conn.fetch(
        "SELECT id, customer_id, agent_id, failure_type, severity, run_id, found_at FROM fleet_signals "
        "WHERE fanned_out_at IS NULL ORDER BY id LIMIT $1 FOR UPDATE SKIP LOCKED",
        _MOST_OUTBOX,
    )
    owed = [
        Owed(
            (signal["customer_id"], signal["agent_id"], signal["failure_type"], wish.destination),
            signal["run_id"], Kind.FLEET, signal["id"], Severity(signal["severity"]),
        )
        for signal in owing
        for wish in subscriptions
        if signal["found_at"] >= first_seen[wish.destination]
        and wish.wants(signal["agent_id"], Severity(signal["severity"]))
    ]  # fmt: skip
    told = await telling.make(conn, owed)
    if owing:
        await conn.execute(
            "UPDATE fleet_signals SET fanned_out_at = now() WHERE id = ANY($1)", [signal["id"] for signal in owing]
        )
    return told
