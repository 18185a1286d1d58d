"""Rate contexts for a destination's alerts, counted anew unless counting is dear.

Counting costs time in proportion to the agent's runs, and a burst asks for the same rate again and again. What is
missing for some alerts is counted in one go, and used for `KEPT_FOR` times as long as that took: a small agent's rate
is always fresh, a large agent's number that no single run moves may be some seconds old, and counting takes no more
than a few per cent of the time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import trio

from dunetrace.store.reads.rate import rate_contexts

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dunetrace.explain import RateContext
    from dunetrace.store.gateway import Gateway
    from dunetrace.store.reads.rate import RateKey

KEPT_FOR = 30.0
MOST_KEPT = 1000  # agents and types: a few hundred bytes each


class _Counted(NamedTuple):
    rate: RateContext
    good_until: float


class Rates:
    """One destination actor's."""

    def __init__(self) -> None:
        self._counted: dict[RateKey, _Counted] = {}

    async def of(self, gateway: Gateway, keys: Sequence[RateKey]) -> list[RateContext]:
        """The rate of each key. StoreUnavailableError while Postgres is away."""
        asked_at = trio.current_time()
        rates = {key: kept.rate for key in keys if (kept := self._counted.get(key)) and asked_at < kept.good_until}
        missing = [key for key in dict.fromkeys(keys) if key not in rates]
        if missing:
            counted = await gateway.unit(rate_contexts, missing)
            rates |= zip(missing, counted, strict=True)
            self._remember(missing, rates, KEPT_FOR * (trio.current_time() - asked_at))
        return [rates[key] for key in keys]

    def _remember(self, keys: Sequence[RateKey], rates: dict[RateKey, RateContext], for_s: float) -> None:
        if len(self._counted) + len(keys) > MOST_KEPT:
            self._counted.clear()
        good_until = trio.current_time() + for_s
        self._counted |= {key: _Counted(rates[key], good_until) for key in keys}
