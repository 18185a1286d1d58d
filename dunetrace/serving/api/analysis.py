"""Handlers of the figures counted over an agent's runs."""

from __future__ import annotations

from msgspec import convert

from dunetrace.scores import health_score
from dunetrace.serving.api import figures
from dunetrace.serving.api.route import Call
from dunetrace.store.gateway import Gateway
from dunetrace.store.reads import fleet, insights, patterns, scores, tokens


async def show_insights(reads: Gateway, call: Call) -> figures.Insights:
    found = await reads.unit(insights.insights, call.scope, call.ids["agent_id"], call.moment)
    return convert(found, figures.Insights)


async def show_health_score(reads: Gateway, call: Call) -> figures.HealthScore:
    score = health_score(await reads.unit(scores.newest_judged, call.scope, call.ids["agent_id"]))
    components = {name: component._asdict() for name, component in score.components.items()}
    return convert(score._asdict() | {"components": components}, figures.HealthScore)


async def show_token_stats(reads: Gateway, call: Call) -> figures.TokenStats:
    found = await reads.unit(tokens.token_stats, call.scope, call.ids["agent_id"], call.moment, call.prices)
    return convert(found, figures.TokenStats)


async def list_fleet_signals(reads: Gateway, call: Call) -> figures.FleetSignals:
    found = await reads.unit(fleet.signals, call.scope, call.ids["agent_id"], call.window)
    return figures.FleetSignals(convert(found.rows, list[figures.FleetSignal]), call.page(found))


async def show_failure_pattern(reads: Gateway, call: Call) -> figures.FailurePattern:
    failure_type = call.ids["failure_type"]
    found = await reads.unit(patterns.failure_pattern, call.scope, call.ids["agent_id"], failure_type, call.moment)
    return convert(found, figures.FailurePattern)
