"""Who asks, and whether they may: the keys, the dev mode, and the one gate both HTTP servers send requests through.

Knows nothing of a web framework: it takes the request's headers (names in lower case) and the key a query or a body
may carry instead, and gives a `Principal` or raises `RefusedError`.
"""

from __future__ import annotations

import hashlib
import ipaddress
import secrets
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Final, NamedTuple

import trio

from dunetrace.errors import StoreUnavailableError
from dunetrace.serving.answers import INVALID_KEY, RefusedError, store_away
from dunetrace.store.writes.keys import use_key
from dunetrace.telemetry import log

if TYPE_CHECKING:
    from dunetrace.store.gateway import Gateway

SCOPES: Final = frozenset({"ingest", "read", "admin"})
ALL_AGENTS: Final = "*"

_PROXIED: Final = frozenset({"forwarded", "via"})
VALID_FOR_S = 60.0  # a revoked key stops working within this
INVALID_FOR_S = 5.0  # a new key starts working within this
LOOKUP_TIMEOUT_S = 5.0
CACHED_KEYS = 10_000  # of each kind, so that guessed keys never push out real ones


class Principal(NamedTuple):
    """Whose request it is. `agent_id` is one agent or `*`; `key_hash` is "" in dev mode."""

    customer_id: str
    agent_id: str
    scopes: frozenset[str]
    key_hash: str = ""

    def may_write(self, agent_id: str) -> bool:
        """True when the key is the agent's own or the customer's."""
        return self.agent_id in (ALL_AGENTS, agent_id)


DEV_PRINCIPAL: Final = Principal("default", ALL_AGENTS, SCOPES)

# Looks an active key up by its hash. Raises StoreUnavailableError while Postgres is away.
FindKey = Callable[[str], Awaitable[Principal | None]]


def keys_of(gateway: Gateway) -> FindKey:
    """The keys in Postgres."""

    async def find(hashed: str) -> Principal | None:
        grant = await gateway.unit(use_key, hashed)
        return None if grant is None else Principal(*grant, hashed)

    return find


def new_key() -> str:
    """A fresh key, shown once; what is stored is its `key_hash`."""
    return f"dt_{secrets.token_urlsafe(32)}"


def key_hash(key: str) -> str:
    """SHA-256 hex of a key."""
    return hashlib.sha256(key.encode("utf-8", "replace")).hexdigest()


def bearer(headers: Mapping[str, str]) -> str:
    """The key of an `Authorization: Bearer` header, "" when there is none."""
    scheme, _, key = headers.get("authorization", "").strip().partition(" ")
    return key.strip() if scheme.lower() == "bearer" else ""


class Gate:
    """Admits requests. One a server; the cache inside is bounded and forgets."""

    def __init__(self, mode: str, find_key: FindKey, now_s: Callable[[], float]) -> None:
        """`mode` is dev or prod; `now_s` is a monotonic clock in seconds."""
        self._is_dev = mode == "dev"
        self._find_key = find_key
        self._now_s = now_s
        self._valid: OrderedDict[str, tuple[float, Principal]] = OrderedDict()
        self._invalid: OrderedDict[str, float] = OrderedDict()
        self._looking: dict[str, trio.Event] = {}

    @property
    def asks_for_key(self) -> bool:
        """False in dev mode, where any key or none is the customer `default`."""
        return not self._is_dev

    def check_origin(self, headers: Mapping[str, str]) -> None:
        """Dev mode trusts whoever can reach a loopback address, and only them. Raises RefusedError 403."""
        if not self._is_dev:
            return
        if not _PROXIED.isdisjoint(headers) or any(name.startswith("x-forwarded-") for name in headers):
            raise RefusedError(
                403, "AUTH_MODE is dev: a request through a proxy is refused; set AUTH_MODE=prod and create a key"
            )
        if not is_loopback(headers.get("host", "")):
            raise RefusedError(
                403, "AUTH_MODE is dev: Host must be a loopback name; set AUTH_MODE=prod and create a key"
            )

    async def admit(self, headers: Mapping[str, str], *, scope: str, key: str = "") -> Principal:
        """The request's principal. A bearer header wins over `key`, which came in the query or the body.

        Raises RefusedError: 401 for an unknown key, 403 for one without `scope`, 503 while keys cannot be looked up.
        """
        if self._is_dev:
            self.check_origin(headers)
            return DEV_PRINCIPAL
        offered = bearer(headers) or key
        principal = await self._principal(key_hash(offered)) if offered else None
        if principal is None:
            raise RefusedError(401, INVALID_KEY, www_authenticate="Bearer")
        if scope not in principal.scopes:
            raise RefusedError(403, f"This key lacks the scope '{scope}'")
        return principal

    async def _principal(self, hashed: str) -> Principal | None:
        while (looking := self._looking.get(hashed)) is not None:  # one lookup a key at a time
            await looking.wait()
        now_s = self._now_s()
        cached = self._valid.get(hashed)
        if cached is not None and now_s < cached[0]:
            self._valid.move_to_end(hashed)
            return cached[1]
        if now_s < self._invalid.get(hashed, 0):
            return None
        looking = self._looking[hashed] = trio.Event()
        try:
            with trio.fail_after(LOOKUP_TIMEOUT_S):
                found = await self._find_key(hashed)
        except (StoreUnavailableError, trio.TooSlowError) as error:
            log.warning("ingest.key_unchecked", known=cached is not None)
            if cached is None:
                raise store_away() from error
            return cached[1]
        finally:
            del self._looking[hashed]
            looking.set()
        self._remember(hashed, found, now_s)
        return found

    def _remember(self, hashed: str, found: Principal | None, now_s: float) -> None:
        if found is None:
            self._valid.pop(hashed, None)
            self._invalid[hashed] = now_s + INVALID_FOR_S
            self._invalid.move_to_end(hashed)
        else:
            self._invalid.pop(hashed, None)
            self._valid[hashed] = (now_s + VALID_FOR_S, found)
            self._valid.move_to_end(hashed)
        for cache in (self._valid, self._invalid):
            if len(cache) > CACHED_KEYS:
                cache.popitem(last=False)


@lru_cache(maxsize=256)  # every request asks, nearly always the same
def is_loopback(host: str) -> bool:
    """True when a Host header, with or without a port, names this machine only."""
    name = host.strip().lower()
    if name.startswith("["):
        name = name[1:].partition("]")[0]
    elif name.count(":") == 1:
        name = name.partition(":")[0]
    name = name.removesuffix(".")
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False
