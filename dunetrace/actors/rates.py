"""Rate contexts for a destination's alerts, counted anew unless counting is dear.

Counting costs time in proportion to the agent's runs, and a burst asks for the same rate again and again. A rate is
therefore used for `KEPT_FOR` times as long as it took to count: a small agent's is always fresh, a large agent's number
that no single run moves may be some seconds old, and counting never takes more than a few per cent of the time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import trio

from dunetrace.store.reads.rate import rate_context
from dunetrace.store.reads.scope import Scope

if TYPE_CHECKING:
    from dunetrace.explain import RateContext
    from dunetrace.signals import FailureSignal, FailureType
    from dunetrace.store.gateway import Gateway

KEPT_FOR = 30.0
MOST_KEPT = 1000  # agents and types: a few hundred bytes each


class _Counted(NamedTuple):
    rate: RateContext
    good_until: float


class Rates:
    """One destination actor's."""

    def __init__(self) -> None:
        self._counted: dict[tuple[str, str, FailureType], _Counted] = {}

    async def of(self, gateway: Gateway, customer_id: str, signal: FailureSignal) -> RateContext:
        """The rate of the signal's type among its agent's runs. StoreUnavailableError while Postgres is away."""
        key = (customer_id, signal.agent_id, signal.failure_type)
        asked_at = trio.current_time()
        kept = self._counted.get(key)
        if kept is not None and asked_at < kept.good_until:
            return kept.rate
        rate = await gateway.unit(rate_context, Scope(customer_id), signal.agent_id, signal.failure_type)
        now = trio.current_time()
        if len(self._counted) >= MOST_KEPT:
            self._counted.clear()
        self._counted[key] = _Counted(rate, now + KEPT_FOR * (now - asked_at))
        return rate
