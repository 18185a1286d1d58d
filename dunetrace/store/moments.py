"""Unix seconds, which the pure rooms reckon in, as the times Postgres takes."""

from __future__ import annotations

from datetime import UTC, datetime


def moment(at: float | None) -> datetime | None:
    """None stays None: it did not happen, or is not due."""
    return None if at is None else datetime.fromtimestamp(at, UTC)
