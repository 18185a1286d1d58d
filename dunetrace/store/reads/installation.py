"""Facts of this installation that every host must agree on."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dunetrace.store.gateway import Connection


async def hash_key(conn: Connection) -> bytes:
    """The random key the first migration made, for hashes where no DUNETRACE_HASH_KEY is set."""
    return bytes(await conn.fetchval("SELECT value FROM installation WHERE name = 'hash_key'"))
