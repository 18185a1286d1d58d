"""What a delivery tells beside its signal: what it counts, and what became of the issue."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dunetrace.deliveries import Gathered, Kind, ResolvedIssue

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dunetrace.deliveries import Alert
    from dunetrace.store.gateway import Connection

_FACTS = """
SELECT d.id, d.reopened, g.runs, extract(epoch FROM g.since)::float8 AS since, i.affected_runs,
       extract(epoch FROM i.first_seen)::float8 AS first_seen, i.resolved_by_hand,
       extract(epoch FROM coalesce(i.resolved_at, d.created_at))::float8 AS resolved_at
FROM deliveries d
LEFT JOIN LATERAL (
    SELECT count(*) AS runs, min(gathered_at) AS since FROM gathered_signals WHERE delivery_id = d.id
) g ON d.kind IN ('update', 'resolved')
LEFT JOIN failure_signals s
    ON s.run_id = d.run_id AND s.customer_id = d.customer_id AND s.failure_type = d.failure_type
    AND d.kind = 'resolved'
LEFT JOIN issues i
    ON i.customer_id = s.customer_id AND i.agent_id = s.agent_id AND i.failure_type = s.failure_type
WHERE d.id = ANY($1)
"""


async def with_facts(conn: Connection, alerts: Sequence[Alert]) -> list[Alert]:
    """The same alerts, in the same order, with all that their deliveries tell."""
    rows = await conn.fetch(_FACTS, [alert.delivery_id for alert in alerts])
    facts = {row["id"]: row for row in rows}
    return [_with_facts(alert, facts[alert.delivery_id]) for alert in alerts]


def _with_facts(alert: Alert, facts: Any) -> Alert:
    gathered = Gathered(facts["runs"], facts["since"]) if facts["runs"] else None
    issue = None
    if alert.kind is Kind.RESOLVED and facts["affected_runs"] is not None:
        issue = ResolvedIssue(
            facts["affected_runs"], facts["first_seen"], facts["resolved_at"], facts["resolved_by_hand"]
        )
    return alert._replace(reopened=facts["reopened"], gathered=gathered, issue=issue)
