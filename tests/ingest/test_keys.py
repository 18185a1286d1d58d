"""Keys and deploys in a real Postgres."""

from __future__ import annotations

import time

import trio

from dunetrace.serving.auth import Gate, Principal, key_hash, keys_of, new_key
from dunetrace.store.gateway import Connection, Gateway
from dunetrace.store.reads.keys import any_key, list_keys
from dunetrace.store.reads.scope import Scope
from dunetrace.store.writes.deploys import mark_deploy
from dunetrace.store.writes.keys import create_key, revoke_key


async def test_a_key_opens_until_it_is_revoked(gateway: Gateway) -> None:
    key = new_key()
    hashed = key_hash(key)
    now_s = 1000.0
    gate = Gate("prod", keys_of(gateway), lambda: now_s)
    assert not await gateway.unit(any_key)
    for _ in range(2):
        await gateway.unit(create_key, hashed, "acme", "billing", {"read", "ingest"})
    assert await gateway.unit(any_key)
    headers = {"authorization": f"Bearer {key}"}
    expected = Principal("acme", "billing", frozenset({"ingest", "read"}), hashed)
    assert await gate.admit(headers, scope="ingest") == expected

    (listed,) = await gateway.unit(list_keys, Scope("acme"))
    assert (listed.key_hash, listed.agent_id, listed.scopes, listed.active) == (
        hashed,
        "billing",
        ("ingest", "read"),
        True,
    )
    assert abs((listed.last_used_at or 0) - time.time()) < 60
    assert key not in repr(listed)

    assert await gateway.unit(revoke_key, "other", hashed[:8]) == 0
    assert await gateway.unit(revoke_key, "acme", "nothing like it") == 0
    assert await keys_of(gateway)(hashed) == expected
    assert await gateway.unit(revoke_key, "acme", hashed[:8]) == 1
    assert await keys_of(gateway)(hashed) is None
    assert not await gateway.unit(any_key)


async def test_a_prefix_of_several_keys_revokes_none(gateway: Gateway) -> None:
    for number in (1, 2):
        await gateway.unit(create_key, f"abc{number}", "acme", "*", {"read"})
    assert await gateway.unit(revoke_key, "acme", "abc") == 2
    assert [row.active for row in await gateway.unit(list_keys, Scope("acme"))] == [True, True]
    assert await gateway.unit(list_keys, Scope("other")) == []


async def test_a_deploy_sent_twice_is_one_mark(gateway: Gateway) -> None:
    made: list[tuple[int, float]] = []

    async def mark(version: str) -> None:
        made.append(await gateway.unit(mark_deploy, "acme", "billing", version))

    async with trio.open_nursery() as nursery:
        for version in ("v1", "v1", "v1", "v2"):
            nursery.start_soon(mark, version)
    assert len(set(made)) == 2
    assert await gateway.unit(_deploys) == [("acme", "billing", "v1"), ("acme", "billing", "v2")]
    assert all(abs(at - time.time()) < 60 for _, at in made)


async def _deploys(conn: Connection) -> list[tuple[str, str, str]]:
    rows = await conn.fetch("SELECT customer_id, agent_id, version FROM deploys ORDER BY version")
    return [tuple(row) for row in rows]
