"""The invariants as SQL: each query gives the rows that break one, in the words it is reported with.

``CHECKS`` must hold whenever the server is quiet, after whatever happened to it; ``PENDING`` are the state rows that
say it is not quiet yet, in the order work flows, so that nothing can slip past between two of them.
"""

from __future__ import annotations

from typing import NamedTuple


class Check(NamedTuple):
    words: str
    sql: str


SOON_S = 5  # an update that is due in this time is waited for
STUCK_S = 60  # a due delivery that nobody holds should have been taken long before

_LIVE = "(SELECT customer_id, run_id, count(*) AS live FROM failure_signals WHERE NOT shadow GROUP BY 1, 2)"
_ENDED = "('run.completed', 'run.errored')"

CHECKS: tuple[Check, ...] = (
    Check(
        "an event was stored twice",
        "SELECT customer_id, run_id, event_key, count(*) AS times FROM events GROUP BY 1, 2, 3 HAVING count(*) > 1",
    ),
    Check("a row was set aside", "SELECT customer_id, event_key, error FROM set_aside_events"),
    Check("a touch was left", "SELECT customer_id, run_id, n FROM run_touches"),
    Check(
        "events of a run that nobody judged",
        "SELECT customer_id, run_id, count(*) AS events FROM events e WHERE NOT EXISTS (SELECT FROM runs r "
        "WHERE r.customer_id = e.customer_id AND r.run_id = e.run_id) GROUP BY 1, 2",
    ),
    Check(
        "stored, announced and judged events differ",
        "SELECT r.customer_id, r.run_id, coalesce(e.stored, 0) AS stored, r.event_count AS announced, "
        "r.judged_event_count AS judged FROM runs r LEFT JOIN (SELECT customer_id, run_id, count(*) AS stored "
        "FROM events GROUP BY 1, 2) e USING (customer_id, run_id) WHERE coalesce(e.stored, 0) <> r.event_count "
        "OR (r.parked_error IS NULL AND r.judged_event_count <> r.event_count)",
    ),
    Check(
        "more than one signal of a run and type",
        "SELECT customer_id, run_id, failure_type, count(*) AS times FROM failure_signals GROUP BY 1, 2, 3 "
        "HAVING count(*) > 1",
    ),
    Check(
        "a signal without a run",
        "SELECT s.customer_id, s.run_id, s.failure_type FROM failure_signals s LEFT JOIN runs r "
        "USING (customer_id, run_id) WHERE r.run_id IS NULL",
    ),
    Check(
        "a run's signal_count is not its live signals",
        "SELECT r.customer_id, r.run_id, r.signal_count, coalesce(s.live, 0) AS live FROM runs r "
        f"LEFT JOIN {_LIVE} s USING (customer_id, run_id) WHERE r.signal_count <> coalesce(s.live, 0)",
    ),
    Check(
        "a run and its processed mark differ",
        "SELECT r.customer_id, r.run_id, r.trigger, p.trigger AS marked, r.signal_count, p.signal_count AS marked_n "
        "FROM runs r LEFT JOIN processed_runs p USING (customer_id, run_id) WHERE r.trigger IS NOT NULL "
        "AND (p.trigger, p.signal_count) IS DISTINCT FROM (r.trigger, r.signal_count)",
    ),
    Check(
        "a processed mark without a run",
        "SELECT p.customer_id, p.run_id FROM processed_runs p LEFT JOIN runs r USING (customer_id, run_id) "
        "WHERE r.run_id IS NULL",
    ),
    Check(
        "an ended run was never counted",
        f"SELECT customer_id, run_id, trigger FROM runs WHERE trigger IN {_ENDED} AND dropped_events = 0 "
        "AND parked_error IS NULL AND (issue_effect IS NULL OR effect_seq IS NULL)",
    ),
    Check(
        "a run that has not ended, or lost events, was counted",
        "SELECT customer_id, run_id, trigger, dropped_events, issue_effect FROM runs "
        f"WHERE issue_effect IS NOT NULL AND (coalesce(trigger, '') NOT IN {_ENDED} OR dropped_events > 0)",
    ),
    Check(
        "a run counts as affected and has no live signal",
        "SELECT customer_id, run_id FROM runs WHERE issue_effect = 'affected' AND signal_count = 0",
    ),
    Check(
        "two runs have one place in the order of effects",
        "SELECT effect_seq, count(*) AS runs FROM runs WHERE effect_seq IS NOT NULL GROUP BY 1 HAVING count(*) > 1",
    ),
    Check(
        "an issue's affected_runs is not a recount",
        "SELECT coalesce(i.customer_id, s.customer_id) AS customer_id, coalesce(i.agent_id, s.agent_id) AS agent_id, "
        "coalesce(i.failure_type, s.failure_type) AS failure_type, i.affected_runs, s.recount FROM issues i FULL JOIN "
        "(SELECT customer_id, agent_id, failure_type, count(DISTINCT run_id) AS recount FROM failure_signals "
        "WHERE NOT shadow GROUP BY 1, 2, 3) s USING (customer_id, agent_id, failure_type) "
        "WHERE i.affected_runs IS DISTINCT FROM s.recount",
    ),
    Check(
        "an issue's clean_runs_since is not a recount",
        "SELECT i.customer_id, i.agent_id, i.failure_type, i.clean_runs_since, c.recount FROM issues i, LATERAL "
        "(SELECT least(5, count(*)) AS recount FROM runs r WHERE r.customer_id = i.customer_id "
        "AND r.agent_id = i.agent_id AND r.effect_seq > i.last_affected_seq AND NOT EXISTS (SELECT FROM "
        "failure_signals s WHERE s.customer_id = r.customer_id AND s.run_id = r.run_id "
        "AND s.failure_type = i.failure_type AND NOT s.shadow)) c WHERE i.clean_runs_since <> c.recount",
    ),
    Check(
        "an issue's status does not fit its clean runs",
        "SELECT customer_id, agent_id, failure_type, status, clean_runs_since, resolved_by_hand, resolved_at "
        "FROM issues "
        "WHERE (status = 'resolved') <> (clean_runs_since >= 5 OR resolved_by_hand) "
        "OR (status = 'resolved') <> (resolved_at IS NOT NULL)",
    ),
    Check(
        "a run's tokens by model do not add up to its tokens",
        "SELECT customer_id, run_id, total_tokens, token_mix FROM runs WHERE token_mix IS NOT NULL AND total_tokens <> "
        "(SELECT sum((m.value ->> 0)::bigint + (m.value ->> 2)::bigint) FROM jsonb_each(token_mix) m)",
    ),
    Check(
        "agents is not a recount",
        "SELECT coalesce(a.customer_id, r.customer_id) AS customer_id, coalesce(a.agent_id, r.agent_id) AS agent_id, "
        "a.run_count, r.recount FROM agents a FULL JOIN (SELECT customer_id, agent_id, count(*) AS recount FROM runs "
        "GROUP BY 1, 2) r USING (customer_id, agent_id) WHERE coalesce(a.run_count, 0) <> coalesce(r.recount, 0)",
    ),
    Check(
        "agent_hours is not a recount",
        "SELECT coalesce(a.customer_id, r.customer_id) AS customer_id, coalesce(a.agent_id, r.agent_id) AS agent_id, "
        "a.run_count, r.runs, a.total_tokens, r.tokens FROM agent_hours a FULL JOIN (SELECT customer_id, agent_id, "
        "agent_version, start_hour AS hour, count(*) AS runs, sum(total_tokens)::bigint AS tokens FROM runs "
        "GROUP BY 1, 2, 3, 4) r USING (customer_id, agent_id, agent_version, hour) "
        "WHERE coalesce(a.run_count, 0) <> coalesce(r.runs, 0) OR coalesce(a.total_tokens, 0) <> coalesce(r.tokens, 0)",
    ),
    Check(
        "signal_hours is not a recount",
        "SELECT coalesce(h.customer_id, s.customer_id) AS customer_id, coalesce(h.agent_id, s.agent_id) AS agent_id, "
        "coalesce(h.failure_type, s.failure_type) AS failure_type, coalesce(h.severity, s.severity) AS severity, "
        "h.signal_count, s.recount FROM signal_hours h FULL JOIN (SELECT customer_id, agent_id, agent_version, "
        "failure_type, severity, date_trunc('hour', detected_at, 'UTC') AS hour, count(*) AS recount "
        "FROM failure_signals WHERE NOT shadow GROUP BY 1, 2, 3, 4, 5, 6) s "
        "USING (customer_id, agent_id, agent_version, failure_type, severity, hour) "
        "WHERE coalesce(h.signal_count, 0) <> coalesce(s.recount, 0)",
    ),
    Check(
        "a live signal was never fanned out",
        "SELECT customer_id, run_id, failure_type FROM failure_signals WHERE fanned_out_at IS NULL AND NOT shadow",
    ),
    Check(
        "a live signal was neither told nor gathered for a destination it applies to",
        "SELECT s.customer_id, s.run_id, s.failure_type, d.name AS destination FROM failure_signals s "
        "JOIN destinations d ON d.first_seen <= s.detected_at WHERE NOT s.shadow AND s.fanned_out_at IS NOT NULL "
        "AND s.fanned_out_at < s.detected_at + interval '24 hours' "
        "AND severity_rank(s.severity) >= coalesce(severity_rank(($1::jsonb) ->> d.name), 0) "
        "AND NOT EXISTS (SELECT FROM deliveries e WHERE e.customer_id = s.customer_id AND e.run_id = s.run_id "
        "AND e.failure_type = s.failure_type AND e.destination = d.name AND e.kind IN ('first', 'escalated')) "
        "AND NOT EXISTS (SELECT FROM gathered_signals g WHERE g.customer_id = s.customer_id AND g.run_id = s.run_id "
        "AND g.failure_type = s.failure_type AND g.destination = d.name)",
    ),
    Check(
        "a gathered signal waits for nothing",
        "SELECT g.customer_id, g.run_id, g.failure_type, g.destination FROM gathered_signals g "
        "LEFT JOIN alert_threads t USING (customer_id, agent_id, failure_type, destination) "
        "WHERE g.delivery_id IS NULL AND t.due_at IS NULL",
    ),
    Check(
        "a gathered signal is counted by no delivery",
        "SELECT g.customer_id, g.run_id, g.failure_type, g.destination FROM gathered_signals g "
        "WHERE g.delivery_id IS NOT NULL AND NOT EXISTS (SELECT FROM deliveries d WHERE d.id = g.delivery_id "
        "AND d.kind IN ('update', 'resolved'))",
    ),
    Check(
        "an issue that goes on owes a note of its end",
        "SELECT customer_id, agent_id, failure_type, status FROM issues WHERE note_due AND status <> 'resolved'",
    ),
    Check(
        "a shadow signal was alerted",
        "SELECT s.customer_id, s.run_id, s.failure_type FROM failure_signals s WHERE s.shadow AND (s.alerted OR EXISTS "
        "(SELECT FROM deliveries d WHERE d.customer_id = s.customer_id AND d.run_id = s.run_id "
        "AND d.failure_type = s.failure_type))",
    ),
    Check(
        "alerted is not what was delivered",
        "SELECT s.customer_id, s.run_id, s.failure_type, s.alerted FROM failure_signals s WHERE s.alerted <> EXISTS "
        "(SELECT FROM deliveries d WHERE d.customer_id = s.customer_id AND d.run_id = s.run_id "
        "AND d.failure_type = s.failure_type AND d.state = 'done' UNION ALL SELECT FROM gathered_signals g "
        "JOIN deliveries d ON d.id = g.delivery_id WHERE g.customer_id = s.customer_id AND g.run_id = s.run_id "
        "AND g.failure_type = s.failure_type AND d.state = 'done')",
    ),
    Check(
        "a delivery is stuck",
        "SELECT customer_id, run_id, failure_type, destination, lease_until FROM deliveries JOIN destinations n "
        "ON n.name = destination WHERE state = 'pending' AND n.circuit_open_since IS NULL "
        f"AND next_attempt_at < now() - {STUCK_S} * interval '1 second' "
        f"AND coalesce(lease_until, '-infinity') < now() - {STUCK_S} * interval '1 second'",
    ),
)

