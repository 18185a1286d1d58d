"""A signal's row with its explanation beside it, as the API shows it."""

from __future__ import annotations

from typing import Any, cast

from msgspec import convert

from dunetrace.explain import explain
from dunetrace.serving.api import shapes
from dunetrace.signals import FailureSignal, FailureType, Severity
from dunetrace.store.reads.paging import Row


def signals(rows: list[Row], explained: bool) -> list[shapes.Signal]:
    """The signals of rows of ``failure_signals``; without the words when not `explained`."""
    if not explained:
        return convert(rows, list[shapes.Signal])
    return convert([row | _words(row) for row in rows], list[shapes.Signal])


def signal_of(row: Row) -> FailureSignal:
    """The signal a row of ``failure_signals`` keeps."""
    return FailureSignal(
        # Not converted: a row may hold a type that only a later release knows, and `explain` has words for that too.
        failure_type=cast("FailureType", row["failure_type"]),
        severity=cast("Severity", row["severity"]),
        run_id=row["run_id"],
        agent_id=row["agent_id"],
        agent_version=row["agent_version"],
        step_index=row["step_index"],
        confidence=row["confidence"],
        evidence=row["evidence"],
        shadow=row["shadow"],
    )


def _words(row: Row) -> dict[str, Any]:
    return explain(signal_of(row)).as_json()
