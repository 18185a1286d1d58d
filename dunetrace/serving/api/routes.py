"""Every route of the API as data: where it is, what it takes, the shape it answers with, and the handler.

`app.py` serves this table and `openapi.py` describes it, so that neither can name a route the other does not know.
A handler does its reading in one unit of work.
"""

from __future__ import annotations

from msgspec import convert

from dunetrace.serving.answers import RefusedError
from dunetrace.serving.api import absent, actions, analysis, figures, fixing, shapes, words
from dunetrace.serving.api.parameters import Choice, Flag, Text, Whole
from dunetrace.serving.api.route import MAX_BIGINT, Call, Route
from dunetrace.signals import FailureType, Severity
from dunetrace.store.gateway import Gateway
from dunetrace.store.reads import agents, issues, runs, signals

PAGING = (
    Whole("offset", 0, 0, MAX_BIGINT, "how many to leave out from the start"),
    Whole("limit", 50, 1, 500, "how many to give at most"),
)
EXPLAIN = Flag("explain", True, "false leaves out title, what, why_it_matters, evidence_summary and suggested_fixes")
FAILURE_TYPE = Choice("failure_type", tuple(FailureType), None, "only this failure type")
STATUS = Choice("status", ("open", "resolved", "reopened", "all"), "all", "only issues in this state")
INCLUDE_SHADOW = Flag("include_shadow", False, "true gives shadow signals too")


async def list_agents(reads: Gateway, call: Call) -> shapes.Agents:
    found = await reads.unit(agents.agents, call.scope, call.window, call.moment.date())
    return shapes.Agents(convert(found.rows, list[shapes.Agent]), call.page(found))


async def list_runs(reads: Gateway, call: Call) -> shapes.Runs:
    found = await reads.unit(
        runs.runs,
        call.scope,
        call.ids["agent_id"],
        call.window,
        has_signals=call.query["has_signals"],
        standing=call.query["status"],
    )
    rows = [row | {"total_cost_usd": call.prices.cost_usd(row["token_mix"])} for row in found.rows]
    return shapes.Runs(convert(rows, list[shapes.RunSummary]), call.page(found))


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
    return shapes.Signals(words.signals(found.rows, call.query["explain"]), call.page(found))


async def list_issues(reads: Gateway, call: Call) -> shapes.Issues:
    status = None if call.query["status"] == "all" else call.query["status"]
    rows = await reads.unit(issues.issues, call.scope, call.ids["agent_id"], status)
    return shapes.issues(rows, len(rows))


async def search_issues(reads: Gateway, call: Call) -> shapes.Issues:
    status = None if call.query["status"] == "all" else call.query["status"]
    found = await reads.unit(
        issues.search,
        call.scope,
        call.window,
        text=call.query["q"],
        status=status,
        agent_id=call.query["agent_id"] or None,
        failure_type=call.query["failure_type"],
    )
    return shapes.issues(found.rows, found.total)


async def show_run(reads: Gateway, call: Call) -> shapes.Run:
    run_id = call.ids["run_id"]
    row = await reads.unit(runs.run, call.scope, run_id, call.query["include_shadow"], call.query["events"])
    if row is None:
        raise RefusedError(404, f"Run '{run_id}' not found")
    shown = words.signals(row["signals"], call.query["explain"])
    cost_usd = call.prices.cost_usd(row["token_mix"])
    return convert(row | {"signals": shown, "total_cost_usd": cost_usd}, shapes.Run)


async def show_issue(reads: Gateway, call: Call) -> shapes.IssueDetail:
    issue_id = call.number("issue_id")
    row = None if issue_id is None else await reads.unit(issues.issue, call.scope, issue_id)
    if row is None:
        raise RefusedError(404, f"Issue {call.ids['issue_id']} not found.")
    counts = {"affected_runs_count": row["affected_runs"], "affected_runs": row["runs"]}
    return convert(row | counts, shapes.IssueDetail)


