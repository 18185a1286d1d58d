"""The three steps of each delivery of a destination: claim, attempt, keep. When which is done is `destination.py`'s.

What follows from an attempt is decided in `deliveries.py`, what Postgres is told of it in `store/writes/deliveries.py`.
"""

from __future__ import annotations

import logging
import math
import time
from http import HTTPStatus
from typing import TYPE_CHECKING

import trio

from dunetrace.actors.rates import Rates
from dunetrace.actors.telling import completed
from dunetrace.alerts import FORMS
from dunetrace.alerts.links import run_url
from dunetrace.alerts.post import ATTEMPT_TIMEOUT_S
from dunetrace.deliveries import Outcome, State, Verdict, after
from dunetrace.outgoing.guard import InternalAddressError
from dunetrace.store.reads.rate import RateKey
from dunetrace.store.writes import deliveries
from dunetrace.store.writes.deliveries import Settled
from dunetrace.telemetry import kind, log

if TYPE_CHECKING:
    import random
    from collections.abc import Sequence

    from dunetrace.alerts import Destination
    from dunetrace.alerts.post import Post
    from dunetrace.nursery import Context
    from dunetrace.store.writes.deliveries import Claim, Claimed, Kept

LEASE_S = 3 * ATTEMPT_TIMEOUT_S  # waiting for an attempt, the attempt and keeping its outcome fit in
PACED_FOR_S = 60.0  # after a 429 the receiver is told slowly

_LOGGED = {
    State.DONE: (logging.INFO, "delivery.done"),
    State.PENDING: (logging.WARNING, "delivery.failed"),
    State.REFUSED: (logging.ERROR, "delivery.refused"),
    State.EXPIRED: (logging.ERROR, "delivery.expired"),
}


class Delivering:
    """One destination's, for as long as its actor lives. Each step may be taken many times side by side."""

    def __init__(self, destination: Destination, rng: random.Random) -> None:
        self._destination = destination
        self._format = FORMS[destination.kind].message
        self._rng = rng
        self._rates = Rates()
        self._successes = trio.lowlevel.ParkingLot()
        self._paced_until = -math.inf  # by trio's clock
        self._told_internal = False

    @property
    def is_paced(self) -> bool:
        """Whether the receiver asked for a pause a while ago."""
        return trio.current_time() < self._paced_until

    async def success(self) -> None:
        """Wait for the next attempt that succeeds."""
        await self._successes.park()

    async def keep_rates(self, ctx: Context) -> None:
        """Keep the rates beside the alerts fresh, until a stop."""
        await self._rates.keep_fresh(ctx.gateway, ctx.stopping)

    async def claim(self, ctx: Context, most: int) -> Claimed:
        """≤ `most` due deliveries, with all there is to tell. StoreUnavailableError while Postgres is away."""
        claimed = await ctx.gateway.unit(deliveries.claim, self._destination.name, LEASE_S, most)
        rates = await self._rates.of(ctx.gateway, [_rate_key(claim) for claim in claimed.claims])
        alerts = await completed(ctx.gateway, [claim.alert for claim in claimed.claims], ctx.settings.prices)
        page = ctx.settings.dashboard_url
        told = []
        for claim, alert, rate in zip(claimed.claims, alerts, rates, strict=True):
            whole = alert._replace(rate_context=rate, run_url=run_url(page, alert.signal.run_id))
            told.append(claim._replace(alert=whole))
        return claimed._replace(claims=told)

    async def attempt(self, claim: Claim, post: Post) -> Settled:
        """Tell it once. An alert that cannot be put into words is refused, so that it stops no other."""
        try:
            message = self._format(claim.alert, self._destination.secret, time.time())
        except Exception as error:
            outcome = Outcome(Verdict.REFUSED, error=kind(error))
        else:
            outcome = await post.send(self._destination.url, message)
        if outcome.verdict is Verdict.DELIVERED:
            self._successes.unpark_all()
        elif outcome.status == HTTPStatus.TOO_MANY_REQUESTS:
            self._paced_until = trio.current_time() + PACED_FOR_S
        return Settled(claim, outcome, after(claim.standing, outcome, self._rng))

    async def keep(self, ctx: Context, settled: Sequence[Settled]) -> list[Kept]:
        """Keep outcomes, and say what became of them. StoreUnavailableError while Postgres is away."""
        kept = await ctx.gateway.unit(deliveries.keep, settled)
        for each, changed in zip(settled, kept, strict=True):
            self._report(each, changed)
        return kept

    async def give_back(self, ctx: Context, claims: Sequence[Claim]) -> None:
        """Let others attempt them. StoreUnavailableError while Postgres is away."""
        await ctx.gateway.unit(deliveries.give_back, claims)

    def _report(self, settled: Settled, kept: Kept) -> None:
        name = self._destination.name
        claim, outcome, following = settled
        if outcome.error == InternalAddressError.__name__ and not self._told_internal:
            self._told_internal = True
            log.warning(
                "destination.internal_address", destination=name, setting="DUNETRACE_ALLOW_PRIVATE_DESTINATIONS"
            )
        if not kept.known:
            return
        level, event = _LOGGED[following.state]
        log.log(
            level,
            event,
            destination=name,
            delivery_id=str(claim.alert.delivery_id),
            status=outcome.status,
            error=outcome.error,
            round=following.round,
            attempt=following.attempt,
        )
        if kept.circuit_opened:
            log.warning("destination.circuit_opened", destination=name)
        if kept.circuit_closed:
            log.info("destination.circuit_closed", destination=name)


def _rate_key(claim: Claim) -> RateKey:
    return RateKey(claim.customer_id, claim.alert.signal.agent_id, claim.alert.signal.failure_type)
