"""Tries destinations with a made-up alert. Used by the command line; nothing of it is kept."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING
from uuid import uuid4

import trio

from dunetrace.alerts import FORMS
from dunetrace.alerts.post import Post, open_post

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dunetrace.alerts import Destination
    from dunetrace.deliveries import Outcome


async def send_tests(destinations: Sequence[Destination], allow_private: bool) -> dict[str, Outcome]:
    """One attempt at each, side by side; what came of it, by the destination's name."""
    outcomes: dict[str, Outcome] = {}

    async def attempt(post: Post, destination: Destination) -> None:
        message = FORMS[destination.kind].test_message(uuid4(), destination.secret, time.time())
        outcomes[destination.name] = await post.send(destination.url, message)

    async with open_post(allow_private=allow_private) as post, trio.open_nursery() as nursery:
        for destination in destinations:
            nursery.start_soon(attempt, post, destination)
    return {destination.name: outcomes[destination.name] for destination in destinations}
