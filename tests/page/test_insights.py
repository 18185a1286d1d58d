"""An agent's insights: every number drawn is the API's, said in words, and there as a table."""

from __future__ import annotations

import re
from collections.abc import Callable

from playwright.sync_api import Locator, expect

from tests.page import figures
from tests.page.serving import PageServer
from tests.page.watching import Watched
from tests.page.world import Json, add, detail, healthy, summarise

AGENT = "research-agent"
ADDRESS = f"#/agents/{AGENT}/insights"
Shared = Callable[..., Watched]


def known(watched: Watched) -> Json:
    return figures.insights(watched.server.world, AGENT)


def rows(chart: Locator) -> list[list[str]]:
    """The table beside a chart."""
    found: list[list[str]] = chart.locator("tbody tr").evaluate_all(
        "(all) => all.map((row) => [...row.cells].map((cell) => cell.textContent))"
    )
    return found


def test_signals_a_day_are_drawn_and_listed(shared: Shared) -> None:
    watched = shared()
    page = watched.turn_to(ADDRESS)
    trends = known(watched)["signal_trends"]
    total = sum(one["count"] for one in trends)
    chart = page.locator(".chart").first
    svg = chart.get_by_role("img")
    expect(svg).to_have_attribute("aria-label", re.compile(rf"^Signals a day\. {total} live signals in 30 days; "))
    listed = rows(chart)
    assert len(listed) == 30
    assert sum(int(row[1]) for row in listed) == total
    days = {one["day"] for one in trends}
    assert len(days) > 3
    expect(svg.locator(".part.high")).to_have_count(len(days))
    drawn = svg.locator(".part.high").evaluate_all("(all) => all.map((one) => one.getBBox().height)")
    counted = [int(row[1]) for row in listed if row[1] != "0"]
    assert all(abs(height / drawn[0] - n / counted[0]) < 0.05 for height, n in zip(drawn, counted, strict=True))
    assert {row[2] for row in listed} - {"none"} == {f"Tool loop {n}" for n in set(counted)}


def test_deploys_and_new_versions_are_marked_where_they_happened(shared: Shared) -> None:
    watched = shared()
    page = watched.turn_to(ADDRESS)
    found = known(watched)
    deployed = {one["version"] for one in found["deploys"]}
    seen = {one["agent_version"] for one in found["versions"]} - deployed
    chart = page.locator(".chart").first
    expect(chart.locator(".release.deployed")).to_have_count(2)
    expect(chart.locator(".release:not(.deployed)")).to_have_count(len(seen))
    places = chart.locator(".release.deployed .pole").evaluate_all("(all) => all.map((one) => one.getBBox().x)")
    newest = chart.locator(".column .whole").nth(26).evaluate("(one) => one.getBBox().x")
    assert places[0] < places[1]
    assert abs(places[1] - newest) < 60  # 3.6 days ago
    titles = chart.locator(".release title").all_text_contents()
    for one in found["deploys"]:
        assert any(title.startswith(f"Version {one['version']} deployed") for title in titles)


def test_rates_say_how_common_each_failure_is_and_lead_to_its_signals(shared: Shared) -> None:
    watched = shared()
    page = watched.turn_to(ADDRESS)
    (pattern,) = known(watched)["systemic_patterns"]
    row = page.locator(".rates tbody tr")
    expect(row).to_have_count(1)
    expect(row).to_contain_text(f"{pattern['affected_runs']} of {pattern['total_runs']} runs")
    expect(row).to_contain_text(f"{round(pattern['rate'] * 100)} %")
    expect(row.locator(".systemic")).to_be_visible()
    row.locator("a").click()
    expect(page.locator(".tabs [aria-current]")).to_contain_text("Signals")
    assert page.url.endswith("/signals?failure_type=TOOL_LOOP")


def test_time_to_tool_hours_versions_inputs_health_and_tokens(shared: Shared) -> None:
    watched = shared()
    page = watched.turn_to(ADDRESS)
    found = known(watched)
    pace = page.locator(".card", has_text="Time to the first tool")
    assert pace.locator("dd").all_text_contents() == [f"{found['time_to_tool'][p]:g}" for p in ("p25", "p50", "p75")]
    assert [row[1] for row in rows(pace)] == [str(one["run_count"]) for one in found["time_to_tool"]["daily_trend"]]
    hours = page.locator(".card", has_text="Runs by the hour")
    by_hour = {one["hour_of_day"]: one for one in found["hourly_pattern"]}
    assert [int(row[1]) for row in rows(hours)] == [by_hour.get(h, {"run_count": 0})["run_count"] for h in range(24)]
    versions = page.locator(".versions tbody tr")
    assert versions.locator("th .mono").all_text_contents() == [one["agent_version"] for one in found["versions"]]
    inputs = page.locator(".inputs tbody tr")
    expect(inputs).to_have_count(len(found["input_patterns"]))
    digest = found["input_patterns"][0]["input_hash"]
    assert digest not in inputs.first.inner_text()  # only its beginning
    expect(inputs.first.locator("th")).to_contain_text(digest[:12])
    health = figures.health(watched.server.world, AGENT)
    expect(page.locator(".score b")).to_have_text(str(health["score"]))
    expect(page.locator(".points li").first).to_contain_text("of 40")
    expect(page.locator(".card", has_text="Health")).to_contain_text("by Tool loop")


def test_an_agent_without_runs_has_nothing_to_compare(shared: Shared) -> None:
    page = shared().turn_to("#/agents/nobody/insights")
    expect(page.get_by_text("Nothing to compare yet")).to_be_visible()


def test_an_agent_that_never_failed_or_called_a_tool(watched: Watched, server: PageServer) -> None:
    script = healthy(server.world.now - 50)
    script.events = [event for event in script.events if not event["event_type"].startswith("tool.")]
    script.end()
    add(server.world, detail("quiet", script, "run.completed"), [])
    summarise(server.world)
    page = watched.go("#/agents/quiet/insights")
    expect(page.get_by_text("No failure in the last 30 days.")).to_be_visible()
    pace = page.locator(".card", has_text="Time to the first tool")
    assert pace.locator("dd").all_text_contents() == ["–", "–", "–"]
    expect(pace).to_contain_text("0 % of 1 run called a tool.")
    watched.assert_clean()


def test_charts_follow_the_width_of_the_window(watched: Watched) -> None:
    page = watched.go(ADDRESS)
    chart = page.locator(".chart > svg").first
    expect(chart).to_have_attribute("width", re.compile(r"^1\d{3}$"))
    page.set_viewport_size({"width": 700, "height": 900})
    expect(chart).to_have_attribute("width", re.compile(r"^6\d\d$"))
    assert page.evaluate("document.documentElement.scrollWidth") == page.evaluate(
        "document.documentElement.clientWidth"
    )
