"""A fix a person chose is kept: for which signal, of which kind, by which way. And who is at which prompt meanwhile."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from dunetrace.verdicts import fix_type

if TYPE_CHECKING:
    from uuid import UUID

    from dunetrace.store.gateway import Connection
    from dunetrace.store.reads.scope import Scope


class Wanted(NamedTuple):
    """A fix to be put into a prompt: whose, for which signal, what text, into which prompt of Langfuse's."""

    customer_id: str
    signal_id: int
    run_id: str
    failure_type: str
    content: str
    prompt_name: str


_RECORD = """
INSERT INTO fixes (customer_id, run_id, signal_id, fix_content, fix_type, applied_via, langfuse_prompt_name,
                   langfuse_version, applied_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, clock_timestamp()) RETURNING id
"""


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
        _RECORD, scope.customer_id, signal["run_id"], signal_id, fix_content, fix_type(signal["failure_type"]),
        "clipboard", None, None,
    )  # fmt: skip
    return made


async def claim_prompt(conn: Connection, wanted: Wanted, holder: UUID, for_s: float) -> bool:
    """Whether `holder` has the prompt now. A claim ends by itself after `for_s`, if its holder died."""
    return bool(
        await conn.fetchval(
            """
            INSERT INTO prompt_claims AS c (customer_id, langfuse_prompt_name, holder, expires_at)
            VALUES ($1, $2, $3, clock_timestamp() + make_interval(secs => $4))
            ON CONFLICT (customer_id, langfuse_prompt_name) DO UPDATE
            SET holder = excluded.holder, expires_at = excluded.expires_at
            WHERE c.expires_at < clock_timestamp() OR c.holder = excluded.holder
            RETURNING TRUE
            """,
            wanted.customer_id, wanted.prompt_name, holder, for_s,
        )
    )  # fmt: skip


async def release_prompt(conn: Connection, wanted: Wanted, holder: UUID) -> None:
    """Give the prompt back, unless the claim ended and somebody else has it."""
    await conn.execute(
        "DELETE FROM prompt_claims WHERE customer_id = $1 AND langfuse_prompt_name = $2 AND holder = $3",
        wanted.customer_id, wanted.prompt_name, holder,
    )  # fmt: skip


async def record_applied(conn: Connection, wanted: Wanted, version: int, is_new: bool) -> int:
    """The id of the fix in `version` of the prompt, one row of ``fixes``.

    Where the version is not new, because the prompt held the fix already: the fix there is, whatever version it made.
    """
    known: int | None = await conn.fetchval(
        "SELECT id FROM fixes WHERE customer_id = $1 AND signal_id = $2 AND fix_content = $3 "
        "AND applied_via = 'langfuse' AND langfuse_prompt_name = $4 AND (langfuse_version = $5 OR NOT $6) "
        "ORDER BY applied_at DESC, id DESC LIMIT 1",
        wanted.customer_id, wanted.signal_id, wanted.content, wanted.prompt_name, version, is_new,
    )  # fmt: skip
    if known is not None:
        return known
    made: int = await conn.fetchval(
        _RECORD, wanted.customer_id, wanted.run_id, wanted.signal_id, wanted.content, fix_type(wanted.failure_type),
        "langfuse", wanted.prompt_name, version,
    )  # fmt: skip
    return made
