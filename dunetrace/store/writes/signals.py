"""The signals part of the judging transaction."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, NamedTuple

from dunetrace.signals import FailureSignal, Severity
from dunetrace.store.columns import columns

if TYPE_CHECKING:
    from dunetrace.judgements import Judgement
    from dunetrace.store.gateway import Connection


class Change(NamedTuple):
    """One signal that a judgement wrote; `inserted` is False when it was stored already."""

    judgement: Judgement
    signal: FailureSignal
    inserted: bool

    @property
    def rises(self) -> bool:
        """Whether a stored signal became more severe."""
        stored = self.judgement.case.signals.get(self.signal.failure_type)
        return stored is not None and self.signal.severity.rank > Severity(stored.severity).rank


async def write(conn: Connection, judgements: Sequence[Judgement], at: datetime) -> list[Change]:
    """Insert what is new, update what is stored; in any case one signal a run and failure type."""
    pairs = [(judgement, signal) for judgement in judgements for signal in judgement.signals]
    changes = []
    inserts = []
    for judgement, signal in pairs:
        stored = judgement.case.signals.get(signal.failure_type)
        change = Change(judgement, signal, stored is None)
        changes.append(change)
        values = (
            judgement.case.key[0], signal.run_id, signal.failure_type.value, signal.severity.value, signal.agent_id,
            signal.agent_version, signal.step_index, signal.confidence, signal.evidence, signal.shadow,
            judgement.in_flight,
        )  # fmt: skip
        inserts.append(values)
    if not inserts:
        return changes
    # In key order, as a destination actor marks them alerted: neither ever waits for the other in a circle.
    inserts.sort(key=lambda values: (values[1], values[0], values[2]))
    # A severity only rises, and one that did is due at the dispatcher again: it makes just the missing deliveries.
    # One statement, as everywhere here: a host that freezes between two messages of a pipeline (executemany) never
    # counts as idle in Postgres, which would keep its locks, those on the leases too.
    await conn.execute(
        "INSERT INTO failure_signals AS s (customer_id, run_id, failure_type, severity, agent_id, agent_version, "
        "step_index, confidence, evidence, shadow, in_flight, detected_at, updated_at) "
        "SELECT k.*, $12, $12 FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], "
        "$7::int[], $8::real[], $9::jsonb[], $10::bool[], $11::bool[]) AS k "
        "ON CONFLICT (run_id, customer_id, failure_type) DO UPDATE SET evidence = excluded.evidence, "
        "confidence = excluded.confidence, updated_at = excluded.updated_at, "
        "severity = CASE WHEN severity_rank(excluded.severity) > severity_rank(s.severity) "
        "THEN excluded.severity ELSE s.severity END, "
        "fanned_out_at = CASE WHEN severity_rank(excluded.severity) > severity_rank(s.severity) "
        "THEN NULL ELSE s.fanned_out_at END",
        *columns(inserts, 11), at,
    )  # fmt: skip
    return changes
