"""The poller: finds runs with news or whose time has come, judges them, and commits what was found.

Several pollers share the 64 buckets by leases; each judges only runs of buckets it holds, and a commit under a lost
lease fails as a whole. Work comes from rows, hints only make it come sooner. Judging runs in a thread, so that it
never stalls the servers that share this process.
"""

from __future__ import annotations

import random
from collections import OrderedDict
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING
from uuid import uuid4

import trio

from dunetrace import judgements
from dunetrace.actors.base import Pace, wait
from dunetrace.errors import DetectorError, LeaseLostError, StoreUnavailableError
from dunetrace.judgements import Judgement
from dunetrace.runs import RunState
from dunetrace.store.reads import work as work_reads
from dunetrace.store.reads.work import BaselineKey, Case, Folded, RunKey, Work
from dunetrace.store.writes import judgements as judgement_writes
from dunetrace.store.writes import leases
from dunetrace.telemetry import kind, log, where

if TYPE_CHECKING:
    from dunetrace.nursery import Context

CACHE_BYTES = 64 * 1024 * 1024
OUTAGE_WAIT_S = 1.0
# Between the beginnings of passes, and that under load: what comes of a run meanwhile is read, judged and written
# together, and a pass costs a few milliseconds whatever it finds.
SPACING_S, LOADED_SPACING_S = 0.05, 0.25
LOADED_RUNS = 20  # in one pass: that is load
PARTS = 2  # of the buckets while a backlog waits: Postgres reads and writes for one while the other is judged


class RunCache:
    """RunStates of runs that go on, the least recently judged given up first once they exceed `limit_bytes`."""

    def __init__(self, limit_bytes: int = CACHE_BYTES) -> None:
        self._limit_bytes = limit_bytes
        self._held: OrderedDict[RunKey, tuple[RunState, int, int]] = OrderedDict()
        self._bytes = 0

    def folded(self, key: RunKey) -> Folded | None:
        """How far the cached state of a run got; None when there is none."""
        held = self._held.get(key)
        return None if held is None else Folded(held[0].event_count, held[1], held[0].last_order)

    def take(self, key: RunKey) -> tuple[RunState, int] | None:
        """Take a state out: while it is in hand it isn't cached, so a failed pass can't leave a half-folded one."""
        held = self._held.pop(key, None)
        if held is None:
            return None
        self._bytes -= held[2]
        return held[0], held[1]

    def put(self, key: RunKey, state: RunState, last_id: int) -> None:
        self.take(key)
        self._held[key] = (state, last_id, state.nbytes)
        self._bytes += state.nbytes
        while self._bytes > self._limit_bytes and self._held:
            self.take(next(iter(self._held)))


class _InHand:
    """A case with its state, its events folded into it."""

    def __init__(self, case: Case, cached: tuple[RunState, int] | None) -> None:
        self.case = case
        self.state, last_id = (RunState(case.key[1]), 0) if case.rebuilt or cached is None else cached
        self.last_id = max(last_id, case.last_id)
        self.error: DetectorError | None = None
        self._fold()

    def _fold(self) -> None:
        try:
            for event in self.case.events():
                self.state.fold(event)
        except Exception as error:
            self.error = judgements.as_detector_error(error, "fold")


