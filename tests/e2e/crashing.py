"""Breaking things on purpose: actors that crash when a test says so, and load to break them under.

The server knows nothing of it. `Crashing` is the test's own actor around a real one: it runs it beside a task that
raises, and lends it the real gateway through a hand that can stop at the two moments that matter, when a transaction's
work is done but not committed, and when it is committed but the actor hasn't heard.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from enum import Enum
from functools import partial
from pathlib import Path
from typing import Any, cast

import httpx
import trio

from dunetrace import config
from dunetrace.actors.base import Actor
from dunetrace.nursery import ROLES, Context, Supervisor
from dunetrace.process import assemble
from dunetrace.store.gateway import Gateway
from tests.harness.load import Ledger, drive

PATIENCE_S = 30.0  # for what takes a moment, on a machine that may be busy
LOOK_S = 0.01
NOWHERE = Path("/nonexistent")
StoreFunction = Callable[..., Awaitable[Any]]


class Bug(Exception):
    """What a crashing actor raises."""


class Moment(Enum):
    """Where an actor is when it crashes."""

    ANYWHERE = "at once, wherever it is"
    BEFORE_COMMIT = "in a transaction whose work is done"
    AFTER_COMMIT = "after a commit it has not heard of"


class Crashing:
    """An actor around a real one. `crash` brings down its attempt, as an error in its own code would."""

    def __init__(self, inner: Actor) -> None:
        self.name = inner.name
        self._inner = inner
        self._armed: tuple[Moment, StoreFunction | None] | None = None
        self._fall = trio.Event()

    def crash(self, moment: Moment, within: StoreFunction | None = None) -> None:
        """Crash at `moment`; of its units of work in the next one, or in the next one of the function `within`."""
        if moment is Moment.ANYWHERE:
            self._fall.set()
        else:
            self._armed = (moment, within)

    async def run(self, ctx: Context, *, task_status: trio.TaskStatus[None]) -> None:
        self._fall = trio.Event()
        lent = replace(ctx, gateway=cast("Gateway", _Hand(ctx.gateway, self)))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._wait_and_raise, self._fall)
            await self._inner.run(lent, task_status=task_status)
            nursery.cancel_scope.cancel()

    def due(self, fn: StoreFunction) -> Moment | None:
        """The moment at which a unit of `fn` brings the actor down; asked once, then disarmed."""
        if self._armed is None or self._armed[1] not in (None, fn):
            return None
        moment, self._armed = self._armed[0], None
        return moment

    def fall(self) -> None:
        self._fall.set()

    async def _wait_and_raise(self, fall: trio.Event) -> None:
        await fall.wait()
        raise Bug


class _Hand:
    """The gateway as a `Crashing` actor has it: the real one, that may stop inside a unit or right behind it."""

    def __init__(self, gateway: Gateway, owner: Crashing) -> None:
        self._gateway, self._owner = gateway, owner

    def __getattr__(self, name: str) -> Any:
        return getattr(self._gateway, name)

    async def unit(self, fn: StoreFunction, *args: Any, **kwargs: Any) -> Any:
        moment = self._owner.due(fn)

        async def and_hang(conn: Any, *args: Any, **kwargs: Any) -> None:
            await fn(conn, *args, **kwargs)
            self._owner.fall()  # this is asyncio's side of the one thread, so it may set trio's event
            await asyncio.Event().wait()

        if moment is Moment.BEFORE_COMMIT:
            await self._gateway.unit(and_hang, *args, **kwargs)
        result = await self._gateway.unit(fn, *args, **kwargs)
        if moment is Moment.AFTER_COMMIT:
            self._owner.fall()
            await trio.sleep_forever()
        return result


class House:
    """A whole server inside the test, with its actors by name."""

    def __init__(self, actors: Mapping[str, Crashing], ingest_url: str, api_url: str, http: httpx.AsyncClient) -> None:
        self.actors, self.ingest_url, self.api_url, self._http = actors, ingest_url, api_url, http

    async def health(self, port: str) -> dict[str, Any]:
        """What /health of the "ingest" or the "api" port says, with its HTTP status as ``http_status``."""
        answer = await self._http.get(f"{self.ingest_url if port == 'ingest' else self.api_url}/health")
        return {**answer.json(), "http_status": answer.status_code}

    async def sees(self, port: str, name: str, state: str, restarts: int) -> dict[str, Any]:
        """What `port` said when it saw the actor `name` in `state` after so many restarts."""
        said: dict[str, Any] = {}
        with trio.fail_after(PATIENCE_S):
            while said.get("actors", {}).get(name) != {"state": state, "restarts": restarts}:
                await trio.sleep(LOOK_S)
                with suppress(httpx.TransportError):  # the port that is asked may be the one that crashed
                    said = await self.health(port)
        return said


@asynccontextmanager
async def house(env: Mapping[str, str]) -> AsyncIterator[House]:
    """A server as `serve` runs it, but inside the test, without signals, and with every actor a `Crashing` one."""
    binds = dict.fromkeys(("DUNETRACE_INGEST_BIND", "DUNETRACE_API_BIND", "DUNETRACE_DASHBOARD_BIND"), "127.0.0.1:0")
    settings = config.load({**binds, **env}, NOWHERE)
    async with assemble(settings, ROLES, "test") as parts, httpx.AsyncClient(trust_env=False, timeout=5) as http:
        stages = [replace(stage, actors=[Crashing(actor) for actor in stage.actors]) for stage in parts.stages]
        supervisor = Supervisor(stages, parts.lend, parts.health)
        async with trio.open_nursery() as nursery:
            await nursery.start(supervisor.run)
            assert parts.addresses.ingest is not None
            assert parts.addresses.api is not None
            actors = {actor.name: cast("Crashing", actor) for stage in stages for actor in stage.actors}
            yield House(actors, parts.addresses.ingest, parts.addresses.api, http)
            supervisor.stop()


@asynccontextmanager
async def load(url: str, ledger: Ledger, *, seed: int, clients: int = 3, api_key: str = "") -> AsyncIterator[None]:
    """Clients that post for the length of the block, then bring what they have in hand to its end.

    `seed` names the runs: it must be another one each time.
    """
    stop = trio.Event()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(
            partial(drive, url, ledger, clients=clients, runs=None, seed=seed, api_key=api_key, stop=stop)
        )
        yield
        stop.set()


async def accepted(ledger: Ledger, more: int) -> None:
    """Wait until `more` events have been promised than now."""
    enough = len(ledger.accepted) + more
    with trio.fail_after(PATIENCE_S):
        while len(ledger.accepted) < enough:
            await trio.sleep(LOOK_S)


async def until(condition: Callable[[], Any], timeout_s: float = PATIENCE_S) -> float:
    """Wait until `condition()`, which may block and so runs on a thread, is true. Returns the seconds it took."""
    started = trio.current_time()
    with trio.fail_after(timeout_s):
        while not await trio.to_thread.run_sync(condition):
            await trio.sleep(LOOK_S)
    return trio.current_time() - started
