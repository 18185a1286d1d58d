"""Breaking things on purpose: actors that crash when a test says so, and load to break them under.

The server knows nothing of it. `Crashing` is the test's own actor around a real one: it runs it beside a task that
raises, and lends it the real gateway through a hand that can stop at the two moments that matter, when a transaction's
work is done but not committed, and when it is committed but the actor hasn't heard.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import replace
from enum import Enum
from functools import partial
from pathlib import Path
from typing import Any, Final, NamedTuple, cast

import httpx
import trio

from dunetrace import config
from dunetrace.actors.base import Actor
from dunetrace.nursery import ROLES, Context, Supervisor
from dunetrace.process import assemble
from dunetrace.store.gateway import Gateway
from tests.harness.load import Ledger, drive
from tests.receiver import Receiver

PATIENCE_S = 30.0  # for what takes a moment, on a machine that may be busy
LOOK_S = 0.02
NOWHERE = Path("/nonexistent")
# What each port cannot do without; everybody else's trouble is no more than "degraded".
NEEDED: Final = {"ingest": {"ingest", "journal", "writer"}, "api": {"api"}}
StoreFunction = Callable[..., Awaitable[Any]]


class Bug(Exception):
    """What a crashing actor raises."""


class Moment(Enum):
    """Where an actor is when it crashes."""

    ANYWHERE = "at once, wherever it is"
    BEFORE_COMMIT = "in a transaction whose work is done"
    AFTER_COMMIT = "after a commit it has not heard of"


class Fall(NamedTuple):
    """A crash to come: of which actor, at which moment, and of its units of work only in one of `within`."""

    actor: str
    moment: Moment = Moment.ANYWHERE
    within: StoreFunction | None = None


class Crashing:
    """An actor around a real one. `crash` brings down its attempt, as an error in its own code would."""

    def __init__(self, inner: Actor) -> None:
        self.name = inner.name
        self._inner = inner
        self._armed: tuple[Moment, StoreFunction | None] | None = None
        self._fall = trio.Event()
        self._may_start = trio.Event()
        self._may_start.set()

    def crash(self, moment: Moment, within: StoreFunction | None = None) -> None:
        """Crash at `moment`; of its units of work in the next one, or in the next one of the function `within`."""
        if moment is Moment.ANYWHERE:
            self._fall.set()
        else:
            self._armed = (moment, within)

    @contextmanager
    def held_down(self) -> Iterator[None]:
        """What crashed within the block starts again behind it, so that the block can see it down."""
        self._may_start = trio.Event()
        try:
            yield
        finally:
            self._may_start.set()

    async def run(self, ctx: Context, *, task_status: trio.TaskStatus[None]) -> None:
        await self._may_start.wait()
        self._fall = trio.Event()
        lent = replace(ctx, gateway=cast("Gateway", _Hand(ctx.gateway, self)))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._wait_and_raise, self._fall)
            await self._inner.run(lent, task_status=task_status)
            nursery.cancel_scope.cancel()

    def falls(self, moment: Moment, fn: StoreFunction) -> bool:
        """Whether the actor goes down at this `moment` of a unit of `fn`: from here on it must not do anything."""
        if self._armed is None or self._armed[0] is not moment or self._armed[1] not in (None, fn):
            return False
        self._armed = None
        self._fall.set()  # also from asyncio's side: it is the same thread
        return True

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
        async def work(conn: Any, *args: Any, **kwargs: Any) -> Any:
            result = await fn(conn, *args, **kwargs)
            if self._owner.falls(Moment.BEFORE_COMMIT, fn):
                await asyncio.Event().wait()
            return result

        result = await self._gateway.unit(work, *args, **kwargs)
        if self._owner.falls(Moment.AFTER_COMMIT, fn):
            await trio.sleep_forever()
        return result


class House:
    """A whole server inside the test, with its actors by name. `fallen` counts how often each was brought down."""

    def __init__(self, actors: Mapping[str, Crashing], ingest_url: str, api_url: str, http: httpx.AsyncClient) -> None:
        self.actors, self.ingest_url, self.api_url, self._http = actors, ingest_url, api_url, http
        self.fallen: Counter[str] = Counter(dict.fromkeys(actors, 0))
        self.longest_away = (0.0, "")  # seconds, and who
        self._down: set[str] = set()

    async def health(self, port: str) -> dict[str, Any]:
        """What /health of the "ingest" or the "api" port says, with its HTTP status as ``http_status``."""
        answer = await self._http.get(f"{self.ingest_url if port == 'ingest' else self.api_url}/health")
        return {**answer.json(), "http_status": answer.status_code}

    async def sees(
        self, port: str, name: str, state: str, restarts: int, timeout_s: float = PATIENCE_S
    ) -> dict[str, Any]:
        """What `port` said when it saw the actor `name` in `state` after so many restarts."""
        said: dict[str, Any] = {}
        with trio.fail_after(timeout_s):
            while said.get("actors", {}).get(name) != {"state": state, "restarts": restarts}:
                await trio.sleep(LOOK_S)
                with suppress(httpx.TransportError):  # the port that is asked may be the one that crashed
                    said = await self.health(port)
        return said

    async def fall(self, at: Fall, timeout_s: float = PATIENCE_S) -> None:
        """Bring one actor down, see that each port says so and that nobody went with it, and watch it come back."""
        self.fallen[at.actor] += 1
        self._down.add(at.actor)
        with self.actors[at.actor].held_down():
            self.actors[at.actor].crash(at.moment, at.within)
            port = "ingest" if "api" in self._down else "api"
            await self.sees(port, at.actor, "restarting", self.fallen[at.actor], timeout_s)
            for other in NEEDED.keys() - self._down:
                try:
                    said = await self.health(other)
                except httpx.TransportError:
                    if other in self._down:
                        continue  # brought down beside this one, just now
                    said = await self.health(other)  # the connection that was kept is from before an earlier crash
                self.assert_contained(other, said)
        started = trio.current_time()
        await self.sees(port, at.actor, "running", self.fallen[at.actor])
        self.longest_away = max(self.longest_away, (round(trio.current_time() - started, 2), at.actor))
        self._down.discard(at.actor)

    def assert_contained(self, port: str, said: dict[str, Any]) -> None:
        """What `port` said of a crash: only those are down that a test brought down, and the port does what it can."""
        down = {name for name, actor in said["actors"].items() if actor["state"] != "running"}
        assert down <= self._down
        if said["db"] != "ok" or down & NEEDED[port]:
            assert (said["http_status"], said["status"]) == (503, "unavailable")
        elif down:
            assert (said["http_status"], said["status"]) == (200, "degraded")

    async def assert_well(self) -> None:
        """Everything runs, and nothing fell that was not brought down."""
        for port in NEEDED:
            said = await self.health(port)
            assert (said["http_status"], said["status"], said["db"]) == (200, "ok", "ok")
            assert {name: actor["restarts"] for name, actor in said["actors"].items()} == self.fallen


def environment(url: str, receivers: Mapping[str, Receiver]) -> dict[str, str]:
    """The settings of a server on the Postgres at `url` that tells `receivers`, by destination."""
    addresses = {"webhook": "WEBHOOK_URL", "slack": "SLACK_WEBHOOK_URL"}
    return {
        "DATABASE_URL": url, "DUNETRACE_ALLOW_PRIVATE_DESTINATIONS": "true", "WEBHOOK_SECRET": "a secret of the tests",
        "DUNETRACE_POLL_INTERVAL": "1", "DUNETRACE_ALERT_INTERVAL": "1",
        "DUNETRACE_ALERT_WINDOW": "2",
        **{addresses[name]: receiver.url for name, receiver in receivers.items()},
    }  # fmt: skip


@asynccontextmanager
async def house(env: Mapping[str, str], data_dir: Path) -> AsyncIterator[House]:
    """A server as `serve` runs it, but inside the test, without signals, and with every actor a `Crashing` one."""
    env = {**env, "DUNETRACE_DATA_DIR": str(data_dir)}
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
async def load(url: str, ledger: Ledger, *, seed: int, clients: int = 3, **how: Any) -> AsyncIterator[None]:
    """Clients that post for the length of the block, then bring what they have in hand to its end.

    `seed` names the runs: it must be another one each time. `how` is for `drive`.
    """
    stop = trio.Event()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(partial(drive, url, ledger, clients=clients, runs=None, seed=seed, stop=stop, **how))
        yield
        stop.set()


@asynccontextmanager
async def visits(home: House) -> AsyncIterator[None]:
    """For the length of the block somebody looks at the API, and marks deploys at the door, all the time."""

    async def visit(http: httpx.AsyncClient) -> None:
        mark = {"agent_id": "agent-a", "version": "v"}
        while True:
            with suppress(httpx.TransportError):
                assert (await http.get(f"{home.api_url}/v1/agents")).status_code in (200, 503)
                assert (await http.post(f"{home.ingest_url}/v1/deploy", json=mark)).status_code in (202, 503)
            await trio.sleep(0.1)

    async with httpx.AsyncClient(trust_env=False, timeout=5) as http, trio.open_nursery() as nursery:
        nursery.start_soon(visit, http)
        yield
        nursery.cancel_scope.cancel()


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
