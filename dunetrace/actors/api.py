"""The api actor: the customer API on its port and, on the dashboard's, the page with the same API behind it."""

from __future__ import annotations

from functools import partial
from importlib.metadata import version
from typing import TYPE_CHECKING, Final

import trio

from dunetrace.fixes.desk import open_desk
from dunetrace.serving.api.app import ApiApp
from dunetrace.serving.asgi import serve
from dunetrace.serving.auth import Gate, keys_of
from dunetrace.serving.dashboard import DashboardApp
from dunetrace.serving.page import Page

if TYPE_CHECKING:
    from dunetrace.nursery import Context

READ_TIMEOUT_S: Final = 120  # above the longest handler: an explanation, `fixes.desk.EXPLAIN_TIMEOUT_S`


class ApiActor:
    """What people and programs read from. One app answers on both ports."""

    name = "api"

    async def run(self, ctx: Context, *, task_status: trio.TaskStatus[None]) -> None:
        """Serve both ports until `ctx.stopping` is set; requests under way get a few seconds to finish."""
        async with open_desk(ctx.settings) as desk:
            api = ApiApp(
                ctx.gateway,
                Gate(ctx.settings.auth_mode, keys_of(ctx.gateway), trio.current_time),
                ctx.health,
                desk,
                version=version("dunetrace"),
                cors_origins=ctx.settings.cors_origins,
                prices=ctx.settings.prices,
            )
            dashboard = DashboardApp(api, Page())
            async with trio.open_nursery() as ports:
                for app, name in ((api, self.name), (dashboard, "dashboard")):
                    port = partial(serve, app, ctx.socket(name), ctx.stopping, read_timeout_s=READ_TIMEOUT_S)
                    await ports.start(port)
                task_status.started()
