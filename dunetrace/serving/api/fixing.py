"""Handlers that bring a signal to the desk: explained by a model, or fixed by a new version of a prompt."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from dunetrace.events import storable
from dunetrace.fixes.applying import BusyError
from dunetrace.fixes.services import NotSetUpError, PromptMissingError, ServiceError
from dunetrace.serving.answers import RefusedError, invalid, overloaded
from dunetrace.serving.api import shapes
from dunetrace.serving.api.route import Call
from dunetrace.serving.api.words import signal_of
from dunetrace.store.gateway import Gateway
from dunetrace.store.reads import signals
from dunetrace.store.reads.paging import Row
from dunetrace.store.writes.fixes import Wanted
from dunetrace.telemetry import log
from dunetrace.verdicts import fix_type


async def explain_signal(reads: Gateway, call: Call) -> shapes.Explanation:
    row = await _signal(reads, call)
    with _refusing(row):
        found = await call.desk.explain(row["id"], signal_of(row), call.body.langfuse_trace_id)
    return shapes.Explanation(
        signal_id=row["id"],
        source=found.source,
        root_cause=found.root_cause,
        fix_content=found.fix_content,
        fix_type=found.fix_type,
        apply_blocked=found.fix_type != "prompt_addition",
        langfuse_prompt_name=found.prompt_name,
        langfuse_prompt_version=found.prompt_version,
    )


async def apply_fix(gateway: Gateway, call: Call) -> shapes.PublishedFix:
    content = storable(call.body.fix_content).strip()
    if not content:
        raise invalid(["body", "fix_content"], "fix_content: must not be blank", "value_error")
    row = await _signal(gateway, call)
    if fix_type(row["failure_type"]) != "prompt_addition":
        raise RefusedError(403, f"A fix of {row['failure_type']} cannot be applied to a prompt")
    name = storable(call.body.langfuse_prompt_name)
    wanted = Wanted(call.scope.customer_id, row["id"], row["run_id"], row["failure_type"], content, name)
    with _refusing(row):
        found = await call.desk.apply(gateway, wanted)
    return shapes.PublishedFix(found.fix_id, row["id"], found.version, found.url, found.old_text, found.new_text)


async def _signal(reads: Gateway, call: Call) -> Row:
    signal_id = call.number("signal_id")
    row = None if signal_id is None else await reads.unit(signals.signal, call.scope, signal_id)
    if row is None:
        raise RefusedError(404, f"Signal {call.ids['signal_id']} not found.")
    return row


@contextmanager
def _refusing(row: Row) -> Iterator[None]:
    """What can go wrong at the desk, as answers."""
    try:
        yield
    except NotSetUpError as error:
        raise RefusedError(503, str(error)) from None
    except PromptMissingError:
        raise RefusedError(404, "Prompt not found in Langfuse.") from None
    except BusyError:
        raise overloaded("Another fix is being applied to this prompt; try again") from None
    except ServiceError as error:
        log.warning("fix.failed", signal=row["id"], why=str(error))
        raise RefusedError(502, str(error)) from None
