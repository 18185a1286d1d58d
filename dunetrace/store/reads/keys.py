"""The keys of a customer as `keys list` shows them, and whether there is any key at all.

A key's own row is looked up by `store/writes/keys.use_key`, which also notes that it was used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from dunetrace.store.gateway import Connection
    from dunetrace.store.reads.scope import Scope


class KeyRow(NamedTuple):
    """One key. Times are Unix seconds; `last_used_at` is true to the minute, None while it was never used."""

    key_hash: str
    customer_id: str
    agent_id: str
    scopes: tuple[str, ...]
    active: bool
    created_at: float
    last_used_at: float | None


async def list_keys(conn: Connection, scope: Scope) -> list[KeyRow]:
    """The customer's keys, oldest first, revoked ones too."""
    rows = await conn.fetch(
        """
        SELECT key_hash, customer_id, agent_id, scopes, active,
               extract(epoch FROM created_at)::float8 AS created_at,
               extract(epoch FROM last_used_at)::float8 AS last_used_at
        FROM api_keys
        WHERE customer_id = $1 AND ($2::text[] IS NULL OR agent_id = ANY($2))
        ORDER BY api_keys.created_at, key_hash
        """,
        scope.customer_id,
        scope.agent_list,
    )
    return [KeyRow(**{**row, "scopes": tuple(row["scopes"])}) for row in rows]


async def any_key(conn: Connection) -> bool:
    """False when nobody could be let in: a start in prod mode then says how to create a key."""
    return bool(await conn.fetchval("SELECT EXISTS (SELECT FROM api_keys WHERE active)"))
