"""Every route of the API as data: where it is, what it takes, the shape it answers with, and the handler.

`app.py` serves this table and `openapi.py` describes it, so that neither can name a route the other does not know.
A handler does its reading in one unit of work.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, NamedTuple

from msgspec import Struct, convert

from dunetrace.serving.answers import RefusedError
from dunetrace.serving.api import shapes, words
from dunetrace.serving.api.parameters import Choice, Flag, Parameter, Whole
from dunetrace.signals import FailureType, Severity
from dunetrace.store.gateway import Gateway
from dunetrace.store.reads import agents, issues, runs, signals
from dunetrace.store.reads.paging import Found, Window
from dunetrace.store.reads.scope import Scope

MAX_BIGINT = 2**63 - 1
_ID = re.compile(r"[0-9]{1,19}")


class Call(NamedTuple):
    """One authorised request: whose rows it may see, the ids in its path, its query parameters as declared."""

    scope: Scope
    ids: Mapping[str, str]
    query: Mapping[str, Any]
    asked_at: float  # Unix seconds

    @property
    def window(self) -> Window:
        return Window(self.query["offset"], self.query["limit"])


Handler = Callable[[Gateway, Call], Awaitable[Struct]]


@dataclass(frozen=True, slots=True)
class Route:
    """One route. `{name}` in `path` is one percent-encoded segment."""

    path: str
    handler: Handler
    answer: type[Struct]
    what: str
    parameters: tuple[Parameter, ...] = ()
    missing: str = ""  # when it answers 404, for the documents
    method: str = "GET"


PAGING = (
    Whole("offset", 0, 0, MAX_BIGINT, "how many to leave out from the start"),
    Whole("limit", 50, 1, 500, "how many to give at most"),
)
EXPLAIN = Flag("explain", True, "false leaves out title, what, why_it_matters, evidence_summary and suggested_fixes")
INCLUDE_SHADOW = Flag("include_shadow", False, "true gives shadow signals too")


async def list_agents(reads: Gateway, call: Call) -> shapes.Agents:
    today = datetime.fromtimestamp(call.asked_at, UTC).date()
    found = await reads.unit(agents.agents, call.scope, call.window, today)
    return shapes.Agents(convert(found.rows, list[shapes.Agent]), _page(call, found))


async def list_runs(reads: Gateway, call: Call) -> shapes.Runs:
    found = await reads.unit(runs.runs, call.scope, call.ids["agent_id"], call.window, call.query["has_signals"])
    return shapes.Runs(convert(found.rows, list[shapes.RunSummary]), _page(call, found))


async def list_signals(reads: Gateway, call: Call) -> shapes.Signals:
    found = await reads.unit(
        signals.signals,
        call.scope,
        call.ids["agent_id"],
        call.window,
        severity=call.query["severity"],
        failure_type=call.query["failure_type"],
        include_shadow=call.query["include_shadow"],
    )
    return shapes.Signals(words.signals(found.rows, call.query["explain"]), _page(call, found))


async def list_issues(reads: Gateway, call: Call) -> shapes.Issues:
    status = None if call.query["status"] == "all" else call.query["status"]
    rows = await reads.unit(issues.issues, call.scope, call.ids["agent_id"], status)
    for row in rows:
        row["opened_at"] = row["first_seen"]
        row["occurrence_count"] = row["signal_count"] = row["affected_runs"]
    return shapes.Issues(convert(rows, list[shapes.Issue]), len(rows))


async def show_run(reads: Gateway, call: Call) -> shapes.Run:
    run_id = call.ids["run_id"]
    row = await reads.unit(runs.run, call.scope, run_id, call.query["include_shadow"])
    if row is None:
        raise RefusedError(404, f"Run '{run_id}' not found")
    return convert(row | {"signals": words.signals(row["signals"], call.query["explain"])}, shapes.Run)


async def show_issue(reads: Gateway, call: Call) -> shapes.IssueDetail:
    text = call.ids["issue_id"]
    issue_id = int(text) if _ID.fullmatch(text) else -1
    row = await reads.unit(issues.issue, call.scope, issue_id) if 0 <= issue_id <= MAX_BIGINT else None
    if row is None:
        raise RefusedError(404, f"Issue {text} not found.")
    counts = {"affected_runs_count": row["affected_runs"], "affected_runs": row["runs"]}
    return convert(row | counts, shapes.IssueDetail)


def _page(call: Call, found: Found) -> shapes.Page:
    offset, limit = call.window
    return shapes.Page(found.total, offset, limit, offset + len(found.rows) < found.total)


ROUTES = (
    Route("/v1/agents", list_agents, shapes.Agents, "Agents, newest activity first", PAGING),
    Route(
        "/v1/agents/{agent_id}/runs",
        list_runs,
        shapes.Runs,
        "An agent's runs, newest start first, running ones too",
        (*PAGING, Flag("has_signals", None, "true gives only runs with live signals, false only runs without")),
    ),
    Route(
        "/v1/agents/{agent_id}/signals",
        list_signals,
        shapes.Signals,
        "An agent's signals with their explanations, newest first",
        (
            *PAGING,
            Choice("severity", tuple(Severity), None, "only this severity"),
            Choice("failure_type", tuple(FailureType), None, "only this failure type"),
            INCLUDE_SHADOW,
            EXPLAIN,
        ),
    ),
    Route(
        "/v1/agents/{agent_id}/issues",
        list_issues,
        shapes.Issues,
        "An agent's issues, one per failure type, latest trouble first",
        (Choice("status", ("open", "resolved", "reopened", "all"), "all", "only issues in this state"),),
    ),
    Route(
        "/v1/runs/{run_id}",
        show_run,
        shapes.Run,
        "One run with its events and its signals",
        (INCLUDE_SHADOW, EXPLAIN),
        missing="Run '<id>' not found",
    ),
    Route(
        "/v1/issues/{issue_id}",
        show_issue,
        shapes.IssueDetail,
        "One issue and the runs it affected",
        missing="Issue <n> not found.",
    ),
)
