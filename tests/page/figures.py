"""An agent's insights, health and tokens in the API's shapes, counted from a World's runs and signals."""

from __future__ import annotations

import time
from collections import Counter
from statistics import mean, quantiles
from typing import Any

from tests.page.world import Json, World

DAYS = 30


def day(at: float) -> str:
    return time.strftime("%Y-%m-%d", time.gmtime(at))


def insights(world: World, agent_id: str) -> Json:
    """As the API counts it, over the runs of the last 30 UTC days."""
    since = (int(world.now // 86400) - DAYS + 1) * 86400
    runs = [run for run in world.runs.values() if run["agent_id"] == agent_id and run["started_at"] >= since]
    runs.sort(key=lambda run: run["started_at"])
    live = {run["run_id"]: [s for s in run["signals"] if not s["shadow"]] for run in runs}
    trends = Counter(
        (s["failure_type"], run["agent_version"], day(run["started_at"])) for run in runs for s in live[run["run_id"]]
    )
    per_day = Counter(day(run["started_at"]) for run in runs)
    affected = Counter((s["failure_type"], day(run["started_at"])) for run in runs for s in live[run["run_id"]])
    return {
        "input_patterns": _inputs(runs, live),
        "signal_trends": [
            {"failure_type": kind, "agent_version": version, "day": when, "count": n}
            for (kind, version, when), n in sorted(trends.items(), key=lambda item: item[0][2])
        ],
        "versions": _versions(runs, live),
        "time_to_tool": _time_to_tool(runs, per_day),
        "hourly_pattern": _hours(runs, live),
        "failure_rates": [
            {
                "failure_type": kind,
                "day": when,
                "total_runs": per_day[when],
                "affected_runs": n,
                "rate": n / per_day[when],
            }
            for (kind, when), n in sorted(affected.items(), key=lambda item: item[0][1])
        ],
        "systemic_patterns": _systemic(world, runs, live),
        "deploys": world.deploys.get(agent_id, []),
    }


def _inputs(runs: list[Json], live: dict[str, list[Json]]) -> list[Json]:
    given = Counter(run["events"][0]["payload"]["input_hash"] for run in runs)
    hits = Counter(
        (run["events"][0]["payload"]["input_hash"], s["failure_type"]) for run in runs for s in live[run["run_id"]]
    )
    return [
        {
            "input_hash": which,
            "failure_type": kind,
            "triggered_count": n,
            "total_runs": given[which],
            "rate": n / given[which],
        }
        for (which, kind), n in hits.most_common(20)
        if given[which] > 1
    ]


def _versions(runs: list[Json], live: dict[str, list[Json]]) -> list[Json]:
    found = []
    for version in dict.fromkeys(run["agent_version"] for run in reversed(runs)):
        of = [run for run in runs if run["agent_version"] == version]
        bad = sum(bool(live[run["run_id"]]) for run in of)
        found.append(
            {
                "agent_version": version,
                "run_count": len(of),
                "runs_with_signals": bad,
                "signal_count": sum(len(live[run["run_id"]]) for run in of),
                "signal_rate": bad / len(of),
                "first_seen": of[0]["started_at"],
                "last_seen": of[-1]["started_at"],
            }
        )
    return found[:10]


def first_tool(run: Json) -> int | None:
    calls = [event["event_type"] for event in run["events"] if event["event_type"].endswith(".called")]
    return calls.index("tool.called") + 1 if "tool.called" in calls else None


def _time_to_tool(runs: list[Json], per_day: Counter[str]) -> Json:
    steps = [step for run in runs if (step := first_tool(run)) is not None]
    p25, p50, p75 = quantiles(steps, n=4, method="inclusive") if len(steps) > 1 else (None, None, None)
    trend = []
    for when, count in sorted(per_day.items()):
        of = [step for run in runs if day(run["started_at"]) == when and (step := first_tool(run)) is not None]
        trend.append(
            {
                "day": when,
                "run_count": count,
                "runs_with_tool": len(of),
                "avg_first_tool_step": mean(of) if of else None,
            }
        )
    return {
        "p25": p25, "p50": p50, "p75": p75, "avg_steps": mean(steps) if steps else None,
        "runs_with_tool": len(steps), "total_runs": len(runs), "daily_trend": trend,
    }  # fmt: skip


def _hours(runs: list[Json], live: dict[str, list[Json]]) -> list[Json]:
    started = Counter(time.gmtime(run["started_at"]).tm_hour for run in runs)
    bad = Counter(time.gmtime(run["started_at"]).tm_hour for run in runs if live[run["run_id"]])
    return [
        {"hour_of_day": hour, "run_count": n, "signal_count": bad[hour], "signal_rate": bad[hour] / n}
        for hour, n in sorted(started.items())
    ]


def _systemic(world: World, runs: list[Json], live: dict[str, list[Json]]) -> list[Json]:
    recent = [run for run in runs if run["started_at"] >= world.now - 7 * 86400]
    seen: dict[str, list[float]] = {}
    for run in recent:
        for signal in live[run["run_id"]]:
            seen.setdefault(signal["failure_type"], []).append(signal["detected_at"])
    return [
        {
            "failure_type": kind, "total_runs": len(recent), "affected_runs": len(at), "rate": len(at) / len(recent),
            "first_seen": min(at), "last_seen": max(at), "is_systemic": len(at) > 1 and len(at) / len(recent) >= 0.1,
        }
        for kind, at in sorted(seen.items(), key=lambda item: -len(item[1]))
    ]  # fmt: skip


def health(world: World, agent_id: str) -> Json:
    runs = [run for run in world.runs.values() if run["agent_id"] == agent_id]
    share = sum(run["has_signals"] for run in runs) / len(runs) if runs else 0.0
    parts = {"failures": 40, "loops": 25, "tokens": 20, "latency": 15}
    components: dict[str, Any] = {
        name: {
            "score": limit * (1 - share),
            "max": limit,
            "label": f"{sum(run['has_signals'] for run in runs)} of {len(runs)} runs",
            "value": share,
        }
        for name, limit in parts.items()
    }
    score = round(100 * (1 - share)) if runs else None
    return {
        "score": score,
        "sample_runs": min(50, len(runs)),
        "baseline_ready": len(runs) >= 10,
        "components": components,
    }


def tokens(world: World, agent_id: str) -> Json:
    runs = [run for run in world.runs.values() if run["agent_id"] == agent_id]
    windows = {}
    for days in (1, 7, 30):
        of = [run for run in runs if run["started_at"] >= world.now - days * 86400]
        windows[f"{days}d"] = {"run_count": len(of), "total_tokens": sum(run["total_tokens"] for run in of)}
    wasted: dict[str, list[int]] = {}
    for signal in world.signals:
        if signal["agent_id"] == agent_id and not signal["shadow"]:
            wasted.setdefault(signal["failure_type"], []).append(signal["evidence"].get("wasted_tokens", 0))
    waste = [
        {"failure_type": kind, "wasted_tokens": sum(all_), "wasted_cost_usd": 0.0, "affected_runs": len(all_)}
        for kind, all_ in wasted.items()
    ]
    return {"windows": windows, "waste_by_failure_type": waste}
