"""Threads as rows: locked in the order of their keys, so that dispatchers side by side never wait in a circle."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dunetrace.signals import Severity
from dunetrace.store.columns import columns
from dunetrace.store.moments import moment
from dunetrace.threads import Thread

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from dunetrace.store.gateway import Connection

ThreadKey = tuple[str, str, str, str]  # customer_id, agent_id, failure_type, destination

COLUMNS = """
t.customer_id, t.agent_id, t.failure_type, t.destination, t.run_id, t.severity, t.life, t.updates,
extract(epoch FROM t.told_at)::float8 AS told_at, extract(epoch FROM t.due_at)::float8 AS due_at
"""
KEYS = "unnest($1::text[], $2::text[], $3::text[], $4::text[]) AS k (customer_id, agent_id, failure_type, destination)"

_LOCKED = f"""
SELECT {COLUMNS} FROM alert_threads t JOIN {KEYS} USING (customer_id, agent_id, failure_type, destination)
ORDER BY t.customer_id, t.agent_id, t.failure_type, t.destination FOR UPDATE OF t
"""  # noqa: S608 - made of constants


async def lock(conn: Connection, keys: Iterable[ThreadKey]) -> dict[ThreadKey, Thread]:
    """All of them, until the transaction ends; those that are not there yet are made, of nothing told."""
    wanted = sorted(set(keys))
    if not wanted:
        return {}
    found = await _locked(conn, wanted)
    if missing := [key for key in wanted if key not in found]:
        # Made of nothing, so that there is something to lock; another dispatcher may just have made them of something.
        await save(conn, dict.fromkeys(missing, Thread()), only_new=True)
        found |= await _locked(conn, missing)
    return found


async def save(conn: Connection, threads: Mapping[ThreadKey, Thread], *, only_new: bool = False) -> None:
    """Write these threads, which are locked; with `only_new`, leave those that are there already as they are."""
    rows = [
        (*key, thread.run_id, thread.severity, thread.life, moment(thread.told_at), thread.updates,
         moment(thread.due_at))
        for key, thread in threads.items()
    ]  # fmt: skip
    if not rows:
        return
    what = (
        "NOTHING"
        if only_new
        else "UPDATE SET run_id = excluded.run_id, severity = excluded.severity, life = excluded.life, "
        "told_at = excluded.told_at, updates = excluded.updates, due_at = excluded.due_at"
    )
    await conn.execute(
        "INSERT INTO alert_threads "  # noqa: S608
        "(customer_id, agent_id, failure_type, destination, run_id, severity, life, told_at, updates, due_at) "
        "SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::int[], "
        "$8::timestamptz[], $9::int[], $10::timestamptz[]) "
        f"ON CONFLICT (customer_id, agent_id, failure_type, destination) DO {what}",
        *columns(rows, 10),
    )


def key_of(row: Any) -> ThreadKey:
    """The key of a row that has its columns."""
    return row["customer_id"], row["agent_id"], row["failure_type"], row["destination"]


def thread_of(row: Any) -> Thread:
    """A row of `COLUMNS`."""
    severity = None if row["severity"] is None else Severity(row["severity"])
    return Thread(row["run_id"], severity, row["life"], row["told_at"], row["updates"], row["due_at"])


async def _locked(conn: Connection, keys: list[ThreadKey]) -> dict[ThreadKey, Thread]:
    return {key_of(row): thread_of(row) for row in await conn.fetch(_LOCKED, *columns(keys, 4))}
