"""``python -m bench ingest``: how much the door takes, against what was asked of it, a usual door, and a bare COPY.

Client, servers and Postgres share the machine, and rows of ours and of the usual door (`bench.rival`) alternate. What
is counted is what has arrived in Postgres, the wait for it included. `bench.whole` measures everything at once.
"""

from __future__ import annotations

import os
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from bench.doors import Door, Ground, ground
from bench.processes import Memory, memory_watched, written_bytes
from dunetrace.store.embedded import EmbeddedPostgres

ROUNDS = 3  # of ours and the rival's in turn
ROWS = ("single", "ten", "latency", "hundred", "overload")
WARM_UP_S = 2.0
COPY_SHARE = 1 / 15  # of the sustained row's time, before it and after it
HEAP = "SELECT pg_table_size('events')"
INDEX = "SELECT pg_indexes_size('events')"
WAL = "SELECT pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0')::bigint"


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    what: str
    asked: str
    seen: str


def measure(rows: Sequence[str], seconds: float, sustained_s: float) -> Iterator[Row]:
    """The rows asked for, as they are done."""
    with ground(seconds) as both:
        for door in (both.ours, both.usual, both.careful):
            door.load(seconds=WARM_UP_S)
            door.settle()
        if "single" in rows:
            yield _requests(both, 1, "≥ 3,500, and ≥ 10 × FastAPI")
        if "ten" in rows:
            yield _requests(both, 10, "≥ 2,500")
        if "latency" in rows:
            yield _latency(both.ours)
        if "hundred" in rows:
            yield from _sustained(both, sustained_s)
        if "overload" in rows:
            yield from _overload(both, sustained_s / 2)
        yield _exactly_once(both.ours)


def _requests(both: Ground, batch: int, asked: str) -> Row:
    rates: tuple[list[float], ...] = ([], [], [])
    for _ in range(ROUNDS):
        for door, seen in zip((both.ours, both.usual, both.careful), rates, strict=True):
            result, took_s = door.arrived(batch=batch)
            seen.append(result.statuses.get("202", 0) / took_s)
    ours, usual, careful = map(statistics.median, rates)
    return Row(
        f"requests/s with {batch} event{'s' if batch > 1 else ''}, 16 connections",
        asked,
        f"{ours:,.0f}; FastAPI {careful:,.0f}: {ours / careful:.1f} ×, {usual:,.0f} when its 202 promises nothing: "
        f"{ours / usual:.1f} ×",
    )


def _latency(ours: Door) -> Row:
    paced = ours.load(batch=1, rate=1000, seconds=ours.seconds * 2)
    ours.settle()
    return Row(
        "the 202 at 1,000 single-event requests/s",
        "p50 ≤ 5 ms, p99 ≤ 25 ms",
        f"p50 {paced.p50_ms:.1f} ms, p99 {paced.p99_ms:.1f} ms, most {paced.max_ms:.0f} ms",
    )


def _sustained(both: Ground, seconds: float) -> Iterator[Row]:
    usual, usual_s = both.usual.arrived(batch=100)
    ours = both.ours
    before = ours.copied_per_s(seconds * COPY_SHARE)
    sizes = _sizes(both)
    result, took_s = ours.arrived(batch=100, connections=32, seconds=seconds)
    heap, index, wal, journal = (
        (now - then) / result.accepted_events for now, then in zip(_sizes(both), sizes, strict=True)
    )
    after = ours.copied_per_s(seconds * COPY_SHARE)
    rate, copying = result.accepted_events / took_s, statistics.mean((before, after))
    yield Row(
        f"events/s arriving in Postgres for {seconds:.0f} s, 100 a request",
        "≥ 60,000, and ≥ 50 % of COPY",
        f"{rate:,.0f}; COPY {copying:,.0f} ({before:,.0f} before, {after:,.0f} after): {rate / copying:.0%}",
    )
    yield Row("the same, FastAPI", "–", f"{usual.accepted_events / usual_s:,.0f}")
    yield Row("bytes an event keeps on disk", "–", f"{heap:,.0f} in the table, {index:,.0f} in its index")
    yield Row("bytes an event writes on its way", "–", f"{journal:,.0f} to the journal, {wal:,.0f} to Postgres's WAL")


def _sizes(both: Ground) -> list[int]:
    """Bytes so far: the table's heap, its index, the write-ahead log, and what the server wrote to its own disk."""
    return [*map(both.ours.query, (HEAP, INDEX, WAL)), written_bytes(both.server.pid)]


def _overload(both: Ground, seconds: float) -> Iterator[Row]:
    ours, peak, over = both.ours, [], []
    postmaster = EmbeddedPostgres(both.server.data_dir).running_pid() or 0
    memory = Memory()
    for _ in range(ROUNDS):
        peak.append(ours.load(connections=64, seconds=seconds / 3).events_per_s)
        ours.settle()
        with memory_watched(memory, both.server.pid, postmaster):
            over.append(ours.load(connections=256, retry=True, seconds=seconds).events_per_s)
        ours.settle()
    best, loaded = statistics.median(peak), statistics.median(over)
    yield Row(
        "events/s accepted from 256 clients that retry at once, against 64 that do not",
        "≥ 80 %",
        f"{loaded:,.0f} and {best:,.0f}: {loaded / best:.0%}",
    )
    yield Row(f"memory of the server in {seconds * ROUNDS:.0f} s of that", "flat, ≤ 300 MiB", _flat(memory.server_mib))
    yield Row("memory of Postgres meanwhile", "–", _flat(memory.postgres_mib))


def _flat(samples_mib: Sequence[float]) -> str:
    late = samples_mib[(len(samples_mib) - 1) // 2 :]
    a_minute = statistics.linear_regression(range(len(late)), late).slope * 60
    return (
        f"{samples_mib[0]:.0f} MiB at first, {statistics.median(samples_mib):.0f} in the middle, "
        f"{max(samples_mib):.0f} at most; {a_minute:+.1f} MiB a minute in the second half"
    )


def _exactly_once(ours: Door) -> Row:
    """SystemExit when events were lost or are there twice."""
    ours.settle()
    stored = ours.stored()
    if not ours.counts.accepted <= stored <= ours.counts.accepted + ours.counts.uncertain:
        raise SystemExit(f"{ours.counts.accepted:,} events were accepted, and {stored:,} are stored")
    without = f"; {ours.counts.uncertain:,} had no answer" if ours.counts.uncertain else ""
    return Row("events accepted, and stored", "equal", f"{ours.counts.accepted:,} and {stored:,}{without}")


def cores() -> int:
    return len(os.sched_getaffinity(0))
