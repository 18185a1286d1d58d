"""Keys are created, used and revoked. Only a key's SHA-256 is ever stored."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from dunetrace.store.gateway import Connection


class Grant(NamedTuple):
    """What an active key allows: one customer, one agent or all (`*`), these scopes."""

    customer_id: str
    agent_id: str
    scopes: frozenset[str]


async def use_key(conn: Connection, key_hash: str) -> Grant | None:
    """What the key allows, None when there is no such active key; notes the time. One statement, safe to repeat.

    Takes no Scope because it is where a scope comes from. Callers remember the answer for a minute.
    """
    row = await conn.fetchrow(
        """
        UPDATE api_keys SET last_used_at = now() WHERE key_hash = $1 AND active
        RETURNING customer_id, agent_id, scopes
        """,
        key_hash,
    )
    return None if row is None else Grant(row["customer_id"], row["agent_id"], frozenset(row["scopes"]))


async def create_key(conn: Connection, key_hash: str, customer_id: str, agent_id: str, scopes: Iterable[str]) -> None:
    """One row, once: the same hash again changes nothing. `agent_id` is `*` for all of the customer's agents."""
    await conn.execute(
        """
        INSERT INTO api_keys (key_hash, customer_id, agent_id, scopes) VALUES ($1, $2, $3, $4)
        ON CONFLICT (key_hash) DO NOTHING
        """,
        key_hash,
        customer_id,
        agent_id,
        sorted(scopes),
    )


async def revoke_key(conn: Connection, customer_id: str, hash_prefix: str) -> int:
    """Makes the customer's keys whose hash starts with `hash_prefix` inactive; how many there are. Safe to repeat.

    A prefix that fits several keys revokes none of them, so that nothing is cut off by a short prefix.
    """
    found = await conn.fetch(
        "SELECT key_hash FROM api_keys WHERE customer_id = $1 AND starts_with(key_hash, $2)", customer_id, hash_prefix
    )
    if len(found) == 1:
        await conn.execute("UPDATE api_keys SET active = FALSE WHERE key_hash = $1", found[0]["key_hash"])
    return len(found)
