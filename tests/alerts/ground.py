"""What the alert tests stand on: settings, a real gateway, signals as the judging side writes them, and moving time."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import trio

from dunetrace import config
from dunetrace.actors.destination import DestinationActor, Turn
from dunetrace.actors.dispatcher import Dispatcher
from dunetrace.alerts import Destination
from dunetrace.alerts.post import Post, open_post
from dunetrace.signals import Severity
from dunetrace.store.gateway import Connection, Gateway
from tests.pagerduty import ROUTING_KEY

SECRET = "a secret between the two"
PAGE = "https://page.example"


@dataclass
class Ground:
    """The part of the supervisor's context that the alert actors use."""

    gateway: Gateway
    settings: config.Settings
    stopping: trio.Event = field(default_factory=trio.Event)

    async def rows(self, sql: str, *args: Any) -> list[dict[str, Any]]:
        """What Postgres answers, each row a dict."""
        return await self.gateway.unit(_rows, sql, *args)

    async def add_signal(self, run_id: str = "run", **columns: Any) -> int:
        """A live signal as a poller writes it; its id. `age_s` puts its `detected_at` into the past."""
        return await self.gateway.unit(_add_signal, run_id, columns)

    async def add_issue(self, **columns: Any) -> int:
        """The issue of what `add_signal` writes; its id."""
        return await self.gateway.unit(_add_issue, columns)

    async def advance(self, seconds: float) -> None:
        """Let time pass: everything that is due, leased, held or ages moves `seconds` into the past."""
        await self.gateway.unit(_advance, seconds)

    async def deliveries(self) -> list[dict[str, Any]]:
        """Every delivery, oldest first."""
        return await self.rows("SELECT * FROM deliveries ORDER BY created_at, run_id")

    async def delivery(self) -> dict[str, Any]:
        """The only delivery."""
        (only,) = await self.deliveries()
        return only

    async def circuit_is_open(self) -> bool:
        rows = await self.rows("SELECT FROM destinations WHERE circuit_open_since IS NOT NULL")
        return bool(rows)

    @property
    def ctx(self) -> Any:
        """As an actor's `ctx`."""
        return self


def ground_on(gateway: Gateway, directory: Path, **environ: str) -> Ground:
    """On this database, with these settings and no file's."""
    given = {
        "DASHBOARD_URL": PAGE,
        "DUNETRACE_ALLOW_PRIVATE_DESTINATIONS": "true",
        "DUNETRACE_ALERT_INTERVAL": "3600",
        **environ,
    }
    return Ground(gateway, config.load(given, directory))


def webhook(url: str, **others: Any) -> Destination:
    """The destination `WEBHOOK_URL` makes."""
    return Destination("webhook", "webhook", url, **{"secret": SECRET, **others})


def slack(url: str, **others: Any) -> Destination:
    """The destination `SLACK_WEBHOOK_URL` makes, without gathering unless asked for."""
    return Destination(**{"name": "slack", "kind": "slack", "url": url, "min_severity": Severity.HIGH, **others})


def pagerduty(url: str, **others: Any) -> Destination:
    """A PagerDuty destination as alerts.yml makes it."""
    return Destination("pager", "pagerduty", url, **{"secret": ROUTING_KEY, "min_severity": Severity.HIGH, **others})


def dispatcher_for(*destinations: Destination) -> Dispatcher:
    """A dispatcher whose hints go nowhere."""
    return Dispatcher(destinations, trio.open_memory_channel[None](1)[1], {})


@dataclass
class Courier:
    """A destination's actor with an open connection pool, to be driven turn by turn."""

    ground: Ground
    actor: DestinationActor
    post: Post

    async def turn(self) -> Turn:
        """One turn."""
        return await self.actor.run_once(self.ground.ctx, self.post)

    async def until_idle(self) -> list[Turn]:
        """Turns until nothing may be attempted now, as one lane takes them; waits within a round pass at once."""
        turns = []
        while True:
            turn = await self.turn()
            if turn.delivery_id is not None:
                turns.append(turn)
            if turn.wait_s is not None and turn.wait_s <= 1.0:
                await self.ground.advance(max(turn.wait_s, 0.0))
            elif turn.delivery_id is None:
                return turns


@asynccontextmanager
async def courier(ground: Ground, destination: Destination) -> AsyncIterator[Courier]:
    """The actor of `destination`, for the length of the block."""
    actor = DestinationActor(destination, trio.open_memory_channel[None](1)[1])
    async with open_post(allow_private=ground.settings.allow_private_destinations) as post:
        yield Courier(ground, actor, post)


async def _rows(conn: Connection, sql: str, *args: Any) -> list[dict[str, Any]]:
    return [dict(row) for row in await conn.fetch(sql, *args)]


_SIGNAL: dict[str, Any] = {
    "customer_id": "default",
    "failure_type": "TOOL_LOOP",
    "severity": "HIGH",
    "agent_id": "agent",
    "agent_version": "6ddeb0c4",
    "step_index": 7,
    "confidence": 0.95,
    "evidence": {
        "kind": "strong",
        "tool_name": "search",
        "args_hash": "d" * 64,
        "count": 3,
        "window": 5,
        "threshold": 3,
        "first_step": 3,
        "last_step": 7,
        "steps": [3, 5, 7],
        "wasted_calls": 2,
        "wasted_tokens": 0,
        "wasted_ms": 0,
    },
    "shadow": False,
}


async def _add_signal(conn: Connection, run_id: str, columns: dict[str, Any]) -> int:
    age_s = columns.pop("age_s", 0.0)
    values = {**_SIGNAL, **columns, "run_id": run_id}
    names = ", ".join(values)
    places = ", ".join(f"${n}" for n in range(1, len(values) + 1))
    sql = f"""
        INSERT INTO failure_signals ({names}, detected_at)
        VALUES ({places}, clock_timestamp() - make_interval(secs => {float(age_s)})) RETURNING id
    """
    return cast("int", await conn.fetchval(sql, *values.values()))


async def _add_issue(conn: Connection, columns: dict[str, Any]) -> int:
    values = {"agent_id": "agent", "failure_type": "TOOL_LOOP", "affected_runs": 1, **columns}
    places = ", ".join(f"${n}" for n in range(1, len(values) + 1))
    sql = (
        f"INSERT INTO issues ({', '.join(values)}, first_seen, last_seen) VALUES ({places}, now(), now()) RETURNING id"
    )
    return cast("int", await conn.fetchval(sql, *values.values()))


async def _advance(conn: Connection, seconds: float) -> None:
    by = f"interval '{seconds:.6f} seconds'"
    await conn.execute(
        f"""
        UPDATE deliveries SET next_attempt_at = next_attempt_at - {by}, lease_until = lease_until - {by},
                              created_at = created_at - {by};
        UPDATE destinations SET probe_at = probe_at - {by}, first_seen = first_seen - {by},
                                circuit_open_since = circuit_open_since - {by};
        UPDATE alert_threads SET told_at = told_at - {by}, due_at = due_at - {by};
        UPDATE issues SET snoozed_until = snoozed_until - {by};
        UPDATE failure_signals SET detected_at = detected_at - {by};
        """
    )
