"""A fix appended to a prompt of Langfuse's and published as its next version: once, and with nobody's text lost.

Two clicks, two processes, a retry after an answer that got lost: a claim on the prompt, a row in Postgres that ends by
itself, keeps them apart, and what the prompt holds already is not appended again. So the prompt itself says what was
done, whatever became of our answer. Called by `desk.py`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final, NamedTuple
from uuid import uuid4

import msgspec
import trio

from dunetrace.errors import DunetraceError
from dunetrace.fixes.prompts import LATEST, PRODUCTION
from dunetrace.fixes.services import PromptMissingError, ServiceError
from dunetrace.store.writes import fixes as writes

if TYPE_CHECKING:
    from dunetrace.fixes.langfuse import Langfuse
    from dunetrace.fixes.prompts import Prompt
    from dunetrace.store.gateway import Gateway
    from dunetrace.store.writes.fixes import Wanted

WAIT_S: Final = 20.0  # for another fix of the same prompt
APPLY_TIMEOUT_S: Final = 45.0
CLAIM_S: Final = 60.0  # above APPLY_TIMEOUT_S: whoever holds the claim has ended before it does
LOOK_S: Final = 0.2
PUBLISH_TRIES: Final = 3
RELEASE_S: Final = 1.0


class BusyError(DunetraceError):
    """Another fix is being applied to the same prompt."""


class Applied(NamedTuple):
    """The fix as it stands in the prompt. `old_text` is without it."""

    fix_id: int
    version: int
    url: str
    old_text: str
    new_text: str


class _Outcome(NamedTuple):
    version: int
    old_text: str
    new_text: str
    is_new: bool


async def apply(gateway: Gateway, langfuse: Langfuse, wanted: Wanted) -> Applied:
    """Raises PromptMissingError, BusyError, ServiceError."""
    async with _claim(gateway, wanted):
        try:
            with trio.fail_after(APPLY_TIMEOUT_S):
                outcome = await _put_in(langfuse, wanted)
                fix_id = await gateway.unit(writes.record_applied, wanted, outcome.version, outcome.is_new)
                url = await langfuse.address_of(wanted.prompt_name, outcome.version)
        except trio.TooSlowError:
            raise ServiceError(f"Langfuse took longer than {APPLY_TIMEOUT_S:g} seconds") from None
    return Applied(fix_id, outcome.version, url, outcome.old_text, outcome.new_text)


@asynccontextmanager
async def _claim(gateway: Gateway, wanted: Wanted) -> AsyncIterator[None]:
    """The prompt is ours for the length of the block. Raises BusyError when it does not get free."""
    holder = uuid4()
    with trio.move_on_after(WAIT_S) as waiting:
        while True:
            if await gateway.unit(writes.claim_prompt, wanted, holder, CLAIM_S):
                break
            await trio.sleep(LOOK_S)
    if waiting.cancelled_caught:
        raise BusyError
    try:
        yield
    finally:
        # Whoever asked may be gone; the next one should not have to wait for the claim's end.
        with trio.move_on_after(RELEASE_S, shield=True):
            await gateway.unit(writes.release_prompt, wanted, holder)


async def _put_in(langfuse: Langfuse, wanted: Wanted) -> _Outcome:
    name, fix = wanted.prompt_name, wanted.content
    base = await _current(langfuse, name)
    if base.holds(fix):
        return _Outcome(base.version, base.without(fix), base.text, is_new=False)
    newest = base.version if LATEST in base.labels else (await langfuse.prompt(name, label=LATEST)).version
    for _ in range(PUBLISH_TRIES):
        new = base if base.holds(fix) else base.with_fix(fix)
        version = await langfuse.publish(new, f"Fix for Dunetrace signal {wanted.signal_id}")
        theirs = None if version == newest + 1 else await _between(langfuse, name, version - 1)
        if theirs is None:
            return _Outcome(version, new.without(fix), new.text, is_new=True)
        # Somebody published between our reading and our writing. What they wrote is what ours has to stand on.
        labels = list(dict.fromkeys([*base.labels, *theirs.labels]))
        base, newest = msgspec.structs.replace(theirs, labels=labels), version
    raise ServiceError("Langfuse got further versions of this prompt each time; compare the newest ones there")


async def _current(langfuse: Langfuse, name: str) -> Prompt:
    """The version agents run with: the production one, else the latest."""
    try:
        return await langfuse.prompt(name, label=PRODUCTION)
    except PromptMissingError:
        return await langfuse.prompt(name, label=LATEST)


async def _between(langfuse: Langfuse, name: str, version: int) -> Prompt | None:
    try:
        return await langfuse.prompt(name, version=version)
    except PromptMissingError:  # and deleted again
        return None
