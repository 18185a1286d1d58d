"""The command line: runs the process, and looks after its keys, its database and its alerts.

Every error a person can mend is one line on stderr and exit status 2.
"""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, TypeVar

from dunetrace.errors import DunetraceError, SettingError, StoreUnavailableError

if sys.version_info >= (3, 14):
    raise SystemExit("dunetrace: the server runs on Python 3.11 to 3.13 (the SDK on 3.14 too); use one of those")
try:
    import click
    import trio

    from dunetrace import config, documents, telemetry
    from dunetrace.actors.wakeups import CHANNEL
    from dunetrace.alerts import Destination, destinations_from
    from dunetrace.alerts.trial import send_tests
    from dunetrace.backtest import Backtest, StoredRun
    from dunetrace.detectors import thresholds
    from dunetrace.nursery import ROLES
    from dunetrace.process import Addresses, serve
    from dunetrace.serving import auth
    from dunetrace.spelling import nearest
    from dunetrace.store import migrations
    from dunetrace.store.embedded import DataDirectory, EmbeddedPostgres
    from dunetrace.store.gateway import Gateway, check_access, open_gateway
    from dunetrace.store.reads import keys as key_reads
    from dunetrace.store.reads import stored
    from dunetrace.store.reads.scope import Scope
    from dunetrace.store.writes import deliveries as delivery_writes
    from dunetrace.store.writes import digest as digest_writes
    from dunetrace.store.writes import keys as key_writes
    from dunetrace.store.writes.notices import notify
except ImportError as error:
    raise SystemExit(
        f"dunetrace: the server needs its extra ({error.name} is missing): pip install '<this project>[server]'"
    ) from None

T = TypeVar("T")
EXIT_MENDABLE, EXIT_NOT_DELIVERED = 2, 1


@click.group(invoke_without_command=True)
@click.option("--actors", metavar="NAMES", help=f"Run only some, with commas between: {', '.join(ROLES)}.")
@click.option("--demo", is_flag=True, help="Also drive a few example agents, so that the page has something to show.")
@click.version_option(package_name="dunetrace", message="dunetrace %(version)s")
@click.pass_context
def main(context: click.Context, actors: str | None, demo: bool) -> None:
    """Watch AI agents at run time. Without a command: run the whole server."""
    if context.invoked_subcommand is None:
        _run(actors, demo)


def _run(actors: str | None, demo: bool) -> None:
    roles = _roles(actors)
    with _mendable():
        settings = config.load()
        telemetry.configure(settings.log_level)
        if demo and (settings.auth_mode != "dev" or "ingest" not in roles):
            raise SettingError("--demo: the example agents have no key; it needs AUTH_MODE=dev and the actor ingest")
        trio.run(partial(serve, settings, [*roles, "demo"] if demo else roles, _version(), _say_ready))


def _roles(actors: str | None) -> list[str]:
    names = list(ROLES) if actors is None else [name.strip() for name in actors.split(",") if name.strip()]
    unknown = [name for name in names if name not in ROLES]
    if unknown or not names:
        raise click.UsageError(f"--actors: {', '.join(unknown) or 'nothing named'}; known are {', '.join(ROLES)}")
    if ("ingest" in names) != ("writer" in names):
        raise click.UsageError("--actors: ingest and writer go together: a 202 waits for the writer's commit")
    return names


def _say_ready(addresses: Addresses) -> None:
    served = {"ingest": addresses.ingest, "api": addresses.api, "page": addresses.dashboard}
    words = "  ".join(f"{name} {url}" for name, url in served.items() if url)
    click.echo(f"dunetrace ready  {words}".rstrip())
    sys.stdout.flush()


@main.command()
def migrate() -> None:
    """Bring the database's tables up to date."""

    async def apply(gateway: Gateway) -> list[str]:
        return await gateway.unit(migrations.migrate, migrations.load())

    applied = _with_database(apply, migrated=False)
    click.echo("\n".join(f"applied {name}" for name in applied) or "up to date")


@main.group()
def keys() -> None:
    """Create, list and revoke API keys."""


@keys.command("create")
@click.option("--customer", default="default", show_default=True, help="Whose key it is.")
@click.option("--agent", default=auth.ALL_AGENTS, show_default=True, help="One agent, or * for all of the customer's.")
@click.option("--scopes", default="ingest,read", show_default=True, help=f"Of {', '.join(sorted(auth.SCOPES))}.")
def create_key(customer: str, agent: str, scopes: str) -> None:
    """Make a key and print it. It is shown this once; only its hash is kept."""
    wanted = {scope.strip() for scope in scopes.split(",") if scope.strip()}
    if not wanted or wanted - auth.SCOPES:
        raise click.UsageError(f"--scopes: {scopes!r}; known are {', '.join(sorted(auth.SCOPES))}")
    if not customer or not agent:
        raise click.UsageError("--customer and --agent must not be empty")
    key = auth.new_key()

    async def store(gateway: Gateway) -> None:
        await gateway.unit(key_writes.create_key, auth.key_hash(key), customer, agent, wanted)

    _with_database(store)
    click.echo(key)


