"""From signals to deliveries. The signal row is the outbox: `fanned_out_at` NULL is a debt of the dispatcher's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from dunetrace.deliveries import Kind
from dunetrace.signals import Severity
from dunetrace.store.columns import columns
from dunetrace.store.writes import destinations, telling, threads
from dunetrace.store.writes.telling import Owed
from dunetrace.threads import Hush, Sight, Thread, meet

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from datetime import datetime

    from dunetrace.deliveries import Subscription
    from dunetrace.store.gateway import Connection
    from dunetrace.store.writes.threads import ThreadKey

MOST_SIGNALS = 500  # a pass: a few milliseconds, so that no row is locked for long

_PAGE = f"""
SELECT s.id, s.customer_id, s.run_id, s.failure_type, s.agent_id, s.severity, s.detected_at,
       extract(epoch FROM now())::float8 AS now,
       coalesce(i.times_reopened, 0) AS life, i.acknowledged_at IS NOT NULL AS acknowledged,
       coalesce(i.snoozed_until > now(), FALSE) AS snoozed,
       s.detected_at < now() - interval '24 hours' AND NOT EXISTS (
           SELECT FROM deliveries d
           WHERE d.customer_id = s.customer_id AND d.run_id = s.run_id AND d.failure_type = s.failure_type
       ) AND NOT EXISTS (
           SELECT FROM gathered_signals g
           WHERE g.customer_id = s.customer_id AND g.run_id = s.run_id AND g.failure_type = s.failure_type
       ) AS too_late
FROM failure_signals s LEFT JOIN issues i
    ON i.customer_id = s.customer_id AND i.agent_id = s.agent_id AND i.failure_type = s.failure_type
WHERE s.fanned_out_at IS NULL AND NOT s.shadow
ORDER BY s.detected_at, s.id
LIMIT {MOST_SIGNALS}
FOR UPDATE OF s SKIP LOCKED
"""  # noqa: S608 - made of constants

# A delivery that nobody attempted yet tells the severity its signal has by then. One that is locked is being attempted.
_UNHEARD = """
UPDATE deliveries SET severity = s.severity
FROM failure_signals s
WHERE s.id = ANY($1) AND deliveries.id = ANY(ARRAY(
    SELECT d.id FROM deliveries d JOIN failure_signals r
        ON d.run_id = r.run_id AND d.customer_id = r.customer_id AND d.failure_type = r.failure_type
    WHERE r.id = ANY($1) AND d.kind IN ('first', 'escalated') AND d.state = 'pending' AND d.round = 0 AND d.attempt = 0
      AND d.lease_until IS NULL
    FOR UPDATE OF d SKIP LOCKED
)) AND deliveries.run_id = s.run_id AND deliveries.customer_id = s.customer_id
  AND deliveries.failure_type = s.failure_type
