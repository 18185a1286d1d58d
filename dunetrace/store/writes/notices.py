"""The one statement of the wake-ups between processes, in a transaction of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dunetrace.store.gateway import Connection


async def notify(conn: Connection, channel: str, payload: str) -> None:
    """Tell every process that listens on `channel`. Harmless to repeat: a hint says "look"."""
    await conn.execute("SELECT pg_notify($1, $2)", channel, payload)