@keys.command("list")
@click.option("--customer", default="default", show_default=True, help="Whose keys.")
def list_keys(customer: str) -> None:
    """List a customer's keys: the start of the hash, what it may do, when it was used."""

    async def read(gateway: Gateway) -> list[key_reads.KeyRow]:
        return await gateway.unit(key_reads.list_keys, Scope(customer))

    rows = _with_database(read)
    for row in rows:
        used = f"used {_day(row.last_used_at)}" if row.last_used_at else "never used"
        state = "" if row.active else "  revoked"
        scopes = ",".join(row.scopes)
        click.echo(f"{row.key_hash[:12]}  {row.agent_id}  {scopes}  made {_day(row.created_at)}  {used}{state}")
    if not rows:
        click.echo(f"no keys of customer {customer!r}; make one with: python -m dunetrace keys create")


@keys.command("revoke")
@click.argument("key_hash")
@click.option("--customer", default="default", show_default=True, help="Whose key.")
def revoke_key(key_hash: str, customer: str) -> None:
    """Make a key stop working, within a minute. KEY_HASH is the start of its hash, as `keys list` shows it."""

    async def revoke(gateway: Gateway) -> int:
        return await gateway.unit(key_writes.revoke_key, customer, key_hash)

    found = _with_database(revoke)
    if found != 1:
        raise click.UsageError(f"{found} keys of customer {customer!r} begin with {key_hash!r}; see: keys list")
    click.echo("revoked")


_AGO_S = {"m": 60, "h": 3600, "d": 86_400, "w": 7 * 86_400}


def _ago(_context: click.Context, _option: click.Parameter, value: str) -> float:
    """Seconds, of ``90m``, ``12h``, ``7d`` or ``2w``."""
    found = re.fullmatch(r"([1-9]\d{0,5})([mhdw])", value.strip())
    if found is None:
        raise click.BadParameter(f"{value!r} is no length of time; it looks like 90m, 12h, 7d or 2w")
    return int(found[1]) * _AGO_S[found[2]]


@main.command()
@click.option("--config", "path", required=True, type=Path, help="The detectors.yml to try.")
@click.option("--agent", required=True, help="Whose runs.")
@click.option("--since", "since_s", default="7d", show_default=True, callback=_ago, help="How far back: 90m, 12h, 7d.")
@click.option("--customer", default="default", show_default=True, help="Whose agent.")
@click.option("--limit", default=100_000, show_default=True, type=click.IntRange(1), help="At most so many runs.")
@click.option("--json", "as_json", is_flag=True, help="For machines, with all run ids.")
def backtest(*, path: Path, agent: str, since_s: float, customer: str, limit: int, as_json: bool) -> None:
    """Judge stored runs with other thresholds, and say what would appear and disappear. Writes nothing.

    Both the thresholds that are configured and those to try are applied anew to the stored events, so it shows what the
    thresholds alone change. It may run beside the server.
    """
    with _mendable():
        now = config.load()
        try:
            then = thresholds.check(documents.read("--config", path, path))
        except SettingError as error:
            raise SettingError(f"{path}: {error}") from None
    limits = now.limits.for_agent(agent), then.for_agent(agent)
    began_at, scope = time.time() - since_s, Scope(customer)

    async def compare(gateway: Gateway) -> Backtest:
        known = await gateway.unit(stored.agents, scope)
        if agent not in known:
            near = f"; the nearest is {nearest(agent, known)!r}" if known else ""
            raise SettingError(f"--agent: customer {customer!r} has no agent {agent!r}{near}")
        compared, place = Backtest(), stored.Place(began_at, "")
        while compared.runs < limit:
            page: stored.Page = await gateway.unit(stored.page, scope, agent, place)
            runs = [_stored_run(one, page.now, now.stall_timeout_s) for one in page.runs[: limit - compared.runs]]
            await trio.to_thread.run_sync(partial(compared.add_all, runs, *limits))
            if page.after is None:
                break
            place = page.after
            click.echo(f"{compared.runs:,} runs so far", err=True)
        return compared

    compared = _with_database(compare)
    click.echo(json.dumps(compared.as_dict(), indent=2) if as_json else "\n".join(compared.lines()))


