"""Tries destinations with a made-up alert and says what came of it. Used by the command line; nothing of it is kept."""

from __future__ import annotations

import time
from http import HTTPStatus
from typing import TYPE_CHECKING, NamedTuple
from uuid import uuid4

import trio

from dunetrace.alerts import FORMS
from dunetrace.alerts.post import Post, open_post
from dunetrace.deliveries import Outcome, Verdict
from dunetrace.outgoing.guard import InternalAddressError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dunetrace.alerts import Destination

_TRY_LATER = "it cannot take alerts right now; alerts would wait and be tried again"
_WAYS_OUT: dict[int, str] = {
    HTTPStatus.BAD_REQUEST: "it did not like the request; is the key, or the address, the right one for this kind?",
    HTTPStatus.UNAUTHORIZED: "it did not accept the key",
    HTTPStatus.FORBIDDEN: "it did not accept the key, or the address is no longer valid",
    HTTPStatus.NOT_FOUND: "nothing is at this address",
    HTTPStatus.GONE: "nothing is at this address any more",
    HTTPStatus.REQUEST_TIMEOUT: _TRY_LATER,
    HTTPStatus.TOO_MANY_REQUESTS: _TRY_LATER,
}


class Tried(NamedTuple):
    """What came of an attempt, and how long it took."""

    outcome: Outcome
    took_s: float

    @property
    def delivered(self) -> bool:
        return self.outcome.verdict is Verdict.DELIVERED

    def __str__(self) -> str:
        verdict = "delivered" if self.delivered else "failed"
        return f"{verdict}, {_came_back(self.outcome)}, {self.took_s:.2f} s"


async def send_tests(destinations: Sequence[Destination], allow_private: bool) -> dict[str, Tried]:
    """One attempt at each, side by side; what came of it, by the destination's name."""
    tried: dict[str, Tried] = {}

    async def attempt(post: Post, destination: Destination) -> None:
        message = FORMS[destination.kind].test_message(uuid4(), destination.secret, time.time())
        began = trio.current_time()
        outcome = await post.send(destination.url, message)
        tried[destination.name] = Tried(outcome, trio.current_time() - began)

    async with open_post(allow_private=allow_private) as post, trio.open_nursery() as nursery:
        for destination in destinations:
            nursery.start_soon(attempt, post, destination)
    return {destination.name: tried[destination.name] for destination in destinations}


def _came_back(outcome: Outcome) -> str:
    if outcome.status is not None:
        way_out = _way_out(outcome.status)
        return f"HTTP {outcome.status}" + (f" ({way_out})" if way_out else "")
    if outcome.error == InternalAddressError.__name__:
        return "it is an internal address, and DUNETRACE_ALLOW_PRIVATE_DESTINATIONS is not set"
    return f"no answer ({outcome.error})"


def _way_out(status: int) -> str | None:
    if 300 <= status < 400:
        return "it redirects, and redirects are not followed; set the address it leads to"
    return _TRY_LATER if status >= 500 else _WAYS_OUT.get(status)
