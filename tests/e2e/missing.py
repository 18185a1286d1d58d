"""What the server depends on, taken away for the length of a block and then given back."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, ExitStack, asynccontextmanager
from functools import partial
from typing import NamedTuple

import trio

from tests.e2e.clusters import Cluster
from tests.e2e.crashing import LOOK_S, PATIENCE_S, House, until
from tests.harness.invariants import rows
from tests.harness.load import Ledger, hang_up
from tests.receiver import Mode, Receiver

ASKED_AGAIN_S = 120.0  # a receiver that failed a whole round just before is asked again after a minute
_FAILED_ATTEMPT = "SELECT FROM deliveries WHERE destination = $1 AND state = 'pending' AND attempt + round > 0 LIMIT 1"


class Around(NamedTuple):
    """A house and what it depends on. `seed` is another one for each use of it."""

    home: House
    cluster: Cluster
    database: str
    receivers: dict[str, Receiver]
    ledger: Ledger
    seed: int


class Missing(NamedTuple):
    """One thing that may be missing. While Postgres is, no unit of work gets as far as its commit."""

    leave: Callable[[Around], AbstractAsyncContextManager[None]]
    postgres: bool = False


@asynccontextmanager
async def nothing(_around: Around) -> AsyncIterator[None]:
    yield


@asynccontextmanager
async def postgres_stopped(around: Around) -> AsyncIterator[None]:
    await trio.to_thread.run_sync(around.cluster.stop)
    try:
        await _noticed(around.home)
        yield
    finally:
        with trio.CancelScope(shield=True):
            await trio.to_thread.run_sync(around.cluster.start)


@asynccontextmanager
async def postgres_frozen(around: Around) -> AsyncIterator[None]:
    around.cluster.freeze()
    try:
        await _noticed(around.home)
        yield
    finally:
        around.cluster.thaw()


async def _noticed(home: House) -> None:
    with trio.fail_after(PATIENCE_S):
        while (await home.health("api"))["db"] == "ok":
            await trio.sleep(LOOK_S)


@asynccontextmanager
async def receivers_refuse(around: Around) -> AsyncIterator[None]:
    with ExitStack() as stack:
        for receiver in around.receivers.values():
            await trio.to_thread.run_sync(stack.enter_context, receiver.refusing())
        for name in around.receivers:
            await until(partial(rows, around.database, _FAILED_ATTEMPT, name))
        yield


@asynccontextmanager
async def receivers_answer(around: Around, *, mode: Mode) -> AsyncIterator[None]:
    known = {name: len(receiver.requests) for name, receiver in around.receivers.items()}
    for receiver in around.receivers.values():
        receiver.mode = mode
    try:
        for name, receiver in around.receivers.items():
            await trio.to_thread.run_sync(receiver.wait_for, known[name] + 1, ASKED_AGAIN_S)
        yield
    finally:
        for receiver in around.receivers.values():
            receiver.mode = Mode.OK


RECEIVERS = {
    "receivers refuse": Missing(receivers_refuse),
    "receivers hang": Missing(partial(receivers_answer, mode=Mode.HANG)),
    "receivers fail": Missing(partial(receivers_answer, mode=Mode.ERROR)),
}


@asynccontextmanager
async def receivers_in_turn(around: Around) -> AsyncIterator[None]:
    """Another fault at each use."""
    async with list(RECEIVERS.values())[around.seed % len(RECEIVERS)].leave(around):
        yield


@asynccontextmanager
async def clients_leave(around: Around) -> AsyncIterator[None]:
    stop, left = trio.Event(), around.ledger.answers["left"]
    async with trio.open_nursery() as nursery:
        for number in range(2):
            seed = 2 * around.seed + number
            nursery.start_soon(partial(hang_up, around.home.ingest_url, around.ledger, seed=seed, stop=stop))
        with trio.fail_after(PATIENCE_S):
            while around.ledger.answers["left"] < left + 10:
                await trio.sleep(LOOK_S)
        yield
        stop.set()


MISSING = {
    "nothing": Missing(nothing),
    "postgres": Missing(postgres_stopped, postgres=True),
    "receivers": Missing(receivers_in_turn),
    "clients": Missing(clients_leave),
}
MISSING_AT_LENGTH = {
    "nothing": MISSING["nothing"],
    "postgres": MISSING["postgres"],
    "postgres frozen": Missing(postgres_frozen, postgres=True),
    **RECEIVERS,
    "clients": MISSING["clients"],
}
