"""Rows for the API to read, put straight into the tables; a test names only the values it is about."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import UTC, date, datetime
from itertools import count
from typing import TYPE_CHECKING, Any

from dunetrace.serving.auth import key_hash
from dunetrace.store.gateway import Gateway

if TYPE_CHECKING:
    from dunetrace.store.gateway import Connection

NOON = 1_795_348_800.0  # 2026-11-22T12:00:00Z, the tests' now
_numbers = count(1)

LOOP_EVIDENCE = {
    "kind": "equal",
    "tool_name": "web_search",
    "args_hash": "ab" * 32,
    "same_arguments": True,
    "call_count": 3,
    "threshold": 3,
    "window": 5,
    "first_step": 2,
    "last_step": 6,
    "wasted_calls": 2,
    "wasted_ms": 40,
    "wasted_tokens": 0,
}


def at(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def day(seconds: float) -> date:
    return at(seconds).date()


class Rows:
    """One insert a call."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    async def agent(self, agent_id: str, *, seen: float = NOON, runs: int = 1, customer: str = "default") -> None:
        await self._insert(
            "agents", customer_id=customer, agent_id=agent_id, first_seen=at(seen), last_seen=at(seen), run_count=runs
        )

    async def signal_hour(
        self,
        agent_id: str,
        *,
        failure_type: str = "TOOL_LOOP",
        severity: str = "HIGH",
        hour: float = NOON,
        n: int = 1,
        version: str = "6ddeb0c4",
        customer: str = "default",
    ) -> None:
        await self._insert(
            "signal_hours",
            customer_id=customer,
            agent_id=agent_id,
            agent_version=version,
            failure_type=failure_type,
            severity=severity,
            hour=at(hour),
            signal_count=n,
        )

    async def loss(self, agent_id: str, dropped: int, *, customer: str = "default") -> None:
        await self._insert(
            "sender_losses",
            customer_id=customer,
            agent_id=agent_id,
            loss_key=f"loss-{next(_numbers)}",
            dropped=dropped,
            received_at=at(NOON),
        )

    async def run(
        self, run_id: str, agent_id: str = "a", *, started: float = NOON, customer: str = "default", **columns: Any
    ) -> None:
        """Completed by default; pass `trigger=None, ended_at=None` for one that goes on."""
        row: dict[str, Any] = {
            "run_id": run_id,
            "customer_id": customer,
            "bucket": 0,
            "agent_id": agent_id,
            "agent_version": "6ddeb0c4",
            "started_at": started,
            "ended_at": started + 2.5,
            "first_day": day(started),
            "last_day": day(started),
            "start_day": day(started),
            "start_hour": at(started - started % 3600),
            "last_received_at": at(started + 2.5),
            "step_count": 3,
            "total_tokens": 120,
            "trigger": "run.completed",
        }
        await self._insert("runs", **row | columns)

    async def event(
        self,
        run_id: str,
        event_type: str = "tool.called",
        agent_id: str = "a",
        *,
        step: int = 1,
        timestamp: float = NOON,
        payload: dict[str, Any] | None = None,
        customer: str = "default",
        parent: str | None = None,
        on: date | None = None,
    ) -> None:
        await self._insert(
            "events",
            customer_id=customer,
            batch_id="b",
            event_type=event_type,
            run_id=run_id,
            agent_id=agent_id,
            agent_version="6ddeb0c4",
            step_index=step,
            timestamp=timestamp,
            payload=payload or {},
            parent_run_id=parent,
            event_key=f"key-{next(_numbers)}",
            day=on or day(timestamp),
        )

    async def many_events(self, run_id: str, n: int, payload: dict[str, Any]) -> None:
        """`n` events of one day, numbered by their steps, in one statement."""
        await self._gateway.unit(_many_events, run_id, n, payload, day(NOON))

    async def signal(
        self,
        run_id: str,
        agent_id: str = "a",
        *,
        failure_type: str = "TOOL_LOOP",
        severity: str = "HIGH",
        detected: float = NOON,
        customer: str = "default",
        **columns: Any,
    ) -> int:
        row: dict[str, Any] = {
            "customer_id": customer,
            "failure_type": failure_type,
            "severity": severity,
            "run_id": run_id,
            "agent_id": agent_id,
            "agent_version": "6ddeb0c4",
            "step_index": 6,
            "confidence": 0.9,
            "evidence": LOOP_EVIDENCE,
            "detected_at": at(detected),
            "shadow": False,
        }
        return int(await self._insert("failure_signals", returning="id", **row | columns))

    async def hour(
        self, agent_id: str = "a", *, hour: float = NOON, runs: int = 1, tokens: int = 0, version: str = "6ddeb0c4",
        customer: str = "default",
    ) -> None:  # fmt: skip
        await self._insert(
            "agent_hours",
            customer_id=customer,
            agent_id=agent_id,
            agent_version=version,
            hour=at(hour),
            run_count=runs,
            total_tokens=tokens,
        )

    async def deploy(
        self, version: str, agent_id: str = "a", *, deployed: float = NOON, customer: str = "default"
    ) -> None:
        await self._insert(
            "deploys", customer_id=customer, agent_id=agent_id, version=version, deployed_at=at(deployed)
        )

    async def fix(self, signal_id: int, *, applied: float = NOON, customer: str = "default", **columns: Any) -> int:
        row = {
            "customer_id": customer, "run_id": "r", "signal_id": signal_id, "fix_content": "x",
            "applied_via": "clipboard", "applied_at": at(applied),
        }  # fmt: skip
        return int(await self._insert("fixes", returning="id", **row | columns))

    async def issue(
        self,
        agent_id: str = "a",
        *,
        failure_type: str = "TOOL_LOOP",
        status: str = "open",
        first: float = NOON,
        last: float = NOON,
        resolved: float | None = None,
        affected: int = 1,
        clean: int = 0,
        customer: str = "default",
    ) -> int:
        return int(
            await self._insert(
                "issues",
                returning="id",
                customer_id=customer,
                agent_id=agent_id,
                failure_type=failure_type,
                status=status,
                first_seen=at(first),
                last_seen=at(last),
                resolved_at=None if resolved is None else at(resolved),
                affected_runs=affected,
                clean_runs_since=clean,
            )
        )

    async def key(
        self,
        key: str,
        *,
        customer: str = "default",
        agent_id: str = "*",
        scopes: tuple[str, ...] = ("read",),
        active: bool = True,
    ) -> None:
        await self._insert(
            "api_keys",
            key_hash=key_hash(key),
            customer_id=customer,
            agent_id=agent_id,
            scopes=list(scopes),
            active=active,
        )

    async def value(self, query: str) -> Any:
        return await self._gateway.unit(_value, query)

    async def row(self, query: str) -> dict[str, Any]:
        return await self._gateway.unit(_row, query)

    async def sql(self, statement: str) -> None:
        await self._gateway.unit(_execute, statement)

    async def _insert(self, table: str, *, returning: str = "", **columns: Any) -> Any:
        return await self._gateway.unit(_insert, table, columns, returning)


