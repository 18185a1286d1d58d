"""The journal actor: moves what the door accepts to the disk, all that has come meanwhile with one sync."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from dunetrace.journal.journal import Journal
    from dunetrace.nursery import Context


class JournalActor:
    """Works until a stop is asked for and nothing waits for the disk."""

    name = "journal"

    def __init__(self, journal: Journal) -> None:
        self._journal = journal

    async def run(self, ctx: Context, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        task_status.started()
        while await self._journal.wait_for_arrivals(ctx.stopping):
            await self._journal.write_arrivals()
