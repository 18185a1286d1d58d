"""A weekly digest that is owed, without waiting for a week."""

from __future__ import annotations

from datetime import UTC, datetime

from tests.harness.world import execute

_SHIFTED = (
    ("agent_hours", "hour"),
    ("signal_hours", "hour"),
    ("failure_signals", "detected_at"),
    ("issues", "first_seen"),
)


def due_now() -> dict[str, str]:
    """The settings by which the digests of this week are due just now."""
    now = datetime.now(UTC)
    return {"DIGEST_DAY": str(now.weekday()), "DIGEST_HOUR": str(now.hour)}


def owe(database: str) -> None:
    """Make what was found two hours older and owe the digests that hold it: they are sent at the next start."""
    older = [f"UPDATE {table} SET {column} = {column} - interval '2 hours'" for table, column in _SHIFTED]
    execute(database, *older, "UPDATE digests SET due_at = due_at - interval '7 days'")
