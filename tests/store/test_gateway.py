"""The gateway: units of work, what an outage looks like, and no connection lost to a cancellation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import trio

from dunetrace.errors import StoreUnavailableError
from dunetrace.store import gateway as gateway_module
from dunetrace.store.gateway import Gateway, open_gateway

if TYPE_CHECKING:
    from dunetrace.store.gateway import Connection


async def _echo(conn: Connection, value: Any) -> Any:
    return await conn.fetchval("SELECT $1::jsonb", value)


async def _nap(conn: Connection, seconds: float) -> None:
    await conn.execute("SELECT pg_sleep($1)", seconds)


async def _insert_then_fail(conn: Connection) -> None:
    await conn.execute("INSERT INTO destinations (name, kind) VALUES ('x', 'webhook')")
    raise LookupError


async def _count(conn: Connection) -> int:
    return int(await conn.fetchval("SELECT count(*) FROM destinations"))


async def test_json_crosses_as_python_objects(gateway: Gateway) -> None:
    value = {"a": [1, 2.5, None, True, "ü"], "b": {}}
    assert await gateway.unit(_echo, value) == value
    assert gateway.state == "ok"


async def test_a_unit_is_one_transaction(gateway: Gateway) -> None:
    with pytest.raises(LookupError):
        await gateway.unit(_insert_then_fail)
    assert await gateway.unit(_count) == 0


async def test_cancelled_units_give_their_connections_back(gateway: Gateway) -> None:
    for _ in range(gateway_module.POOL_SIZE * 3):
        with trio.move_on_after(0.01):
            await gateway.unit(_nap, 5.0)
    with trio.fail_after(5):
        assert await gateway.unit(_count) == 0


async def test_an_unreachable_database_is_a_state() -> None:
    async with open_gateway("postgresql://nobody@127.0.0.1:1/none") as away:
        for _ in range(2):
            with pytest.raises(StoreUnavailableError):
                await away.unit(_count)
        assert await away.probe() == "unreachable"


async def test_missing_tables_are_a_state(postgres: Any) -> None:
    async with open_gateway(postgres.empty_database()) as empty:
        with pytest.raises(StoreUnavailableError):
            await empty.unit(_count)
        assert empty.state == "schema"
