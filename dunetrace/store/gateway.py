"""The one place that knows asyncpg and trio-asyncio.

A store function is an asyncio coroutine `async def fn(conn, ...)`. `Gateway.unit` runs it in one crossing: it acquires
a connection, opens the transaction and does everything on the asyncio side, because a connection held across the
border is leaked by every cancellation. A crossing costs about 0.1 ms, so units are coarse.

About one in ten cancelled writes has committed, so every write in `store/writes` is idempotent.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeAlias, TypeVar

import asyncpg
import msgspec
import trio
import trio_asyncio
from trio_asyncio import aio_as_trio

from dunetrace.errors import RowRefusedError, SettingError, StoreUnavailableError
from dunetrace.telemetry import kind, log

if TYPE_CHECKING:
    Connection: TypeAlias = asyncpg.pool.PoolConnectionProxy[asyncpg.Record]
    Pool: TypeAlias = asyncpg.Pool[asyncpg.Record]
    Listener: TypeAlias = Callable[[str], None]
else:
    Connection = Pool = Listener = object

P = ParamSpec("P")
T = TypeVar("T")

POOL_SIZE = 10  # 2 cores: more connections only queue inside Postgres
UNIT_TIMEOUT_S = 30.0  # a unit that takes longer is a fault, not work
CONNECT_TIMEOUT_S = 5.0
PROBE_TIMEOUT_S = 0.7
CANCEL_TIMEOUT_S = 1.0  # for Postgres to stop what was cancelled, before its connection is cut
OUTAGE_FAST_FAIL_S = 1.0  # after a failed connect, units fail at once for this long instead of each waiting

# A host that froze or vanished in the middle of a transaction must not keep its locks, among them those on its leases.
_SESSION = {
    "application_name": "dunetrace",
    "idle_in_transaction_session_timeout": "5s",
    "tcp_keepalives_idle": "10",
    "tcp_keepalives_interval": "5",
    "tcp_keepalives_count": "3",
}

_AWAY = (
    asyncpg.PostgresConnectionError,
    asyncpg.CannotConnectNowError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.IdleInTransactionSessionTimeoutError,
    asyncpg.InsufficientResourcesError,  # too many connections, a full disk
    asyncpg.InvalidAuthorizationSpecificationError,  # at the start an error of the settings; later it can pass
    asyncpg.ReadOnlySQLTransactionError,  # a replica that was not promoted yet
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,  # the driver's own confusion when a connection ends in the middle of its work
    OSError,
)
_SCHEMA = (asyncpg.UndefinedTableError, asyncpg.UndefinedColumnError, asyncpg.InvalidCatalogNameError)
_REFUSED = (
    asyncpg.DataError,
    asyncpg.ProgramLimitExceededError,  # a value too long for its index
    asyncpg.NotNullViolationError,
    ValueError,  # the driver's, before anything is sent
    OverflowError,
)
_CLASHED = (asyncpg.DeadlockDetectedError, asyncpg.SerializationError)
MAX_CLASHES = 5  # a unit is idempotent: it is simply run again

UniqueViolationError = asyncpg.UniqueViolationError  # for the one write that goes another way then

_WRONG = (
    asyncpg.InvalidPasswordError,
    asyncpg.InvalidAuthorizationSpecificationError,
    asyncpg.InvalidCatalogNameError,
)


class Gateway:
    """A pool of connections, and units of work on it. Made by `open_gateway`."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._pool: Pool | None = None
        self._pool_lock = trio.Lock()
        self._failed_at = -math.inf
        self.state = "unreachable"  # "ok" | "unreachable" | "timeout" | "schema", as /health shows it

    async def unit(
        self, fn: Callable[Concatenate[Connection, P], Awaitable[T]], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Run `fn(conn, *args)` in one transaction.

        Raises StoreUnavailableError while Postgres is away, RowRefusedError when it can't store a value of `args`.
        """
        for _ in range(MAX_CLASHES - 1):
            try:
                return await self._cross(self._transaction, lambda conn: fn(conn, *args, **kwargs))
            except _CLASHED:
                await trio.sleep(0.01)
        return await self._cross(self._transaction, lambda conn: fn(conn, *args, **kwargs))

    async def session(
        self, fn: Callable[Concatenate[Connection, P], Awaitable[T]], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Like `unit` without the transaction, for what holds a connection for longer (LISTEN, migrations)."""
        return await self._cross(self._bare, lambda conn: fn(conn, *args, **kwargs))

    async def listen(self, channel: str, heard: Listener) -> None:
        """LISTEN until cancelled, or until Postgres goes away (StoreUnavailableError); `heard(payload)` each time."""
        await self._cross(self._listening, channel, heard)

    async def probe(self) -> str:
        """Ask Postgres for one row of a table of ours; sets and returns `state`."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._give_up_on, nursery.cancel_scope)
            with suppress(StoreUnavailableError):
                await self.session(_one_row)
            nursery.cancel_scope.cancel()
        return self.state

    async def _give_up_on(self, probe: trio.CancelScope) -> None:
        """Says so at once: to cancel what Postgres does not answer takes a while longer."""
        await trio.sleep(PROBE_TIMEOUT_S)
        self._note("timeout", TimeoutError())
        probe.cancel()

    async def aclose(self) -> None:
        """Close the pool; what still runs is cut off after two seconds, and at once while nobody answers."""
        pool, self._pool = self._pool, None
        if pool is not None and self.state != "ok":
            pool.terminate()
        elif pool is not None:
            await aio_as_trio(_close)(pool)

    async def _cross(self, fn: Callable[..., Awaitable[T]], *args: Any) -> T:
        try:
            pool = self._pool or await self._connect()
            result: T = await aio_as_trio(fn)(pool, *args)
        except TimeoutError as error:
            raise await self._away("timeout", error) from None
        except _SCHEMA as error:
            raise await self._away("schema", error) from None
        except _REFUSED as error:  # before _AWAY: the driver's own DataError is an InterfaceError too
            raise RowRefusedError(kind(error)) from None
        except _AWAY as error:
            raise await self._away("unreachable", error) from None
        if self.state != "ok":
            if self.state != "unreachable" or self._failed_at > -math.inf:
                log.info("database.reachable")
            self.state = "ok"
        return result

    async def _away(self, state: str, error: BaseException) -> StoreUnavailableError:
        self._note(state, error)
        self._failed_at = trio.current_time()
        if self._pool is not None:
            await aio_as_trio(
                self._pool.expire_connections
            )()  # else each of them would fail once more after the outage
        return StoreUnavailableError(state)

    def _note(self, state: str, error: BaseException) -> None:
        if self.state != state:
            log.warning("database.unreachable", state=state, error=kind(error))
        self.state = state

    async def _connect(self) -> Pool:
        async with self._pool_lock:
            if self._pool is None:
                if trio.current_time() - self._failed_at < OUTAGE_FAST_FAIL_S:
                    # Not by way of `_away`: under load each of these would put off the next try for ever.
                    raise StoreUnavailableError(self.state)
                self._pool = await aio_as_trio(_open_pool)(self._url)
            return self._pool

    @staticmethod
    async def _transaction(pool: Pool, work: Callable[[Connection], Awaitable[T]]) -> T:
        async with asyncio.timeout(UNIT_TIMEOUT_S), _acquired(pool) as conn:
            cut: asyncio.TimerHandle | None = None
            try:
                async with conn.transaction():
                    try:
                        return await work(conn)
                    except asyncio.CancelledError:
                        # The rollback waits for Postgres to confirm the cancellation; a frozen one never does.
                        cut = asyncio.get_running_loop().call_later(CANCEL_TIMEOUT_S, conn.terminate)
                        raise
            finally:
                if cut is not None:
                    cut.cancel()

    @staticmethod
    async def _bare(pool: Pool, work: Callable[[Connection], Awaitable[T]]) -> T:
        async with _acquired(pool) as conn:
            return await work(conn)

    @staticmethod
    async def _listening(pool: Pool, channel: str, heard: Listener) -> None:
        async with _acquired(pool) as conn:
            gone = asyncio.Event()

            def on_notify(_conn: object, _pid: int, _channel: str, payload: object) -> None:
                heard(str(payload))

            def on_end(_conn: object) -> None:
                gone.set()

            conn.add_termination_listener(on_end)
            await conn.add_listener(channel, on_notify)
            try:
                await gone.wait()
            finally:
                conn.remove_termination_listener(on_end)
                conn.terminate()  # it still listens, so nobody else may get it
        raise ConnectionError


@asynccontextmanager
async def open_gateway(url: str) -> AsyncIterator[Gateway]:
    """A gateway to the Postgres at `url`, for the length of the block. Does not connect before its first unit."""
    async with trio_asyncio.open_loop() as loop:
        # The default handler turns a mere driver warning into a dead loop with every task hung in it.
        loop.set_exception_handler(_on_loop_error)
        gateway = Gateway(url)
        try:
            yield gateway
        finally:
            with trio.CancelScope(shield=True), trio.move_on_after(4):
                await gateway.aclose()


async def check_access(url: str) -> None:
    """Connect once. SettingError when the password, user or database is wrong; StoreUnavailableError when away."""
    try:
        await aio_as_trio(_connect_once)(url)
    except _WRONG as error:
        raise SettingError(
            f"DATABASE_URL: Postgres answered {kind(error)}: check the user, the password and the database's name"
        ) from None
    except (ValueError, asyncpg.ClientConfigurationError) as error:
        raise SettingError(
            f"DATABASE_URL: not a Postgres address ({kind(error)}); it looks like postgresql://user:password@host/db"
        ) from None
    except (*_AWAY, TimeoutError):
        raise StoreUnavailableError from None


async def _connect_once(url: str) -> None:
    conn = await asyncpg.connect(url, timeout=CONNECT_TIMEOUT_S)
    await conn.close(timeout=1)


async def _open_pool(url: str) -> Pool:
    return await asyncpg.create_pool(
        url,
        min_size=1,
        max_size=POOL_SIZE,
        init=_set_codecs,
        reset=_leave_as_it_is,
        timeout=CONNECT_TIMEOUT_S,
        max_inactive_connection_lifetime=60,
        server_settings=_SESSION,
    )


async def _leave_as_it_is(_conn: object) -> None:
    """A unit sets nothing that outlives its transaction, so the round trip that would undo it is saved each time."""


@asynccontextmanager
async def _acquired(pool: Pool) -> AsyncIterator[Connection]:
    async with AsyncExitStack() as stack:
        conn: Connection = await pool.acquire(timeout=CONNECT_TIMEOUT_S)
        stack.push_async_exit(partial(_give_back, pool, conn))
        yield conn


async def _give_back(pool: Pool, conn: Connection, raised: type[BaseException] | None, *_: object) -> None:
    """After a cancellation this waits until Postgres has confirmed it, and then cuts the connection."""
    cancelled = raised is asyncio.CancelledError
    await pool.release(conn, timeout=CANCEL_TIMEOUT_S if cancelled else CONNECT_TIMEOUT_S)


async def _close(pool: Pool) -> None:
    try:
        async with asyncio.timeout(2):
            await pool.close()
    except TimeoutError:
        pool.terminate()


async def _one_row(conn: Connection) -> None:
    await conn.fetchval("SELECT epoch FROM bucket_leases LIMIT 1")


async def _set_codecs(conn: Any) -> None:
    encode, decode = msgspec.json.Encoder().encode, msgspec.json.Decoder().decode
    # COPY is binary, and binary jsonb is a version byte before the JSON text.
    await conn.set_type_codec(
        "jsonb",
        schema="pg_catalog",
        format="binary",
        encoder=lambda value: b"\x01" + encode(value),
        decoder=lambda data: decode(data[1:]),
    )


def _on_loop_error(_loop: object, context: dict[str, Any]) -> None:
    error = context.get("exception")
    log.warning("database.loop_error", error=kind(error) if error is not None else "none")