ROUTES = (
    Route("/v1/agents", list_agents, shapes.Agents, "Agents, newest activity first", PAGING),
    Route(
        "/v1/agents/{agent_id}/runs",
        list_runs,
        shapes.Runs,
        "An agent's runs, newest start first, running ones too",
        (
            *PAGING,
            Flag("has_signals", None, "true gives only runs with live signals, false only runs without"),
            Choice("status", ("running", "completed", "errored", "stalled", "parked"), None, "only runs that are so"),
        ),
    ),
    Route(
        "/v1/agents/{agent_id}/signals",
        list_signals,
        shapes.Signals,
        "An agent's signals with their explanations, newest first",
        (
            *PAGING,
            Choice("severity", tuple(Severity), None, "only this severity"),
            FAILURE_TYPE,
            INCLUDE_SHADOW,
            EXPLAIN,
        ),
    ),
    Route(
        "/v1/agents/{agent_id}/issues",
        list_issues,
        shapes.Issues,
        "An agent's issues, one per failure type, latest trouble first",
        (STATUS,),
    ),
    Route(
        "/v1/agents/{agent_id}/insights",
        analysis.show_insights,
        figures.Insights,
        "What an agent's runs have in common",
    ),
    Route(
        "/v1/agents/{agent_id}/health-score",
        analysis.show_health_score,
        figures.HealthScore,
        "An agent's health in points of 100, from its newest judged runs",
    ),
    Route(
        "/v1/agents/{agent_id}/token-stats",
        analysis.show_token_stats,
        figures.TokenStats,
        "What an agent spent in tokens, and what of it was wasted",
    ),
    Route(
        "/v1/agents/{agent_id}/fleet-signals",
        analysis.list_fleet_signals,
        figures.FleetSignals,
        "Failures that became more frequent with a version, a deploy or in an hour, newest first",
        PAGING,
    ),
    Route(
        "/v1/agents/{agent_id}/failure-patterns/{failure_type}",
        analysis.show_failure_pattern,
        figures.FailurePattern,
        "One failure type of an agent, looked at closely",
        choices=(FAILURE_TYPE,),
    ),
    Route(
        "/v1/agents/{agent_id}/fixes",
        actions.list_fixes,
        shapes.AgentFixes,
        "The fixes applied for an agent's signals, newest first, at most 100",
    ),
    Route(
        "/v1/runs/{run_id}",
        show_run,
        shapes.Run,
        "One run with its events and its signals",
        (INCLUDE_SHADOW, EXPLAIN, Flag("events", True, "false leaves out the events; event_count still counts them")),
        missing="Run '<id>' not found",
    ),
    Route(
        "/v1/signals/{signal_id}/fix-status",
        actions.show_fix_status,
        shapes.FixStatus,
        "Whether a signal was fixed, and whether that helped",
        missing="Signal <n> not found.",
    ),
    Route(
        "/v1/signals/{signal_id}/explain",
        fixing.explain_signal,
        shapes.Explanation,
        "What led to a signal, and a fix, as a model reads the run's trace in Langfuse; nothing of it is kept",
        missing="Signal <n> not found.",
        method="POST",
        body=shapes.Asked,
        asks_others=True,
    ),
    Route(
        "/v1/signals/{signal_id}/apply-fix",
        fixing.apply_fix,
        shapes.PublishedFix,
        "Append a fix to a prompt in Langfuse and publish it as a new version; the same again changes nothing",
        missing="Signal <n> not found. Prompt not found in Langfuse.",
        method="POST",
        body=shapes.WantedFix,
        asks_others=True,
    ),
    Route(
        "/v1/signals/{signal_id}/record-copy",
        actions.record_copy,
        shapes.RecordedFix,
        "A suggested fix was copied; the same again within a minute is recorded once",
        missing="Signal <n> not found.",
        method="POST",
        body=shapes.CopiedFix,
    ),
    Route(
        "/v1/issues/search",
        search_issues,
        shapes.Issues,
        "Issues of all agents, latest trouble first; total counts all that match",
        (
            Text("q", "only issues whose agent or failure type holds this text"),
            STATUS,
            Text("agent_id", "only issues of this agent"),
            FAILURE_TYPE,
            *PAGING,
        ),
    ),
    Route(
        "/v1/issues/{issue_id}/resolve",
        actions.resolve_issue,
        shapes.Issue,
        "Resolve an issue by hand; it reopens when it is seen again",
        missing="Issue <n> not found.",
        method="POST",
        body=shapes.Resolution,
    ),
    Route(
        "/v1/issues/{issue_id}/acknowledge",
        actions.acknowledge_issue,
        shapes.Issue,
        "Somebody knows of an issue: people get no updates of it until it is resolved or worse",
        missing="Issue <n> not found.",
        method="POST",
        body=shapes.Acknowledgement,
    ),
    Route(
        "/v1/issues/{issue_id}/snooze",
        actions.snooze_issue,
        shapes.Issue,
        "People are told nothing of an issue for a while; what comes is told when that ends",
        missing="Issue <n> not found.",
        method="POST",
        body=shapes.Snooze,
    ),
    Route(
        "/v1/issues/{issue_id}",
        show_issue,
        shapes.IssueDetail,
        "One issue and the runs it affected",
        missing="Issue <n> not found.",
    ),
    *absent.ABSENT,
)
