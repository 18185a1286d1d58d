"""The issues part of the judging transaction: `dunetrace.issues` applied to locked rows, in commit order."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from dunetrace.issues import IssueState, affected, clean
from dunetrace.store.columns import columns
from dunetrace.store.moments import moment

if TYPE_CHECKING:
    from dunetrace.judgements import Judgement
    from dunetrace.store.gateway import Connection
    from dunetrace.store.writes.signals import Change


async def apply(conn: Connection, judgements: Sequence[Judgement], changes: list[Change], at: datetime) -> int:
    """Each run's effect on its agent's issues, in the order the runs were heard of last, numbered in commit order.

    Returns how many were resolved, of which the dispatcher owes notes.
    """
    first_live: dict[tuple[str, str], list[str]] = defaultdict(list)
    for change in changes:
        if change.inserted and not change.signal.shadow:
            first_live[change.judgement.case.key].append(change.signal.failure_type.value)
    effective = [j for j in judgements if j.counts or first_live[j.case.key]]
    if not effective:
        return 0
    effective.sort(key=lambda j: (j.run["last_received_at"], j.case.key))
    if any(first_live.values()):
        await _open_missing(conn, effective, first_live, at)
    rows = await conn.fetch(
        "SELECT i.*, extract(epoch FROM i.first_seen)::float8 AS first_s, "
        "extract(epoch FROM i.last_seen)::float8 AS last_s, "
        "extract(epoch FROM i.resolved_at)::float8 AS resolved_s FROM issues i "
        "JOIN (SELECT DISTINCT * FROM unnest($1::text[], $2::text[]) AS u (customer_id, agent_id)) k "
        "USING (customer_id, agent_id) ORDER BY i.id FOR UPDATE OF i",
        *columns([(j.run["customer_id"], j.run["agent_id"]) for j in effective], 2),
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
    changed = [issue for mine in issues.values() for issue in mine.values() if issue.changed]
    if changed:
        await _update_issues(conn, changed)
    return sum(issue.owes_note for issue in changed)


class _Issue:
    """An issue's row while a batch is applied to it. A row that was only just opened stands for no state yet."""

    def __init__(self, row: Any) -> None:
        self.id: int = row["id"]
        self.seq: int = row["last_affected_seq"]
        self.changed = False
        self.state = self._before = (
            IssueState(
                row["status"], row["first_s"], row["last_s"], row["resolved_s"], row["affected_runs"],
                row["clean_runs_since"], row["times_reopened"],
            )
            if row["affected_runs"]
            else None
        )  # fmt: skip

    @property
    def owes_note(self) -> bool:
        """Whether it is resolved, and was not before."""
        if self.state is None or self.state.status != "resolved":
            return False
        before = self._before
        return before is None or (before.status, before.times_reopened) != ("resolved", self.state.times_reopened)

    @property
    def lives_on(self) -> bool:
        """Whether it was open all the while."""
        if self.state is None or self.state.status == "resolved" or self._before is None:
            return False
        return self._before.times_reopened == self.state.times_reopened

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
        *columns(sorted(wanted), 3), at,
    )  # fmt: skip


async def _update_issues(conn: Connection, issues: list[_Issue]) -> None:
    """Resolving ends what a person asked for it, and owes a note; what reopened meanwhile owes none."""
    rows = [
        (
            issue.id, issue.state.status, moment(issue.state.first_seen), moment(issue.state.last_seen),
            moment(issue.state.resolved_at), issue.state.affected_runs, issue.state.clean_runs_since, issue.seq,
            issue.state.times_reopened, issue.owes_note, issue.lives_on,
        )
        for issue in issues
        if issue.state is not None
    ]  # fmt: skip
    await conn.execute(
        "UPDATE issues i SET status = k.status, first_seen = k.first_seen, last_seen = k.last_seen, "
        "resolved_at = k.resolved_at, affected_runs = k.affected_runs, clean_runs_since = k.clean_runs_since, "
        "last_affected_seq = k.seq, resolved_by_hand = i.resolved_by_hand AND k.status = 'resolved', "
        "times_reopened = k.times_reopened, note_due = k.status = 'resolved' AND (i.note_due OR k.owes_note), "
        "acknowledged_at = CASE WHEN k.lives_on THEN i.acknowledged_at END, "
        "snoozed_until = CASE WHEN k.lives_on THEN i.snoozed_until END "
        "FROM unnest($1::bigint[], $2::text[], $3::timestamptz[], $4::timestamptz[], $5::timestamptz[], $6::int[], "
        "$7::int[], $8::bigint[], $9::int[], $10::bool[], $11::bool[]) AS k (id, status, first_seen, last_seen, "
        "resolved_at, affected_runs, clean_runs_since, seq, times_reopened, owes_note, lives_on) WHERE i.id = k.id",
        *columns(rows, 11),
    )