class Poller:
    """Judges runs until a stop is asked for. `wake` receives hints."""

    name = "poller"

    def __init__(self, wake: trio.MemoryReceiveChannel[None]) -> None:
        self._wake = wake
        self._holder = uuid4()
        self._epochs: dict[int, int] = {}
        self._cache = RunCache()
        self._rng = random.Random()
        self._next_due_s: float | None = None
        self._pace = Pace(SPACING_S)

    async def run(self, ctx: Context, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        await self._renew(ctx)
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._keep_leases, ctx)
                task_status.started()
                await self._warn_of_unknown_agents(ctx)
                await self._loop(ctx)
                nursery.cancel_scope.cancel()
        finally:
            with trio.CancelScope(shield=True), trio.move_on_after(2):
                with suppress(StoreUnavailableError):  # else they expire
                    await ctx.gateway.unit(leases.release, self._holder)

    async def _warn_of_unknown_agents(self, ctx: Context) -> None:
        """A section of detectors.yml for an agent that was never seen is most likely a misspelt name."""
        named = list(ctx.settings.limits.agents)
        with suppress(StoreUnavailableError):
            for agent_id in await ctx.gateway.unit(work_reads.unseen_agents, named) if named else ():
                log.warning("detectors.unknown_agent", agent_id=agent_id)

    async def _loop(self, ctx: Context) -> None:
        while not ctx.stopping.is_set():
            pause_s = ctx.settings.poll_interval_s
            await self._pace.begin(ctx.stopping)
            try:
                more = await self.run_once(ctx)
            except StoreUnavailableError:
                more, pause_s = False, OUTAGE_WAIT_S
            except LeaseLostError:
                await self._lose(ctx)
                continue
            if more:
                async with trio.open_nursery() as nursery:
                    for part in range(PARTS):
                        nursery.start_soon(self._catch_up, ctx, part)
                continue
            if self._next_due_s is not None:
                pause_s = min(pause_s, self._next_due_s)
            await wait(self._wake, ctx.stopping, pause_s)

    async def _catch_up(self, ctx: Context, part: int) -> None:
        """Pass after pass over a part of the buckets while there is more; whoever calls it looks on."""
        try:
            while not ctx.stopping.is_set() and await self.run_once(ctx, part):
                pass
        except StoreUnavailableError:
            return
        except LeaseLostError:
            await self._lose(ctx)

    async def _lose(self, ctx: Context) -> None:
        log.warning("lease.lost")
        await self._renew(ctx)

    async def run_once(self, ctx: Context, part: int | None = None) -> bool:
        """One pass: take, fold, judge, commit. Returns whether more work is waiting already.

        `part`: of the buckets only those that leave this remainder. Parts may be passed over side by side.
        """
        epochs = {bucket: epoch for bucket, epoch in self._epochs.items() if part in (None, bucket % PARTS)}
        self._next_due_s, self._pace.spacing_s = None, SPACING_S
        if not epochs:
            return False
        work = await ctx.gateway.unit(work_reads.take, sorted(epochs), self._cache.folded)
        if work.next_due is not None:
            self._next_due_s = max(0.0, work.next_due - work.now) + 0.01
        if not work.cases:
            return False
        if len(work.cases) >= LOADED_RUNS:
            self._pace.spacing_s = LOADED_SPACING_S
        cached = [self._cache.take(case.key) for case in work.cases]
        hands = await trio.to_thread.run_sync(lambda: list(map(_InHand, work.cases, cached)))
        await self._give_baselines(ctx, hands)
        judged = await trio.to_thread.run_sync(partial(self._judge_all, ctx, hands, work))
        try:
            await self._commit(ctx, epochs, judged)
        except (StoreUnavailableError, LeaseLostError):
            raise
        except Exception as error:
            log.error("poller.batch_failed", runs=len(judged), error=kind(error), at=where(error))
            await self._commit_singly(ctx, epochs, hands, judged, work.now)
        for hand in hands:
            if hand.error is None and not hand.state.terminal:
                self._cache.put(hand.case.key, hand.state, hand.last_id)
        return work.more

    async def _give_baselines(self, ctx: Context, hands: list[_InHand]) -> None:
        """Completed runs get the step counts of earlier runs of the same agent, version and task."""
        ended = [hand for hand in hands if hand.error is None and hand.state.terminal == "run.completed"]
        keys = list(map(_baseline_key, ended))
        found = await ctx.gateway.unit(work_reads.baselines, keys) if keys else {}
        for hand, key in zip(ended, keys, strict=True):
            hand.state.baseline_steps = found[key]

    def _judge_all(self, ctx: Context, hands: list[_InHand], work: Work) -> list[Judgement]:
        judged = []
        for hand in hands:
            if hand.error is None:
                try:
                    limits = ctx.settings.limits.for_agent(hand.state.agent_id)
                    judged.append(
                        judgements.judge_case(
                            hand.case, hand.state, limits, now=work.now, stall_timeout_s=ctx.settings.stall_timeout_s
                        )
                    )
                    continue
                except DetectorError as error:
                    hand.error = error
            judged.append(self._failed(hand, hand.error, work.now))
        return judged

    def _failed(self, hand: _InHand, error: DetectorError, now: float) -> Judgement:
        judgement = judgements.failed_case(hand.case, hand.state, error, now=now, rng=self._rng)
        event = "run.parked" if judgement.run["parked_error"] else "run.retry"
        log.warning(event, run_id=hand.case.key[1], error=str(error))
        return judgement

    async def _commit(self, ctx: Context, epochs: dict[int, int], judged: Sequence[Judgement]) -> None:
        buckets = {judgement.case.bucket for judgement in judged}
        mine = {bucket: epoch for bucket, epoch in epochs.items() if bucket in buckets}
        committed = await ctx.gateway.unit(judgement_writes.commit, self._holder, mine, judged)
        if committed.fresh:
            ctx.bell.ring("dispatcher")

    async def _commit_singly(
        self, ctx: Context, epochs: dict[int, int], hands: list[_InHand], judged: list[Judgement], now: float
    ) -> None:
        """One run that can't be committed must not hold up the others: it is the one that is tried again or parked."""
        for hand, judgement in zip(hands, judged, strict=True):
            try:
                await self._commit(ctx, epochs, [judgement])
            except (StoreUnavailableError, LeaseLostError):
                raise
            except Exception as error:
                hand.error = judgements.as_detector_error(error, "commit")
                # What couldn't be written may be in the facts folded so far, so only who the run is goes in.
                hand.state = judgements.identity_of(hand.state)
                await self._commit(ctx, epochs, [self._failed(hand, hand.error, now)])

    async def _keep_leases(self, ctx: Context) -> None:
        while True:
            await trio.sleep(leases.RENEW_EVERY_S)
            await self._renew(ctx)

    async def _renew(self, ctx: Context) -> None:
        try:
            epochs = await ctx.gateway.unit(leases.renew, self._holder)
        except StoreUnavailableError:
            return
        gained = len(epochs.keys() - self._epochs.keys())
        self._epochs = epochs
        if gained:
            log.info("lease.gained", buckets=gained, held=len(epochs))
            ctx.bell.ring("poller")


def _baseline_key(hand: _InHand) -> BaselineKey:
    state, before = hand.state, hand.case.row
    was_there = before is not None and before["trigger"] == "run.completed"
    return BaselineKey(
        hand.case.key[0], state.agent_id, state.agent_version, state.task_hash, state.run_id if was_there else ""
    )
