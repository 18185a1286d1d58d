"""The shapes of the figures counted over an agent's runs: insights, health, tokens, failure patterns.

As in shapes.py, what is sent is converted to them and the OpenAPI document shows their descriptions. Live signals
only, everywhere. A rate is a share of runs, 0..1.
"""

from __future__ import annotations

from datetime import date
from typing import Annotated, Literal

from msgspec import Meta, Struct

from dunetrace.serving.api.shapes import AffectedRun, Page, Seconds

Day = Annotated[date, Meta(description="YYYY-MM-DD, the UTC day the run started on")]
Rate = Annotated[float, Meta(description="affected runs / runs, 0..1")]


class InputPattern(Struct):
    input_hash: str
    failure_type: str
    triggered_count: Annotated[int, Meta(description="runs of this input that show the failure")]
    total_runs: Annotated[int, Meta(description="runs of this input")]
    rate: Rate


class SignalTrend(Struct):
    failure_type: str
    agent_version: str
    day: Day
    count: Annotated[int, Meta(description="live signals")]


class VersionFigures(Struct):
    agent_version: str
    run_count: int
    runs_with_signals: int
    signal_count: int
    signal_rate: Annotated[float, Meta(description="runs_with_signals / run_count")]
    first_seen: Annotated[float, Meta(description="start of its first run, Unix seconds")]
    last_seen: Annotated[float, Meta(description="start of its last run, Unix seconds")]


class ToolDay(Struct):
    day: Day
    run_count: int
    runs_with_tool: int
    avg_first_tool_step: Annotated[float | None, Meta(description="null on a day without tool calls")]


class TimeToTool(Struct):
    """Over runs with a tool call, which of a run's LLM, tool and retrieval calls (from 1) was the first tool call."""

    p25: Annotated[float | None, Meta(description="25 % of the runs were this fast; null without tool calls")]
    p50: float | None
    p75: float | None
    avg_steps: float | None
    runs_with_tool: int
    total_runs: int
    daily_trend: Annotated[list[ToolDay], Meta(description="days with runs, oldest first")]


class HourFigures(Struct):
    hour_of_day: Annotated[int, Meta(description="UTC, 0..23, of the run's start; hours without runs are left out")]
    run_count: int
    signal_count: Annotated[int, Meta(description="runs with live signals")]
    signal_rate: Annotated[float, Meta(description="signal_count / run_count")]


class FailureRate(Struct):
    failure_type: str
    day: Day
    total_runs: int
    affected_runs: int
    rate: Rate


class SystemicPattern(Struct):
    failure_type: str
    total_runs: Annotated[int, Meta(description="runs judged in the last 7 days, and running ones that show it")]
    affected_runs: int
    rate: Rate
    first_seen: Annotated[float, Meta(description="the first signal of the last 7 days, Unix seconds")]
    last_seen: Annotated[float, Meta(description="the last signal, Unix seconds")]
    is_systemic: Annotated[bool, Meta(description="rate of at least 0.1 and at least 2 affected runs")]


class Deploy(Struct):
    version: str
    deployed_at: Seconds


class Insights(Struct):
    """Runs that started on the last 30 UTC days, today included, where nothing else is said."""

    input_patterns: Annotated[
        list[InputPattern],
        Meta(description="inputs of at least two runs, of which one failed; most affected first, at most 20"),
    ]
    signal_trends: Annotated[list[SignalTrend], Meta(description="oldest day first")]
    versions: Annotated[list[VersionFigures], Meta(description="the 10 seen last, newest first")]
    time_to_tool: TimeToTool
    hourly_pattern: list[HourFigures]
    failure_rates: Annotated[list[FailureRate], Meta(description="days on which the failure was seen, oldest first")]
    systemic_patterns: Annotated[
        list[SystemicPattern], Meta(description="each failure of the last 7 days, most affected runs first")
    ]
    deploys: Annotated[list[Deploy], Meta(description="marks for the trends, oldest first; the newest 50")]


