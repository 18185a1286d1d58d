"""A fix a person chose is kept: for which signal, of which kind, by which way."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dunetrace.verdicts import fix_type

if TYPE_CHECKING:
    from dunetrace.store.gateway import Connection
    from dunetrace.store.reads.scope import Scope


async def record_copy(conn: Connection, scope: Scope, signal_id: int, fix_content: str) -> int | None:
    """The id of the fix, one row of ``fixes``; None when there is no such signal in scope.

    The same text for the same signal within a minute is the fix there is: a double click, or a retry after a lost
    answer. The lock on the signal's row keeps two at once apart.
    """
    signal = await conn.fetchrow(
        "SELECT run_id, failure_type FROM failure_signals WHERE id = $2 AND customer_id = $1 "
        "AND ($3::text[] IS NULL OR agent_id = ANY($3)) FOR NO KEY UPDATE",
        scope.customer_id, signal_id, scope.agent_list,
    )  # fmt: skip
    if signal is None:
        return None
    known: int | None = await conn.fetchval(
        "SELECT id FROM fixes WHERE customer_id = $1 AND signal_id = $2 AND fix_content = $3 "
        "AND applied_via = 'clipboard' AND applied_at > clock_timestamp() - interval '1 minute' "
        "ORDER BY applied_at DESC LIMIT 1",
        scope.customer_id, signal_id, fix_content,
    )  # fmt: skip
    if known is not None:
        return known
    made: int = await conn.fetchval(
        "INSERT INTO fixes (customer_id, run_id, signal_id, fix_content, fix_type, applied_via, applied_at) "
        "VALUES ($1, $2, $3, $4, $5, 'clipboard', clock_timestamp()) RETURNING id",
        scope.customer_id, signal["run_id"], signal_id, fix_content, fix_type(signal["failure_type"]),
    )  # fmt: skip
    return made
