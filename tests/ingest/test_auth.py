from __future__ import annotations

import pytest
import trio

from dunetrace.errors import StoreUnavailableError
from dunetrace.serving import auth
from dunetrace.serving.answers import RefusedError
from dunetrace.serving.auth import DEV_PRINCIPAL, Gate, Principal, is_loopback, key_hash, new_key

ACME = Principal("acme", "*", frozenset({"ingest"}), key_hash("good"))


class _Keys:
    """A lookup that counts, and can be away."""

    def __init__(self) -> None:
        self.known = {key_hash("good"): ACME}
        self.lookups = 0
        self.away = False
        self.now_s = 1000.0

    async def find(self, hashed: str) -> Principal | None:
        self.lookups += 1
        await trio.lowlevel.checkpoint()
        if self.away:
            raise StoreUnavailableError
        return self.known.get(hashed)

    def gate(self, mode: str = "prod") -> Gate:
        return Gate(mode, self.find, lambda: self.now_s)


async def _status(gate: Gate, key: str, scope: str = "ingest") -> int:
    try:
        await gate.admit({"authorization": f"Bearer {key}"}, scope=scope)
    except RefusedError as refused:
        return refused.status
    return 200


async def test_the_header_wins_over_the_key_in_the_body() -> None:
    gate = _Keys().gate()
    assert await gate.admit({"authorization": "Bearer good"}, scope="ingest", key="bad") == ACME
    assert await gate.admit({"authorization": "bearer   good "}, scope="ingest") == ACME
    assert await gate.admit({}, scope="ingest", key="good") == ACME
    assert await gate.admit({"authorization": "Basic good"}, scope="ingest", key="good") == ACME
    with pytest.raises(RefusedError) as refused:
        await gate.admit({"authorization": "Bearer bad"}, scope="ingest", key="good")
    assert (refused.value.status, refused.value.detail) == (401, "Invalid or inactive API key")


async def test_no_key_is_refused_without_a_lookup() -> None:
    keys = _Keys()
    assert await _status(keys.gate(), "") == 401
    assert keys.lookups == 0


async def test_a_missing_scope_is_a_403_that_names_it() -> None:
    with pytest.raises(RefusedError) as refused:
        await _Keys().gate().admit({"authorization": "Bearer good"}, scope="read")
    assert refused.value.status == 403
    assert "'read'" in str(refused.value.detail)


async def test_a_revoked_key_stops_and_a_new_one_starts_in_time() -> None:
    keys = _Keys()
    gate = keys.gate()
    assert await _status(gate, "good") == 200
    assert await _status(gate, "new") == 401
    keys.known = {key_hash("new"): ACME}
    keys.now_s += auth.INVALID_FOR_S
    assert (await _status(gate, "new"), await _status(gate, "good")) == (200, 200)
    assert keys.lookups == 3
    keys.now_s += auth.VALID_FOR_S
    assert await _status(gate, "good") == 401


async def test_while_postgres_is_away_a_known_key_serves_and_an_unknown_one_is_never_a_401() -> None:
    keys = _Keys()
    gate = keys.gate()
    assert await _status(gate, "good") == 200
    keys.away = True
    keys.now_s += 10 * auth.VALID_FOR_S
    assert (await _status(gate, "good"), await _status(gate, "other")) == (200, 503)


async def test_a_lookup_that_hangs_is_a_503(autojump_clock: trio.testing.MockClock) -> None:
    async def hang(_hashed: str) -> Principal | None:
        await trio.sleep_forever()
        return None

    assert await _status(Gate("prod", hang, trio.current_time), "good") == 503


async def test_many_at_once_with_one_key_make_one_lookup() -> None:
    keys = _Keys()
    gate = keys.gate()
    async with trio.open_nursery() as nursery:
        for _ in range(20):
            nursery.start_soon(_status, gate, "good")
    assert keys.lookups == 1


async def test_guessed_keys_do_not_push_out_real_ones() -> None:
    keys = _Keys()
    gate = keys.gate()
    assert await _status(gate, "good") == 200
    for number in range(auth.CACHED_KEYS + 5):
        assert await _status(gate, f"guess {number}") == 401
    keys.away = True
    assert await _status(gate, "good") == 200
    assert len(gate._invalid) == auth.CACHED_KEYS


async def test_dev_mode_takes_any_key_or_none_from_this_machine() -> None:
    gate = _Keys().gate("dev")
    for headers in ({}, {"authorization": "Bearer whatever"}):
        for scope in ("ingest", "read", "admin"):
            assert await gate.admit({"host": "localhost:8001", **headers}, scope=scope) == DEV_PRINCIPAL


@pytest.mark.parametrize(
    "headers",
    [
        {"host": "dunetrace.example.com"},
        {"host": "192.168.1.5:8001"},
        {},
        {"host": "localhost", "forwarded": "for=1.2.3.4"},
        {"host": "localhost", "via": "1.1 proxy"},
        {"host": "localhost", "x-forwarded-for": "1.2.3.4"},
        {"host": "localhost", "x-forwarded-proto": "https"},
    ],
)
async def test_dev_mode_refuses_what_came_from_elsewhere_and_says_why(headers: dict[str, str]) -> None:
    with pytest.raises(RefusedError) as refused:
        await _Keys().gate("dev").admit(headers, scope="ingest")
    assert refused.value.status == 403
    assert "AUTH_MODE" in str(refused.value.detail)


@pytest.mark.parametrize(
    "host", ["localhost", "LOCALHOST:1", "a.localhost", "127.0.0.1:8001", "127.9.9.9", "[::1]:80", "::1"]
)
def test_loopback_names(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize(
    "host", ["", "localhost.evil.com", "evil.com:8001", "10.0.0.1", "127.0.0.1.evil.com", "[::2]:1", "0.0.0.0"]
)
def test_other_names(host: str) -> None:
    assert not is_loopback(host)


def test_new_keys_differ() -> None:
    assert new_key() != new_key()
    assert len(new_key()) > 40
