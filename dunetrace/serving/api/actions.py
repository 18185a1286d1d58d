"""Handlers of what a person does about a signal or an issue: fixes; resolving, acknowledging, snoozing."""

from __future__ import annotations

from typing import NoReturn

from msgspec import convert

from dunetrace.events import storable
from dunetrace.serving.answers import RefusedError
from dunetrace.serving.api import shapes
from dunetrace.serving.api.route import Call
from dunetrace.store.gateway import Gateway
from dunetrace.store.reads import fixes as fix_reads
from dunetrace.store.reads.paging import Row
from dunetrace.store.writes import fixes as fix_writes
from dunetrace.store.writes import resolving
from dunetrace.verdicts import verdict


async def list_fixes(reads: Gateway, call: Call) -> shapes.AgentFixes:
    rows = await reads.unit(fix_reads.fixes_of_agent, call.scope, call.ids["agent_id"])
    return shapes.AgentFixes([convert(row | {"verdict": verdict(row["seen"])}, shapes.AgentFix) for row in rows])


async def show_fix_status(reads: Gateway, call: Call) -> shapes.FixStatus:
    signal_id = call.number("signal_id")
    found = None if signal_id is None else await reads.unit(fix_reads.fixes_of_signal, call.scope, signal_id)
    if found is None:
        _no_signal(call)
    seen, fixes = found["seen"], found["fixes"]
    if seen is None:
        return shapes.FixStatus(fix_applied=False)
    earliest = fixes[0]
    return shapes.FixStatus(
        fix_applied=True,
        applied_at=earliest["applied_at"],
        applied_via=earliest["applied_via"],
        langfuse_prompt_name=earliest["langfuse_prompt_name"],
        langfuse_version=earliest["langfuse_version"],
        runs_after_fix=seen.runs_after,
        recurrences_after_fix=seen.recurrence_after,
        verdict=verdict(seen),
        runs_before=seen.runs_before,
        recurrence_before=seen.recurrence_before,
        runs_after=seen.runs_after,
        recurrence_after=seen.recurrence_after,
        fixes=convert(fixes, list[shapes.AppliedFix]),
    )


async def record_copy(gateway: Gateway, call: Call) -> shapes.RecordedFix:
    signal_id, content = call.number("signal_id"), storable(call.body.fix_content)
    fix_id = None
    if signal_id is not None:
        fix_id = await gateway.unit(fix_writes.record_copy, call.scope, signal_id, content)
    if signal_id is None or fix_id is None:
        _no_signal(call)
    return shapes.RecordedFix(fix_id, signal_id)


async def resolve_issue(gateway: Gateway, call: Call) -> shapes.Issue:
    issue_id = call.number("issue_id")
    return _issue(call, None if issue_id is None else await gateway.unit(resolving.resolve, call.scope, issue_id))


async def acknowledge_issue(gateway: Gateway, call: Call) -> shapes.Issue:
    issue_id, wanted = call.number("issue_id"), call.body.acknowledged
    if issue_id is None:
        return _issue(call, None)
    return _issue(call, await gateway.unit(resolving.acknowledge, call.scope, issue_id, wanted))


async def snooze_issue(gateway: Gateway, call: Call) -> shapes.Issue:
    issue_id, seconds = call.number("issue_id"), call.body.seconds
    if issue_id is None:
        return _issue(call, None)
    return _issue(call, await gateway.unit(resolving.snooze, call.scope, issue_id, seconds))


def _issue(call: Call, row: Row | None) -> shapes.Issue:
    if row is None:
        raise RefusedError(404, f"Issue {call.ids['issue_id']} not found.")
    return shapes.issue(row)


def _no_signal(call: Call) -> NoReturn:
    raise RefusedError(404, f"Signal {call.ids['signal_id']} not found.")