class ScorePart(Struct):
    score: Annotated[float, Meta(description="points it gives: max × (1 − value)")]
    max: int
    label: str
    value: Annotated[float | None, Meta(description="the share that costs points, 0..1; null with nothing to measure")]


class ScoreParts(Struct):
    failures: Annotated[ScorePart, Meta(description="value: share of runs that errored or have a live signal")]
    loops: Annotated[
        ScorePart,
        Meta(
            description="value: share of runs with TOOL_LOOP, TOOL_THRASHING, RETRY_STORM, LLM_TRUNCATION_LOOP or "
            "REASONING_STALL"
        ),
    ]
    tokens: Annotated[ScorePart, Meta(description="value: tokens the signals' evidence says were wasted / all tokens")]
    latency: Annotated[
        ScorePart,
        Meta(
            description="value: share of runs with SLOW_STEP or, once 10 runs have ended, that took over twice the "
            "median time of these runs"
        ),
    ]


class HealthScore(Struct):
    score: Annotated[int | None, Meta(description="0..100, the sum of the components' points; null without runs")]
    sample_runs: Annotated[int, Meta(description="the newest judged runs it is made of, at most 50")]
    baseline_ready: Annotated[bool, Meta(description="at least 10 runs")]
    components: ScoreParts


class Spent(Struct):
    run_count: int
    total_tokens: int


class Wasted(Struct):
    failure_type: str
    wasted_tokens: Annotated[int, Meta(description="sum of what the signals' evidence says was wasted")]
    wasted_cost_usd: Annotated[float, Meta(description="by the configured prices; what has none counts 0.0")]
    affected_runs: int


class TokenStats(Struct):
    windows: Annotated[
        dict[str, Spent],
        Meta(description="1d, 7d and 30d back from now, from the whole hour on, by the start of the runs"),
    ]
    waste_by_failure_type: Annotated[list[Wasted], Meta(description="of the last 30 days, most wasted first")]


class FleetSignal(Struct):
    """A failure that became more frequent. Each is told once."""

    id: int
    agent_id: str
    failure_type: str
    severity: Annotated[str, Meta(description="the most frequent one of the affected runs' signals")]
    scope: Annotated[
        Literal["version", "deploy", "hour"], Meta(description="since when: a version, a deploy; or the hour of it")
    ]
    subject: Annotated[str, Meta(description="the version, the deploy, or the hour as YYYY-MM-DDTHH:00Z")]
    since: Annotated[float, Meta(description="when the version, deploy or hour began, Unix seconds")]
    title: Annotated[str, Meta(description="it in one line")]
    runs: Annotated[int, Meta(description="judged runs of the version, since the deploy or in the hour")]
    affected_runs: int
    rate: Rate
    runs_before: Annotated[int, Meta(description="the agent's other judged runs of the 7 days before")]
    affected_runs_before: int
    rate_before: Rate
    run_id: Annotated[str, Meta(description="the newest affected run when it was found")]
    found_at: Seconds
    over_at: Annotated[float | None, Meta(description="when an hour was back below it, Unix seconds; null before")]


class FleetSignals(Struct):
    fleet_signals: list[FleetSignal]
    page: Page


class SignalDay(Struct):
    day: Annotated[date, Meta(description="YYYY-MM-DD, the UTC day the signal was found on")]
    count: int


class Beside(Struct):
    failure_type: str
    count: Annotated[int, Meta(description="runs that show both")]


class FailurePattern(Struct):
    failure_type: str
    total_signals: int
    affected_runs: int
    first_seen: Annotated[float | None, Meta(description="Unix seconds; null when it was never seen")]
    last_seen: Annotated[float | None, Meta(description="Unix seconds; null when it was never seen")]
    daily_trend: Annotated[list[SignalDay], Meta(description="14 days, oldest first, today last, zeros kept")]
    step_distribution: Annotated[dict[str, int], Meta(description="signals by the step they point at")]
    co_occurring_signals: Annotated[list[Beside], Meta(description="other failures of the same runs, most first")]
    top_runs: Annotated[list[AffectedRun], Meta(description="most confident first, at most 10")]
