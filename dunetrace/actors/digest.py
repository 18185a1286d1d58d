"""The weekly digest: sends each Slack destination its week, once, whichever process is up, and late rather than never.

Any number of processes may run one: a claim in Postgres decides who sends. When a digest is owed is decided in
`weekly.py`, when a failed one is tried again in `deliveries.py`.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, NamedTuple

import trio

from dunetrace.alerts import FORMS
from dunetrace.alerts.links import page_url
from dunetrace.alerts.post import ATTEMPT_TIMEOUT_S, open_post
from dunetrace.deliveries import Outcome, State, Verdict, after
from dunetrace.errors import StoreUnavailableError
from dunetrace.store.reads import digest as reads
from dunetrace.store.reads.scope import Scope
from dunetrace.store.writes import digest as writes
from dunetrace.telemetry import kind, log
from dunetrace.weekly import Schedule, Span, together

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dunetrace.alerts import Destination, DigestForm
    from dunetrace.alerts.post import Post
    from dunetrace.nursery import Context
    from dunetrace.weekly import Week

LOOK_S = 60.0  # at least this often, so that a clock that was set right is noticed
LEASE_S = 6 * ATTEMPT_TIMEOUT_S  # counting a week and an attempt fit in with room to spare


class Pass(NamedTuple):
    """What one pass did: where each digest it attempted now stands, and when to look again."""

    attempted: dict[str, State]
    wait_s: float


class Digest:
    """One a process. Destinations that want no digest, or have no form for one, get none."""

    name = "digest"

    def __init__(self, destinations: Sequence[Destination], *, rng: random.Random | None = None) -> None:
        self._forms = [(d, form) for d in destinations if d.digest and (form := FORMS[d.kind].digest) is not None]
        self._rng = rng or random.Random()

    async def run(self, ctx: Context, *, task_status: trio.TaskStatus[None]) -> None:
        async with open_post(allow_private=ctx.settings.allow_private_destinations) as post:
            task_status.started()
            while not ctx.stopping.is_set():
                try:
                    wait_s = (await self.run_once(ctx, post)).wait_s
                except StoreUnavailableError:
                    wait_s = ctx.settings.alert_interval_s
                with trio.move_on_after(wait_s):
                    await ctx.stopping.wait()

    async def run_once(self, ctx: Context, post: Post) -> Pass:
        """Send what is owed. StoreUnavailableError while Postgres is away."""
        attempted: dict[str, State] = {}
        wait_s = LOOK_S
        schedule = Schedule(ctx.settings.digest_day, ctx.settings.digest_hour)
        for destination, form in self._forms if ctx.settings.digest_enabled else ():
            claimed = await ctx.gateway.unit(writes.claim, destination.name, schedule, LEASE_S)
            if isinstance(claimed, writes.Later):
                wait_s = min(wait_s, claimed.wait_s)
                continue
            attempted[destination.name], again_s = await self._send(ctx, post, claimed, destination.url, form)
            wait_s = min(wait_s, again_s)
        return Pass(attempted, wait_s)

    async def _send(
        self, ctx: Context, post: Post, claimed: writes.Claim, url: str, form: DigestForm
    ) -> tuple[State, float]:
        """One attempt: where the digest now stands, and in how many seconds to look again."""
        span = Span.before(claimed.due_at)
        week = await _week(ctx, span)
        try:
            message = form(week, span, page_url(ctx.settings.dashboard_url))
        except Exception as error:  # as with an alert: what cannot be put into words is refused, not tried for ever
            outcome = Outcome(Verdict.REFUSED, error=kind(error))
        else:
            outcome = await post.send(url, message)
        following = after(claimed.standing, outcome, self._rng)
        if await ctx.gateway.unit(writes.keep, claimed, outcome, following):
            _report(claimed.destination, outcome, following.state)
        return following.state, following.wait_s if following.state is State.PENDING else LOOK_S


async def _week(ctx: Context, span: Span) -> Week:
    customers = await ctx.gateway.unit(reads.customers) or ["default"]
    return together({customer: await ctx.gateway.unit(reads.week, Scope(customer), span) for customer in customers})


def _report(destination: str, outcome: Outcome, state: State) -> None:
    facts = {"destination": destination, "status": outcome.status, "error": outcome.error}
    if state is State.DONE:
        log.info("digest.sent", **facts)
    elif state is State.PENDING:
        log.warning("digest.failed", **facts)
    else:
        log.error("digest.refused", **facts)