async def _insert(conn: Connection, table: str, columns: dict[str, Any], returning: str) -> Any:
    places = ", ".join(f"${number}" for number in range(1, len(columns) + 1))
    statement = f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({places})"
    return await conn.fetchval(f"{statement} RETURNING {returning}" if returning else statement, *columns.values())


async def _value(conn: Connection, query: str) -> Any:
    return await conn.fetchval(query)


async def _row(conn: Connection, query: str) -> dict[str, Any]:
    record = await conn.fetchrow(query)
    assert record is not None
    return dict(record)


async def _execute(conn: Connection, statement: str) -> None:
    await conn.execute(statement)


async def _many_events(conn: Connection, run_id: str, n: int, payload: dict[str, Any], on: date) -> None:
    await conn.execute(
        """
        INSERT INTO events (batch_id, event_type, run_id, agent_id, agent_version, step_index, timestamp, payload,
                            event_key, day)
        SELECT 'b', 'tool.called', $1, 'a', '6ddeb0c4', step, 1795348800 + step, $2, 'many-' || step, $4
        FROM generate_series(1, $3) AS step
        """,
        run_id,
        payload,
        n,
        on,
    )


class CountingReads:
    """The real gateway, and a list of the statements each unit of work sends."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self.units: list[list[str]] = []

    async def unit(self, fn: Callable[..., Awaitable[Any]], *args: Any, **kwargs: Any) -> Any:
        statements: list[str] = []
        self.units.append(statements)

        async def counted(conn: Any) -> Any:
            with conn.query_logger(lambda record: statements.append(record.query)):
                return await fn(conn, *args, **kwargs)

        return await self._gateway.unit(counted)
