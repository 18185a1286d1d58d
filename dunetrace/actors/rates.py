"""Rate contexts for a destination's alerts, counted anew unless counting is dear.

Counting costs time in proportion to the agent's runs, and a burst asks for the same rate again and again. What was
counted is used for `KEPT_FOR` times as long as that took: a small agent's rate is always fresh, a large agent's number
that no single run moves may be some seconds old, and counting takes no more than a few per cent of the time. Where it
is dear an alert waits for a count only when there is none of the last minute; an older one is counted anew beside it.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

import trio

from dunetrace.actors.base import first_of
from dunetrace.errors import StoreUnavailableError
from dunetrace.store.reads.rate import rate_contexts

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dunetrace.explain import RateContext
    from dunetrace.store.gateway import Gateway
    from dunetrace.store.reads.rate import RateKey

KEPT_FOR = 30.0
DEAR_S = 0.005  # for one agent and type
USED_FOR_S = 60.0  # after a dear one should have been counted anew
MOST_KEPT = 1000  # agents and types: a few hundred bytes each


class _Counted(NamedTuple):
    rate: RateContext
    good_until: float
    usable_until: float


class Rates:
    """One destination actor's."""

    def __init__(self) -> None:
        self._counted: dict[RateKey, _Counted] = {}
        self._aged: set[RateKey] = set()
        self._bell = trio.Event()

    async def of(self, gateway: Gateway, keys: Sequence[RateKey]) -> list[RateContext]:
        """The rate of each key. StoreUnavailableError while Postgres is away."""
        asked_at = trio.current_time()
        known = {
            key: kept for key in keys if (kept := self._counted.get(key)) is not None and asked_at < kept.usable_until
        }
        if aged := {key for key, kept in known.items() if asked_at >= kept.good_until}:
            self._aged |= aged
            self._bell.set()
        if missing := [key for key in dict.fromkeys(keys) if key not in known]:
            known |= await self._count(gateway, missing)
        return [known[key].rate for key in keys]

    async def keep_fresh(self, gateway: Gateway, stopping: trio.Event) -> None:
        """Count anew what was asked for and is old, until a stop."""
        while not stopping.is_set():
            await first_of(self._bell.wait, stopping.wait)
            aged, self._aged, self._bell = self._aged, set(), trio.Event()
            with suppress(StoreUnavailableError):  # then whoever needs it next asks again
                await self._count(gateway, list(aged))

    async def _count(self, gateway: Gateway, keys: Sequence[RateKey]) -> dict[RateKey, _Counted]:
        began_at = trio.current_time()
        rates = await gateway.unit(rate_contexts, keys)
        now = trio.current_time()
        good_until = now + KEPT_FOR * (now - began_at)
        usable_until = good_until + (USED_FOR_S if now - began_at > DEAR_S * len(keys) else 0.0)
        counted = {key: _Counted(rate, good_until, usable_until) for key, rate in zip(keys, rates, strict=True)}
        if len(self._counted) + len(counted) > MOST_KEPT:
            self._counted.clear()
        self._counted |= counted
        return counted
