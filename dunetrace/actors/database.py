"""Keeps the database usable: brings the embedded one back when it died, migrates an empty one, learns the hash key.

Its first attempt at boot is what tells a wrong password from an outage: the first ends the start, the second is a
state.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from dunetrace.errors import SettingError, StartError, StoreUnavailableError
from dunetrace.store import gateway as gateways
from dunetrace.store import migrations
from dunetrace.store.reads import installation
from dunetrace.store.reads.keys import any_key
from dunetrace.telemetry import log

if TYPE_CHECKING:
    from dunetrace.nursery import Context

HEALTHY_CHECK_S = 0.25  # with the probe's own limit: an outage is seen, and refused, within a second
OUTAGE_CHECK_S = 0.5
REMINDER_S = 60.0  # an outage is logged once, and then once a minute


class Database:
    """Looks at Postgres all the time; `ctx.gateway.state` is what it last saw."""

    name = "database"

    def __init__(self) -> None:
        self._migrations = migrations.load()
        self._ready = False
        self._looked = False
        self._reminded_at = 0.0

    async def run(self, ctx: Context, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        await self.run_once(ctx)
        self._looked = True
        task_status.started()
        while not ctx.stopping.is_set():
            with trio.move_on_after(HEALTHY_CHECK_S if self._ready else OUTAGE_CHECK_S):
                await ctx.stopping.wait()
            await self.run_once(ctx)

    async def run_once(self, ctx: Context) -> bool:
        """One look, and what it takes to make it good. Returns whether Postgres can be used."""
        try:
            if not self._ready:
                await self._check_access(ctx)
                await ctx.gateway.unit(migrations.migrate, self._migrations)
                ctx.hash_key.learn(await ctx.gateway.unit(installation.hash_key))
                if ctx.settings.auth_mode == "prod" and not await ctx.gateway.unit(any_key):
                    log.warning("keys.none", make_one="python -m dunetrace keys create")
                self._ready = True
            else:
                self._ready = await ctx.gateway.probe() == "ok"
        except StoreUnavailableError:
            self._ready = False
        if not self._ready:
            self._remind(ctx.gateway.state)
            await self._revive(ctx)
        return self._ready

    async def _check_access(self, ctx: Context) -> None:
        try:
            await gateways.check_access(ctx.database_url)
        except SettingError:
            if self._looked:  # the process runs: a password or a database that is being changed is an outage now
                raise StoreUnavailableError from None
            raise

    def _remind(self, state: str) -> None:
        if trio.current_time() - self._reminded_at >= REMINDER_S:
            self._reminded_at = trio.current_time()
            log.warning("database.unreachable", state=state)

    async def _revive(self, ctx: Context) -> None:
        """Start the embedded Postgres again if its process is gone."""
        embedded = ctx.embedded
        if embedded is None or embedded.running_pid() is not None:
            return
        try:
            await trio.to_thread.run_sync(embedded.start)
        except StartError:
            return  # tried again at the next look
        log.warning("postgres.restarted")
