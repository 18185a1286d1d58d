"""A destination's actor: attempts its due deliveries, a few at a time, until none is due.

Each destination has its own, so that one that hangs holds up nobody else; within it a few lanes attempt side by side,
so that one hanging request holds up no other. One task claims for all lanes and one keeps what they bring, each many at
a time, so that a destination never needs more than two connections to Postgres and holds none during an attempt.
"""

from __future__ import annotations

import math
import random
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

import trio

from dunetrace.actors.base import Pace, first_of, wait
from dunetrace.actors.delivering import Delivering
from dunetrace.actors.hand import MOST, Hand
from dunetrace.alerts.post import open_post
from dunetrace.deliveries import ATTEMPT_CAP_S, State
from dunetrace.errors import StoreUnavailableError
from dunetrace.store.writes.deliveries import Settled

if TYPE_CHECKING:
    from collections.abc import Sequence
    from uuid import UUID

    from dunetrace.alerts import Destination
    from dunetrace.alerts.post import Post
    from dunetrace.deliveries import Next
    from dunetrace.nursery import Context
    from dunetrace.store.writes.deliveries import Kept

FEW = 4  # attempts at a time: enough that one slow answer is not felt, few enough to be polite
LANES = 16  # while they succeed: a hundred alerts a second for a receiver a tenth of a second away, and some to spare
# From one attempt of a lane to its next. In all that is 200 a second: what waited for a receiver that is back neither
# floods it nor holds up other destinations.
LANE_S = LANES / 200
PACED_LANE_S = 1.0  # at a receiver that asked for a pause a while ago: Slack takes about one alert a second
SOONEST_S = 0.02  # before looking again at what another process holds just now
CLAIM_SPACING_S = 0.05  # between the beginnings of two claims
GATHER_S = 0.025  # outcomes that come one upon the other are kept together
OUTAGE_LOOK_S = 1.0  # between looks while Postgres is away
GRACE_S = 3.0  # for the attempts in hand at a stop; what is cut off is attempted again when its lease ends


class Turn(NamedTuple):
    """What a single attempt came to: the delivery, where that stands now and when it is due; or when to look again."""

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
        self._delivering = Delivering(destination, rng or random.Random())
        self._wake = wake
        self._bell = trio.Event()  # there may be something to claim, or room for it

    async def run(self, ctx: Context, *, task_status: trio.TaskStatus[None]) -> None:
        hand = Hand(FEW, LANES)
        ended, outcomes = trio.open_memory_channel[Settled](MOST)
        async with open_post(allow_private=ctx.settings.allow_private_destinations) as post:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._hear, ctx)
                nursery.start_soon(self._delivering.keep_rates, ctx)
                nursery.start_soon(self._keep, ctx, hand, outcomes)
                with ended:
                    for _ in range(LANES):
                        nursery.start_soon(self._lane, ctx, post, hand, ended.clone())
                task_status.started()
                await self._claim(ctx, hand)
                await self._give_back(ctx, hand)
                hand.close()
                nursery.cancel_scope.deadline = trio.current_time() + GRACE_S

    async def run_once(self, ctx: Context, post: Post) -> Turn:
        """Attempt the next due delivery, if there is one. StoreUnavailableError while Postgres is away."""
        claimed = await self._delivering.claim(ctx, 1)
        if not claimed.claims:
            return Turn(wait_s=claimed.wait_s)
        settled = await self._delivering.attempt(claimed.claims[0], post)
        await self._delivering.keep(ctx, [settled])
        return Turn(settled.claim.alert.delivery_id, settled.following.state, settled.following.wait_s)

    async def _hear(self, ctx: Context) -> None:
        while not ctx.stopping.is_set():
            await wait(self._wake, ctx.stopping, ctx.settings.alert_interval_s)
            self._ring()

    async def _claim(self, ctx: Context, hand: Hand) -> None:
        """Claim what is due, as far as there is room for it, until a stop."""
        pace = Pace(CLAIM_SPACING_S)
        while not ctx.stopping.is_set():
            await pace.begin(ctx.stopping)
            bell = self._bell  # taken before looking, so that what rings while we look is not missed
            wait_s: float | None = None
            if room := hand.room:
                try:
                    claimed = await self._delivering.claim(ctx, room)
                except StoreUnavailableError:
                    wait_s = OUTAGE_LOOK_S
                else:
                    hand.put(claimed.claims)
                    wait_s = claimed.wait_s
            hand.more_is_due = not room or wait_s == 0.0
            with trio.move_on_after(math.inf if wait_s is None else max(wait_s, SOONEST_S)):
                await bell.wait()

    async def _lane(self, ctx: Context, post: Post, hand: Hand, ended: trio.MemorySendChannel[Settled]) -> None:
        with ended:
            async for claim in hand.claims:
                began_at = trio.current_time()
                settled = await self._delivering.attempt(claim, post)
                is_done = settled.following.state is State.DONE
                hand.attempted(trio.current_time() - began_at, smoothly=is_done and not self._delivering.is_paced)
                await ended.send(settled)
                await self._hold(ctx, settled.following, began_at)
                hand.finished()
                if hand.more_is_due:
                    self._ring()

    async def _hold(self, ctx: Context, following: Next, began_at: float) -> None:
        """Keep a lane from taking up another delivery for a while. `began_at` is when it took up the last one."""
        if following.state is State.PENDING:
            # Until its own delivery's next attempt, so that a receiver that went away costs a few deliveries an attempt
            # and not all of them; unless another's success shows that the receiver is there.
            with trio.move_on_after(min(following.wait_s, ATTEMPT_CAP_S)):
                await first_of(ctx.stopping.wait, self._delivering.success)
        elif following.state is State.DONE:
            with trio.move_on_at(began_at + (PACED_LANE_S if self._delivering.is_paced else LANE_S)):
                await ctx.stopping.wait()

    async def _keep(self, ctx: Context, hand: Hand, outcomes: trio.MemoryReceiveChannel[Settled]) -> None:
        """Keep what the lanes bring: nearly at once, and together what came meanwhile. No lane waits for it."""
        async for first in outcomes:
            settled = [first]
            await trio.sleep(GATHER_S)
            while outcomes.statistics().current_buffer_used:
                settled.append(outcomes.receive_nowait())
            kept = await self._keep_at_last(ctx, settled)
            if any(_makes_due(*each) for each in zip(settled, kept, strict=True)):
                self._ring()
            if not hand.is_quick:
                await self._give_back(ctx, hand)

    async def _keep_at_last(self, ctx: Context, settled: Sequence[Settled]) -> list[Kept]:
        """Through an outage, too: an outcome that is forgotten is an alert that comes again."""
        while True:
            try:
                return await self._delivering.keep(ctx, settled)
            except StoreUnavailableError:
                await trio.sleep(OUTAGE_LOOK_S)

    async def _give_back(self, ctx: Context, hand: Hand) -> None:
        if waiting := hand.take_back():
            with suppress(StoreUnavailableError):  # then they are due when their lease ends
                await self._delivering.give_back(ctx, waiting)
            self._ring()

    def _ring(self) -> None:
        self._bell.set()
        self._bell = trio.Event()


def _makes_due(settled: Settled, kept: Kept) -> bool:
    """Whether an outcome says something new about when to attempt what."""
    following = settled.following
    return following.state is State.PENDING or following.hold is not None or kept.circuit_closed
