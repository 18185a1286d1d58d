"""A person says that an issue is over."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dunetrace.store.reads.issues import issue
from dunetrace.store.reads.paging import Row

if TYPE_CHECKING:
    from dunetrace.store.gateway import Connection
    from dunetrace.store.reads.scope import Scope


async def resolve(conn: Connection, scope: Scope, issue_id: int) -> Row | None:
    """One row, as it is then; None when there is no such issue in scope. One that is resolved already stays as it is.

    Its clean runs go on being counted, and the next affected run reopens it as any other resolved issue.
    """
    await conn.execute(
        "UPDATE issues SET status = 'resolved', resolved_at = now(), resolved_by_hand = TRUE "
        "WHERE id = $2 AND customer_id = $1 AND ($3::text[] IS NULL OR agent_id = ANY($3)) AND status <> 'resolved'",
        scope.customer_id, issue_id, scope.agent_list,
    )  # fmt: skip
    return await issue(conn, scope, issue_id)
