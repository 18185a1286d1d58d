"""The shape of every answer, declared once: what is sent is converted to it, and the OpenAPI document is made from it.

Field names are those of the columns that store/reads selects. Times are float Unix seconds; a `day` is UTC.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import UNSET, Meta, Struct, UnsetType, convert

from dunetrace.fixes.question import MAX_FIX
from dunetrace.verdicts import FixType, Verdict

MAX_TEXT = 65_536  # characters of a text a person sends: a fix, a note
MAX_SNOOZE_S = 90 * 86_400
RunStatus = Literal["running", "ended", "stalled", "parked"]
ExitReason = Annotated[str, Meta(description='run.completed, run.errored or stalled; "" while the run goes on')]
Seconds = Annotated[float, Meta(description="Unix seconds")]
AppliedVia = Literal["langfuse", "clipboard"]
FixVerdict = Annotated[
    Verdict,
    Meta(
        description="still_occurring: it came back; verified: it did not in 10 runs or more, and that is hardly chance "
        "(at most 5 %, by the rate before); likely_fixed: it did not in 5 runs or more; otherwise insufficient_data"
    ),
]


class Page(Struct):
    total: int
    offset: int
    limit: int
    has_more: bool


class Agent(Struct):
    agent_id: str
    last_seen: Seconds
    run_count: int
    signal_count: Annotated[int, Meta(description="live signals")]
    critical_count: int
    high_count: int
    sparkline: Annotated[list[int], Meta(description="live signals a day, oldest first, today (UTC) last; 7 days")]
    severity_sparklines: Annotated[
        dict[str, list[int]], Meta(description="the sparkline of each severity that has any live signal in these days")
    ]
    failure_types: Annotated[dict[str, int], Meta(description="live signals by failure type")]
    dropped_events: Annotated[int, Meta(description="events its senders said they lost before sending")]


class Agents(Struct):
    agents: list[Agent]
    page: Page


class RunSummary(Struct):
    run_id: str
    agent_id: str
    agent_version: str
    status: RunStatus
    started_at: Seconds
    completed_at: Annotated[float | None, Meta(description="Unix seconds; null while the run goes on")]
    exit_reason: ExitReason
    step_count: Annotated[int, Meta(description="LLM, tool and retrieval calls")]
    signal_count: Annotated[int, Meta(description="live signals")]
    has_signals: bool
    total_tokens: int
    total_cost_usd: Annotated[
        float | None, Meta(description="by the configured prices; null without them, or where a model has none")
    ]


class Runs(Struct):
    runs: list[RunSummary]
    page: Page


class Fix(Struct):
    description: str
    language: str
    code: str


class Signal(Struct):
    id: int
    failure_type: str
    severity: str
    run_id: str
    agent_id: str
    agent_version: str
    step_index: Annotated[int, Meta(description="the number of the event it points at")]
    confidence: float
    detected_at: Seconds
    evidence: Annotated[dict[str, Any], Meta(description="counts, indices, ratios and hashes; never content")]
    alerted: bool
    shadow: Annotated[bool, Meta(description="shown, but never alerted and never part of an issue")]
    title: str | UnsetType = UNSET
    what: str | UnsetType = UNSET
    why_it_matters: str | UnsetType = UNSET
    evidence_summary: str | UnsetType = UNSET
    suggested_fixes: list[Fix] | UnsetType = UNSET


class Signals(Struct):
    signals: list[Signal]
    page: Page


class Event(Struct):
    event_type: str
    step_index: int
    timestamp: Seconds
    payload: dict[str, Any]
    parent_run_id: str | None


class Run(RunSummary, kw_only=True):
    parent_run_id: str | None
    dropped_events: Annotated[int, Meta(description="events of this run its sender lost before sending")]
    parked_error: Annotated[
        str | None, Meta(description="of a parked run: which detector failed, on what error type, at which code line")
    ]
    event_count: Annotated[int, Meta(description="events stored")]
    events_truncated: Annotated[bool, Meta(description="true when only the newest of the events are given")]
    events: Annotated[list[Event] | UnsetType, Meta(description="left out on events=false")] = UNSET
    signals: list[Signal]


class Issue(Struct):
    id: int
    agent_id: str
    failure_type: str
    status: Literal["open", "resolved", "reopened"]
    first_seen: Seconds
    opened_at: Annotated[float, Meta(description="the same as first_seen")]
    last_seen: Seconds
    resolved_at: float | None
    affected_runs: int
    occurrence_count: Annotated[int, Meta(description="the same as affected_runs")]
    signal_count: Annotated[int, Meta(description="the same as affected_runs")]
    clean_runs_since: Annotated[int, Meta(description="consecutive runs without it; 5 resolve the issue")]
    acknowledged_at: Annotated[float | None, Meta(description="Unix seconds; null unless somebody said so")]
    snoozed_until: Annotated[float | None, Meta(description="Unix seconds; null unless it is snoozed now")]


class Issues(Struct):
    issues: list[Issue]
    total: int


def issues(rows: list[dict[str, Any]], total: int) -> Issues:
    """The list of rows of ``issues``."""
    return Issues([issue(row) for row in rows], total)


def issue(row: dict[str, Any]) -> Issue:
    """One row of ``issues``, under all the names its numbers go by."""
    runs = row["affected_runs"]
    return convert(row | {"opened_at": row["first_seen"], "occurrence_count": runs, "signal_count": runs}, Issue)


class Resolution(Struct):
    resolution_notes: Annotated[str, Meta(description="read and not stored", max_length=MAX_TEXT)] | None = None


class Acknowledgement(Struct):
    acknowledged: Annotated[bool, Meta(description="false takes it back")] = True


class Snooze(Struct):
    seconds: Annotated[float, Meta(description="from now on; 0 ends it", ge=0, le=MAX_SNOOZE_S)]


class AffectedRun(Struct):
    run_id: str
    detected_at: Seconds
    step_index: int
    confidence: float


class IssueDetail(Struct):
    id: int
    failure_type: str
    agent_id: str
    status: Literal["open", "resolved", "reopened"]
    first_seen: Seconds
    last_seen: Seconds
    resolved_at: float | None
    clean_runs_since: int
    acknowledged_at: float | None
    snoozed_until: float | None
    affected_runs_count: int
    affected_runs: Annotated[list[AffectedRun], Meta(description="newest first, at most 100")]


class CopiedFix(Struct):
    fix_content: Annotated[str, Meta(description="the text of the fix; it is kept", min_length=1, max_length=MAX_TEXT)]


class RecordedFix(Struct):
    fix_id: int
    signal_id: int


class Asked(Struct):
    langfuse_trace_id: (
        Annotated[
            str,
            Meta(
                description="the run's trace in Langfuse; its run id without dashes if left out",
                min_length=1,
                max_length=256,
            ),
        ]
        | None
    ) = None


class Explanation(Struct):
    signal_id: int
    source: Annotated[
        Literal["langfuse", "signal_only"], Meta(description="signal_only: Langfuse has no trace of the run")
    ]
    root_cause: Annotated[str, Meta(description="in a model's words; read them as such")]
    fix_content: Annotated[str, Meta(description="what the model proposes, for a person to read before it is used")]
    fix_type: FixType
    apply_blocked: Annotated[bool, Meta(description="true: apply-fix answers 403")]
    langfuse_prompt_name: Annotated[str | None, Meta(description="of the trace's last generation that names one")]
    langfuse_prompt_version: int | None


class WantedFix(Struct):
    fix_content: Annotated[
        str,
        Meta(description="appended to the prompt as a paragraph; it is kept", min_length=1, max_length=MAX_FIX),
    ]
    langfuse_prompt_name: Annotated[str, Meta(min_length=1, max_length=255)]


class PublishedFix(Struct):
    fix_id: int
    signal_id: int
    new_version: Annotated[int, Meta(description="the version of the prompt that holds the fix")]
    prompt_url: str
    old_text: Annotated[str, Meta(description="the prompt's text, of a chat prompt its last system message's, before")]
    new_text: str


class AppliedFix(Struct):
    fix_id: int
    fix_type: FixType
    applied_via: AppliedVia
    applied_at: Seconds
    langfuse_prompt_name: str | None
    langfuse_version: int | None


class FixStatus(Struct):
    """Without a fix, `fix_applied` is all there is."""

    fix_applied: bool
    applied_at: Annotated[float | UnsetType, Meta(description="of the earliest fix, Unix seconds")] = UNSET
    applied_via: AppliedVia | UnsetType = UNSET
    langfuse_prompt_name: str | UnsetType | None = UNSET
    langfuse_version: int | UnsetType | None = UNSET
    runs_after_fix: Annotated[
        int | UnsetType, Meta(description="the agent's runs that started since the earliest fix and were judged")
    ] = UNSET
    recurrences_after_fix: Annotated[
        int | UnsetType, Meta(description="how many of them show the failure, live signals only")
    ] = UNSET
    verdict: FixVerdict | UnsetType = UNSET
    runs_before: Annotated[int | UnsetType, Meta(description="the same for the 30 days before the fix")] = UNSET
    recurrence_before: int | UnsetType = UNSET
    runs_after: Annotated[int | UnsetType, Meta(description="the same as runs_after_fix")] = UNSET
    recurrence_after: Annotated[int | UnsetType, Meta(description="the same as recurrences_after_fix")] = UNSET
    fixes: Annotated[list[AppliedFix] | UnsetType, Meta(description="oldest first, at most 100")] = UNSET


class AgentFix(Struct):
    signal_id: int
    failure_type: str
    fix_type: FixType
    applied_via: AppliedVia
    verdict: FixVerdict
    applied_at: Seconds


class AgentFixes(Struct):
    fixes: list[AgentFix]


class ActorHealth(Struct):
    state: str
    restarts: int


class Health(Struct):
    status: Literal["ok", "degraded", "unavailable"]
    db: Literal["ok", "unreachable", "timeout", "schema"]
    version: str
    actors: dict[str, ActorHealth]


class Refusal(Struct):
    detail: str


class Fault(Struct):
    loc: list[str | int]
    msg: Annotated[str, Meta(description="what is wrong and what is allowed")]
    type: str


class Invalid(Struct):
    detail: list[Fault]