def _stored_run(one: stored.Stored, now: float, stall_s: float) -> StoredRun:
    is_silent = now - one.last_received_at.timestamp() >= stall_s
    return StoredRun(one.case.key[1], one.case.events(), one.usual_steps, is_silent, now)


@main.group()
def alerts() -> None:
    """Try the destinations of alerts, and send again what they refused."""


_only = click.option("--destination", "only", metavar="NAME", help="This one alone, by its name.")


@alerts.command("test")
@_only
def test_alerts(only: str | None) -> None:
    """Send a made-up alert to each destination, and say what came back. Ends with 1 if one was not delivered.

    Destinations are what SLACK_WEBHOOK_URL and WEBHOOK_URL set and what alerts.yml lists. HTTP 3xx and 4xx mean that
    the address or the key is wrong; no answer means that nobody is there, or that a name or a certificate is.
    """
    with _mendable():
        settings = config.load()
        telemetry.configure("ERROR")
        tried = trio.run(send_tests, _destinations(settings, only), settings.allow_private_destinations)
    for name, came_of_it in tried.items():
        click.echo(f"{name}: {came_of_it}")
    if not all(came_of_it.delivered for came_of_it in tried.values()):
        raise SystemExit(EXIT_NOT_DELIVERED)


@alerts.command("retry")
@_only
def retry_alerts(only: str | None) -> None:
    """Send again what the destinations refused and what expired."""

    async def retry(gateway: Gateway, names: list[str]) -> tuple[int, int]:
        alerts, digests = (
            await gateway.unit(delivery_writes.again, names),
            await gateway.unit(digest_writes.again, names),
        )
        await gateway.unit(notify, CHANNEL, " ".join(["cli", *(f"destination:{name}" for name in names)]))
        return alerts, digests

    with _mendable():
        telemetry.configure("ERROR")
        names = [destination.name for destination in _destinations(config.load(), only)]
    alerts, digests = _with_database(partial(retry, names=names))
    click.echo(f"{alerts} deliveries and {digests} digests are due again")


def _destinations(settings: config.Settings, only: str | None) -> tuple[Destination, ...]:
    found = destinations_from(settings)
    if not found:
        raise SettingError(
            "alerts: no destination is configured; set SLACK_WEBHOOK_URL or WEBHOOK_URL, or list some in alerts.yml"
        )
    if only is None:
        return found
    named = tuple(destination for destination in found if destination.name == only)
    if not named:
        names = [destination.name for destination in found]
        raise SettingError(
            f"--destination: there is no {only!r}; the nearest is {nearest(only, names)}. Known: {', '.join(names)}"
        )
    return named


def _with_database(work: Callable[[Gateway], Any], *, migrated: bool = True) -> Any:
    """Run `work` on the configured database, or on the embedded one, which is started for it if it doesn't run."""

    async def run(url: str) -> Any:
        async with open_gateway(url) as gateway:
            await check_access(url)
            if migrated:
                await gateway.unit(migrations.migrate, migrations.load())
            return await work(gateway)

    with _mendable():
        settings = config.load()
        telemetry.configure("WARNING")
        with _database_url(settings) as url:
            return trio.run(run, url)


@contextmanager
def _database_url(settings: config.Settings) -> Iterator[str]:
    if settings.database_url is not None:
        yield settings.database_url
        return
    embedded = EmbeddedPostgres(settings.data_dir)
    if embedded.running_pid() is not None:
        yield embedded.url
        return
    directory = DataDirectory(settings.data_dir)
    directory.lock()
    embedded.start()
    try:
        yield embedded.url
    finally:
        embedded.stop()
        directory.unlock()


@contextmanager
def _mendable() -> Iterator[None]:
    """What a person can mend ends as one line."""
    try:
        yield
    except (DunetraceError, ExceptionGroup) as error:
        mendable = _mendable_in(error)
        if mendable is None:
            raise
        hint = "; is Postgres running?" if isinstance(mendable, StoreUnavailableError) else ""
        click.echo(f"dunetrace: {mendable}{hint}", err=True)
        raise SystemExit(EXIT_MENDABLE) from None


def _mendable_in(error: BaseException) -> DunetraceError | None:
    """The first error of ours in what trio's nurseries grouped; None when something else is among them."""
    if isinstance(error, ExceptionGroup):
        ours, others = error.split(DunetraceError)
        return _mendable_in(ours.exceptions[0]) if ours is not None and others is None else None
    return error if isinstance(error, DunetraceError) else None


def _day(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).date().isoformat()


def _version() -> str:
    try:
        return version("dunetrace")
    except PackageNotFoundError:
        return "unknown"
