"""A destination's actor: attempts its due deliveries, a few at a time, until none is due.

Each destination has its own, so that one that hangs holds up nobody else; within it a few lanes work side by side, so
that one hanging request holds up no other. What happens after an attempt is decided in `deliveries.py`.
"""

from __future__ import annotations

import logging
import math
import random
import time
from http import HTTPStatus
from typing import TYPE_CHECKING, NamedTuple

import trio

from dunetrace.actors.base import wait
from dunetrace.actors.rates import Rates
from dunetrace.alerts import FORMS
from dunetrace.alerts.links import run_url
from dunetrace.alerts.post import ATTEMPT_TIMEOUT_S, open_post
from dunetrace.deliveries import ATTEMPT_CAP_S, Outcome, State, Verdict, after
from dunetrace.errors import StoreUnavailableError
from dunetrace.outgoing.guard import InternalAddressError
from dunetrace.store.writes import deliveries
from dunetrace.store.writes.deliveries import Claim, Idle
from dunetrace.telemetry import kind, log

if TYPE_CHECKING:
    from uuid import UUID

    from dunetrace.alerts import Destination
    from dunetrace.alerts.post import Post
    from dunetrace.deliveries import Alert, Next
    from dunetrace.nursery import Context
    from dunetrace.store.writes.deliveries import Kept

LANES = 4  # attempts at a time: enough that one slow answer is not felt, few enough to be polite
# A receiver that answered 429 gets at most one alert a second from each lane for a while: Slack takes about that many.
PACE_S, PACED_FOR_S = 1.0, 60.0
LEASE_S = 3 * ATTEMPT_TIMEOUT_S  # an attempt and keeping its outcome fit in with room to spare
SOONEST_S = 0.02  # before looking again at what another process holds just now
GRACE_S = 3.0  # for the attempts in hand at a stop; what is cut off is attempted again when its lease ends


_LOGGED = {
    State.DONE: (logging.INFO, "delivery.done"),
    State.PENDING: (logging.WARNING, "delivery.failed"),
    State.REFUSED: (logging.ERROR, "delivery.refused"),
    State.EXPIRED: (logging.ERROR, "delivery.expired"),
}


class Turn(NamedTuple):
    """What a lane did: the delivery it attempted, where that stands now and when it is due; or when to look again."""

    delivery_id: UUID | None = None
    state: State | None = None
    wait_s: float | None = None


class DestinationActor:
    """Named ``destination:<name>``. `wake` brings the hint that there are new deliveries."""

    def __init__(
        self,
        destination: Destination,
        wake: trio.MemoryReceiveChannel[None],
        *,
        rng: random.Random | None = None,
    ) -> None:
        self.name = f"destination:{destination.name}"
        self._destination = destination
        self._format = FORMS[destination.kind].message
        self._wake = wake
        self._rng = rng or random.Random()
        self._rates = Rates()
        self._bell = trio.Event()
        self._told_internal = False
        self._paced_until = -math.inf  # by trio's clock

    async def run(self, ctx: Context, *, task_status: trio.TaskStatus[None]) -> None:
        async with open_post(allow_private=ctx.settings.allow_private_destinations) as post:
            async with trio.open_nursery() as lanes:
                for _ in range(LANES):
                    lanes.start_soon(self._lane, ctx, post)
                task_status.started()
                while not ctx.stopping.is_set():
                    await wait(self._wake, ctx.stopping, ctx.settings.alert_interval_s)
                    self._ring()
                lanes.cancel_scope.deadline = trio.current_time() + GRACE_S

    async def run_once(self, ctx: Context, post: Post) -> Turn:
        """Attempt the next due delivery, if there is one. StoreUnavailableError while Postgres is away."""
        claimed = await ctx.gateway.unit(deliveries.claim, self._destination.name, LEASE_S)
        if isinstance(claimed, Idle):
            return Turn(wait_s=claimed.wait_s)
        signal = claimed.alert.signal
        rate = await self._rates.of(ctx.gateway, claimed.customer_id, signal)
        link = run_url(ctx.settings.dashboard_url, signal.run_id)
        outcome = await self._attempt(claimed.alert._replace(rate_context=rate, run_url=link), post)
        if outcome.status == HTTPStatus.TOO_MANY_REQUESTS:
            self._paced_until = trio.current_time() + PACED_FOR_S
        following = after(claimed.standing, outcome, self._rng)
        kept = await ctx.gateway.unit(deliveries.keep, claimed, outcome, following)
        self._report(claimed, outcome, following, kept)
        return Turn(claimed.alert.delivery_id, following.state, following.wait_s)

    async def _lane(self, ctx: Context, post: Post) -> None:
        while not ctx.stopping.is_set():
            bell = self._bell  # taken before looking, so that a hint that comes while we look is not missed
            try:
                turn = await self.run_once(ctx, post)
            except StoreUnavailableError:
                turn = Turn()
            if turn.state is State.PENDING:
                # A lane waits for its own delivery's next attempt instead of taking up another, so that a receiver
                # that went away costs a few deliveries an attempt and not all of them.
                with trio.move_on_after(min(turn.wait_s or 0.0, ATTEMPT_CAP_S)):
                    await ctx.stopping.wait()
            elif turn.state is State.DONE and trio.current_time() < self._paced_until:
                with trio.move_on_after(PACE_S):
                    await ctx.stopping.wait()
            elif turn.delivery_id is None:
                with trio.move_on_after(math.inf if turn.wait_s is None else max(turn.wait_s, SOONEST_S)):
                    await bell.wait()

    async def _attempt(self, alert: Alert, post: Post) -> Outcome:
        # An alert that cannot be put into words is refused, so that it stops neither the others nor this actor.
        try:
            message = self._format(alert, self._destination.secret, time.time())
        except Exception as error:
            return Outcome(Verdict.REFUSED, error=kind(error))
        return await post.send(self._destination.url, message)

    def _ring(self) -> None:
        self._bell.set()
        self._bell = trio.Event()

    def _report(self, claimed: Claim, outcome: Outcome, following: Next, kept: Kept) -> None:
        name = self._destination.name
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
            delivery_id=str(claimed.alert.delivery_id),
            status=outcome.status,
            error=outcome.error,
            round=following.round,
            attempt=following.attempt,
        )
        if kept.circuit_opened:
            log.warning("destination.circuit_opened", destination=name)
        if kept.circuit_closed:
            log.info("destination.circuit_closed", destination=name)
            self._ring()
