"""What a person does about an issue: resolves it, acknowledges it, or lets nothing of it be told for a while."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dunetrace.store.reads.issues import issue
from dunetrace.store.reads.paging import Row

if TYPE_CHECKING:
    from dunetrace.store.gateway import Connection
    from dunetrace.store.reads.scope import Scope


async def resolve(conn: Connection, scope: Scope, issue_id: int) -> Row | None:
    """One row, as it is then; None when there is no such issue in scope. One that is resolved already stays as it is.

    Its clean runs go on being counted, and the next affected run reopens it as any other resolved issue. The dispatcher
    owes its notes.
    """
    return await _set(
        conn, scope, issue_id,
        "status = 'resolved', resolved_at = now(), resolved_by_hand = TRUE, note_due = TRUE, acknowledged_at = NULL, "
        "snoozed_until = NULL",
    )  # fmt: skip


async def acknowledge(conn: Connection, scope: Scope, issue_id: int, acknowledged: bool) -> Row | None:
    """As `resolve`. Acknowledged again, it keeps the time of the first; a resolved issue has nothing to acknowledge."""
    at = "coalesce(acknowledged_at, now())" if acknowledged else "NULL"
    return await _set(conn, scope, issue_id, f"acknowledged_at = {at}")


async def snooze(conn: Connection, scope: Scope, issue_id: int, seconds: float) -> Row | None:
    """As `resolve`: nothing of it is told for `seconds` from now on; 0 ends that."""
    until = "now() + make_interval(secs => $4)"
    return await _set(conn, scope, issue_id, f"snoozed_until = CASE WHEN $4 > 0 THEN {until} END", seconds)


async def _set(conn: Connection, scope: Scope, issue_id: int, changes: str, *arguments: object) -> Row | None:
    """`changes` is SQL of this module; its `arguments` begin at $4."""
    await conn.execute(
        f"UPDATE issues SET {changes} "  # noqa: S608
        "WHERE id = $2 AND customer_id = $1 AND ($3::text[] IS NULL OR agent_id = ANY($3)) AND status <> 'resolved'",
        scope.customer_id, issue_id, scope.agent_list, *arguments,
    )  # fmt: skip
    return await issue(conn, scope, issue_id)