"""

_KNOWN = """
SELECT s.id, d.destination, max(severity_rank(coalesce(d.severity, s.severity))) AS rank
FROM failure_signals s JOIN deliveries d USING (run_id, customer_id, failure_type)
WHERE s.id = ANY($1) AND d.kind IN ('first', 'update', 'escalated') GROUP BY 1, 2
UNION ALL
SELECT s.id, g.destination, NULL
FROM failure_signals s JOIN gathered_signals g USING (run_id, customer_id, failure_type)
WHERE s.id = ANY($1)
"""


class FanOut(NamedTuple):
    """What one pass did: signals taken, and the destinations that have new deliveries."""

    taken: int
    told: frozenset[str]

    @property
    def more(self) -> bool:
        """Whether another pass may find work at once."""
        return self.taken == MOST_SIGNALS


class _Known(NamedTuple):
    """What destinations already know of the page's signals, by (signal's id, destination)."""

    told: dict[tuple[int, str], Severity]
    gathered: set[tuple[int, str]]


class _Outcome(NamedTuple):
    """What the page leads to. `worse` are its issues, by their threads, of which something worse is told."""

    owed: list[Owed]
    gathered: list[tuple[ThreadKey, str]]
    worse: list[ThreadKey]


async def fan_out(conn: Connection, subscriptions: Sequence[Subscription], configured_at: float) -> FanOut:
    """Tell or gather the oldest ≤ `MOST_SIGNALS` live signals that are still owed, as `threads.py` has it; mark those.

    Atomic: a signal is marked exactly when its deliveries, or its rows among the gathered, are there. Any number of
    dispatchers may run; a signal one holds is skipped by the others. A destination gets nothing found before it was
    configured; a signal found more than a day ago that nobody was told of yet is marked and told to no one.
    `configured_at` is by `time.monotonic`.
    """
    first_seen = await destinations.register(conn, subscriptions, configured_at)
    page = await conn.fetch(_PAGE)
    if not page:
        return FanOut(0, frozenset())
    wanted = list(_wanted(page, subscriptions, first_seen))
    held = await threads.lock(conn, (_thread_key(signal, wish) for signal, wish in wanted))
    outcome = _meet_all(wanted, held, await _known(conn, page))
    told = await telling.make(conn, outcome.owed)
    await telling.gather(conn, outcome.gathered)
    await threads.save(conn, held)
    if outcome.worse:
        await _end_acknowledgements(conn, outcome.worse)
    await conn.execute(
        "UPDATE failure_signals SET fanned_out_at = now() WHERE id = ANY($1)", [signal["id"] for signal in page]
    )
    return FanOut(len(page), told)


def _wanted(
    page: Sequence[Any], subscriptions: Sequence[Subscription], first_seen: dict[str, datetime]
) -> Iterator[tuple[Any, Subscription]]:
    for signal in page:
        if signal["too_late"]:
            continue
        severity = Severity(signal["severity"])
        for wish in subscriptions:
            if signal["detected_at"] >= first_seen[wish.destination] and wish.wants(signal["agent_id"], severity):
                yield signal, wish


def _meet_all(wanted: Sequence[tuple[Any, Subscription]], held: dict[ThreadKey, Thread], known: _Known) -> _Outcome:
    """Each signal in turn meets its threads in `held`, which are what they are then."""
    outcome = _Outcome([], [], [])
    for signal, wish in wanted:
        key, sight = _thread_key(signal, wish), _sight(signal, wish, known)
        step = meet(held[key], sight, wish.gather_s, signal["now"])
        held[key] = step.thread
        if step.telling is not None:
            kind, seq, reopened = step.telling
            outcome.owed.append(Owed(key, sight.run_id, kind, seq, sight.severity, reopened))
            if kind is Kind.ESCALATED and sight.hush is Hush.ACKNOWLEDGED and wish.gather_s > 0:
                outcome.worse.append(key)
        elif step.gathers:
            outcome.gathered.append((key, sight.run_id))
    return outcome


def _thread_key(signal: Any, wish: Subscription) -> ThreadKey:
    return signal["customer_id"], signal["agent_id"], signal["failure_type"], wish.destination


def _sight(signal: Any, wish: Subscription, known: _Known) -> Sight:
    this = signal["id"], wish.destination
    hush = Hush.SNOOZED if signal["snoozed"] else Hush.ACKNOWLEDGED if signal["acknowledged"] else None
    return Sight(
        run_id=signal["run_id"],
        severity=Severity(signal["severity"]),
        life=signal["life"],
        told=known.told.get(this),
        gathered=this in known.gathered,
        hush=hush,
    )


async def _known(conn: Connection, page: Sequence[Any]) -> _Known:
    """Of most pages nothing: a signal comes again only when its severity rose."""
    ids = [signal["id"] for signal in page]
    rows = await conn.fetch(_KNOWN, ids)
    if any(row["rank"] is not None for row in rows):
        await conn.execute(_UNHEARD, ids)
        rows = await conn.fetch(_KNOWN, ids)
    ranks = list(Severity)
    told = {(row["id"], row["destination"]): ranks[row["rank"] - 1] for row in rows if row["rank"] is not None}
    return _Known(told, {(row["id"], row["destination"]) for row in rows if row["rank"] is None})


async def _end_acknowledgements(conn: Connection, keys: Sequence[ThreadKey]) -> None:
    await conn.execute(
        "UPDATE issues i SET acknowledged_at = NULL FROM unnest($1::text[], $2::text[], $3::text[]) "
        "AS k (customer_id, agent_id, failure_type) WHERE i.acknowledged_at IS NOT NULL "
        "AND (i.customer_id, i.agent_id, i.failure_type) = (k.customer_id, k.agent_id, k.failure_type)",
        *columns(sorted({key[:3] for key in keys}), 3),
    )
