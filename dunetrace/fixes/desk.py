"""Where the API brings a signal to be explained or a fix to be applied: the services that are set up, and one client.

Made once by `actors/api.py`. A trace, a prompt and a model's words live for one call here.
"""

from __future__ import annotations

import secrets
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final, Literal, NamedTuple

import trio

from dunetrace.fixes import applying
from dunetrace.fixes.analyst import diagnose
from dunetrace.fixes.langfuse import Langfuse
from dunetrace.fixes.question import question
from dunetrace.fixes.services import ServiceError, Services, services
from dunetrace.outgoing.client import open_client
from dunetrace.telemetry import log
from dunetrace.verdicts import FixType, fix_type

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from dunetrace.config import Settings
    from dunetrace.fixes.applying import Applied
    from dunetrace.fixes.services import LangfuseAccess, ModelAccess
    from dunetrace.fixes.trace import Trace
    from dunetrace.outgoing.client import Client
    from dunetrace.signals import FailureSignal
    from dunetrace.store.gateway import Gateway
    from dunetrace.store.writes.fixes import Wanted

EXPLAIN_TIMEOUT_S: Final = 110.0
MARKER_BYTES: Final = 16


class Explained(NamedTuple):
    """What the API answers about a signal."""

    source: Literal["langfuse", "signal_only"]
    root_cause: str
    fix_content: str
    fix_type: FixType
    prompt_name: str | None
    prompt_version: int | None


class Desk:
    """See the module. Made by `open_desk`."""

    def __init__(self, client: Client, set_up: Services) -> None:
        self._client, self._set_up = client, set_up

    async def explain(self, signal_id: int, signal: FailureSignal, trace_id: str | None) -> Explained:
        """Raises NotSetUpError, ServiceError."""
        access, model = self._set_up.needs_both()
        try:
            with trio.fail_after(EXPLAIN_TIMEOUT_S):
                return await self._explained(signal_id, signal, trace_id, access, model)
        except trio.TooSlowError:
            raise ServiceError(f"Langfuse and {model.provider} took over {EXPLAIN_TIMEOUT_S:g} seconds") from None

    async def apply(self, gateway: Gateway, wanted: Wanted) -> Applied:
        """Raises NotSetUpError, PromptMissingError, BusyError, ServiceError."""
        langfuse = Langfuse(self._client, self._set_up.needs_langfuse())
        applied = await applying.apply(gateway, langfuse, wanted)
        log.info("fix.applied", signal=wanted.signal_id, fix=applied.fix_id, version=applied.version)
        return applied

    async def _explained(
        self,
        signal_id: int,
        signal: FailureSignal,
        trace_id: str | None,
        access: LangfuseAccess,
        model: ModelAccess,
    ) -> Explained:
        began = trio.current_time()
        trace = await Langfuse(self._client, access).trace(trace_id or signal.run_id.replace("-", ""))
        kind = fix_type(signal.failure_type)
        text = None if trace is None else trace.text()
        asked = question(signal, kind, text, lambda: secrets.token_hex(MARKER_BYTES))
        reading = await diagnose(self._client, model, asked)
        source: Literal["langfuse", "signal_only"] = "signal_only" if trace is None else "langfuse"
        log.info(
            "fix.explained",
            signal=signal_id,
            source=source,
            model=model.model,
            input_tokens=reading.input_tokens,
            output_tokens=reading.output_tokens,
            latency_ms=_since_ms(began),
        )
        name, version = _prompt_of(trace)
        found = reading.diagnosis
        return Explained(source, found.root_cause, found.fix_content, kind, name, version)


@asynccontextmanager
async def open_desk(settings: Settings) -> AsyncIterator[Desk]:
    """A desk for the length of the block, with what `settings` set up."""
    async with open_client(allow_private=settings.allow_private_destinations) as client:
        yield Desk(client, services(settings))


def _prompt_of(trace: Trace | None) -> tuple[str | None, int | None]:
    return (None if trace is None else trace.prompt) or (None, None)


def _since_ms(began: float) -> int:
    return round((trio.current_time() - began) * 1000)
