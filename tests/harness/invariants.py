"""The checker every crash test ends with: wait until the server is quiet, then look for whatever is not as promised."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Coroutine, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar

import asyncpg
import trio

from tests.harness.checks import CHECKS, PENDING
from tests.harness.load import EventName, Ledger
from tests.harness.server import Server

T = TypeVar("T")
SHOWN = 5  # rows of one kind of violation that are told; the rest is counted
LOOK_S = 0.1
_STORED = "SELECT run_id, timestamp, count(*) AS times FROM events GROUP BY 1, 2"


def violations(url: str, ledger: Ledger | None = None, *, min_severity: Mapping[str, str] | None = None) -> list[str]:
    """What is not as promised in the database at `url`, in plain words; empty when all is well.

    Call it once the server is quiet (`settle`). `ledger` is what a load generator was promised, the only writer;
    `min_severity` maps a destination's name to the lowest severity it wants (default: all).
    """
    return _on_a_thread(_violations, url, ledger, dict(min_severity or {}))


async def settle(
    url: str,
    ledger: Ledger | None = None,
    *,
    server: Server | None = None,
    timeout_s: float = 60,
    delivered: bool = True,
) -> None:
    """Wait until no state row says that there is work left. AssertionError, saying what is left, after `timeout_s`.

    With `ledger`, its accepted events have to be stored first; with `server`, everything it has accepted.
    `delivered=False` doesn't wait for deliveries, for tests whose receiver is down.
    """
    deadline = trio.current_time() + timeout_s
    while server is not None and not await trio.to_thread.run_sync(server.has_stored_all):
        assert trio.current_time() < deadline, f"the journal is not empty after {timeout_s} s"
        await trio.sleep(LOOK_S)
    while left := await trio.to_thread.run_sync(_on_a_thread, _pending, url, ledger, delivered):
        assert trio.current_time() < deadline, f"not quiet after {timeout_s} s: {'; '.join(left)}"
        await trio.sleep(LOOK_S)


async def assert_invariants(
    url: str,
    ledger: Ledger | None = None,
    *,
    server: Server | None = None,
    timeout_s: float = 60,
    delivered: bool = True,
    min_severity: Mapping[str, str] | None = None,
) -> None:
    """`settle`, then AssertionError with every violation found."""
    await settle(url, ledger, server=server, timeout_s=timeout_s, delivered=delivered)
    found = await trio.to_thread.run_sync(partial(violations, url, ledger, min_severity=min_severity))
    assert not found, "\n".join(found)


def rows(url: str, sql: str, *args: object) -> list[Any]:
    """The rows of one query, for a test that looks at a table itself."""
    return _on_a_thread(_fetch, url, sql, *args)


async def _fetch(conn: Any, sql: str, *args: object) -> list[Any]:
    found: list[Any] = await conn.fetch(sql, *args)
    return found


async def _violations(conn: Any, ledger: Ledger | None, min_severity: dict[str, str]) -> list[str]:
    found = []
    for check in CHECKS:
        arguments = [json.dumps(min_severity)] if "$1" in check.sql else []
        found += [_sentence(check.words, row) for row in await conn.fetch(check.sql, *arguments)]
    return (await _against_ledger(conn, ledger) if ledger else []) + _shortened(found)


async def _against_ledger(conn: Any, ledger: Ledger) -> list[str]:
    stored = {(row["run_id"], row["timestamp"]): row["times"] for row in await _fetch(conn, _STORED)}
    kinds: dict[str, list[EventName]] = {
        "an accepted event was lost": sorted(ledger.accepted - stored.keys()),
        "a sent event was stored more than once": sorted(name for name, times in stored.items() if times > 1),
        "an event was stored that nobody sent": sorted(stored.keys() - ledger.sent),
    }
    return _shortened([f"{words}: run_id={name[0]}, timestamp={name[1]}" for words in kinds for name in kinds[words]])


async def _pending(conn: Any, ledger: Ledger | None, delivered: bool) -> list[str]:
    left = []
    if ledger is not None:
        stored = {(row["run_id"], row["timestamp"]) for row in await _fetch(conn, _STORED)}
        if missing := len(ledger.accepted - stored):
            left.append(f"accepted events are not stored: {missing}")
    counts = {check.words: await conn.fetchval(check.sql) for check in (PENDING if delivered else PENDING[:-1])}
    return left + [f"{words}: {count}" for words, count in counts.items() if count]


def _sentence(words: str, row: Any) -> str:
    return f"{words}: " + ", ".join(f"{name}={value}" for name, value in row.items())


def _shortened(found: list[str]) -> list[str]:
    """At most `SHOWN` of each kind."""
    kinds: dict[str, list[str]] = {}
    for sentence in found:
        kinds.setdefault(sentence.split(":")[0], []).append(sentence)
    shown = []
    for kind, sentences in kinds.items():
        shown += sentences[:SHOWN]
        if len(sentences) > SHOWN:
            shown.append(f"{kind}: {len(sentences) - SHOWN} more")
    return shown


def _on_a_thread(fn: Callable[..., Coroutine[Any, Any, T]], url: str, *args: object) -> T:
    """On a thread of its own, because asyncio would find trio's loop; in one read-only snapshot."""

    async def go() -> T:
        conn = await asyncpg.connect(url)
        try:
            async with conn.transaction(isolation="repeatable_read", readonly=True):
                return await fn(conn, *args)
        finally:
            await conn.close()

    with ThreadPoolExecutor(1) as pool:
        return pool.submit(lambda: asyncio.run(go())).result()