PENDING: tuple[Check, ...] = (
    Check("runs have events nobody has looked at", "SELECT count(DISTINCT run_id) FROM run_touches"),
    Check(
        "runs are not judged up to their last event, or are due, or wait for a retry",
        "SELECT count(*) FROM runs WHERE parked_error IS NULL "
        "AND (judged_event_count < event_count OR due_at <= now() OR attempts > 0)",
    ),
    Check(
        "live signals are not fanned out",
        "SELECT count(*) FROM failure_signals WHERE fanned_out_at IS NULL AND NOT shadow",
    ),
    Check("notes of resolved issues are owed", "SELECT count(*) FROM issues WHERE note_due"),
    Check(
        "updates are due soon",
        "SELECT count(*) FROM alert_threads t LEFT JOIN issues i USING (customer_id, agent_id, failure_type) "
        f"WHERE t.due_at <= now() + {SOON_S} * interval '1 second' AND i.acknowledged_at IS NULL "
        "AND coalesce(i.snoozed_until, '-infinity') <= now() AND NOT EXISTS (SELECT FROM deliveries d "
        "WHERE d.customer_id = t.customer_id AND d.run_id = t.run_id AND d.failure_type = t.failure_type "
        "AND d.destination = t.destination AND d.state = 'pending')",
    ),
    Check("deliveries are pending", "SELECT count(*) FROM deliveries WHERE state = 'pending'"),
)
