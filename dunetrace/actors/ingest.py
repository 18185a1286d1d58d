"""The ingest actor: serves the door on the socket the supervisor lends it, for as long as the attempt lasts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from dunetrace.serving.auth import Gate, keys_of
from dunetrace.serving.engine import serve
from dunetrace.serving.ingest_app import IngestApp, IngestLimits
from dunetrace.store.writes.deploys import mark_deploy

if TYPE_CHECKING:
    from dunetrace.nursery import Context


class IngestActor:
    """POST /v1/ingest and its few companions, on one port."""

    name = "ingest"

    async def run(self, ctx: Context, *, task_status: trio.TaskStatus[None]) -> None:
        """Serve until `ctx.stopping` is set; requests under way get a few seconds to finish."""
        settings, gateway = ctx.settings, ctx.gateway

        async def mark(customer_id: str, agent_id: str, version: str) -> tuple[int, float]:
            return await gateway.unit(mark_deploy, customer_id, agent_id, version)

        app = IngestApp(
            limits=IngestLimits(settings.max_body_bytes, settings.max_events, settings.rate_limit_rpm),
            promise=ctx.promise,
            gate=Gate(settings.auth_mode, keys_of(gateway), trio.current_time),
            hasher=ctx.hash_key.hasher,
            mark_deploy=mark,
            health=ctx.health,
        )
        async with trio.open_nursery() as nursery:
            await nursery.start(serve, app.answer, ctx.socket(self.name), ctx.stopping)
            task_status.started()
