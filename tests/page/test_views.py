"""Every view in a real browser: drawn without a complaint, from this origin alone, usable by keyboard and phone."""

from __future__ import annotations

import re
from collections.abc import Callable
from urllib.parse import quote

import pytest
from playwright.sync_api import Page, expect

from tests.page.reading import too_faint
from tests.page.serving import PageServer
from tests.page.watching import Watched, until
from tests.page.world import HOSTILE, LONG, Json, World, add, detail, loop, summarise

ADDRESSES = [
    "agents", "all issues", "all signals", "runs", "signals", "issues", "insights", "clean run", "looping run",
    "failed run", "slow run", "running run", "lost",
]  # fmt: skip
Shared = Callable[..., Watched]


def address(kind: str, world: World) -> str:
    def run(agent_id: str, *, signals: bool, status: str = "ended") -> str:
        return next(
            f"#/runs/{found['run_id']}"
            for found in world.runs.values()
            if found["agent_id"] == agent_id and bool(found["signals"]) == signals and found["status"] == status
        )

    return {
        "agents": lambda: "#/",
        "all issues": lambda: "#/issues?status=all",
        "all signals": lambda: "#/signals",
        "insights": lambda: "#/agents/research-agent/insights",
        "slow run": lambda: run("bi-analyst", signals=True),
        "runs": lambda: "#/agents/research-agent",
        "signals": lambda: "#/agents/research-agent/signals?shadow=1",
        "issues": lambda: "#/agents/planner%2Fv2/issues",
        "clean run": lambda: run("bi-analyst", signals=False),
        "looping run": lambda: run("research-agent", signals=True),
        "failed run": lambda: run("fx-booking", signals=True),
        "running run": lambda: run("research-agent", signals=True, status="running"),
        "lost": lambda: "#/nowhere",
    }[kind]()


def overflow(page: Page) -> int:
    pixels: int = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
    return pixels


@pytest.mark.parametrize("kind", ADDRESSES)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_view_is_drawn_without_complaint_and_can_be_read(shared: Shared, kind: str, scheme: str) -> None:
    watched = shared(color_scheme=scheme)
    page = watched.turn_to(address(kind, watched.server.world))
    expect(page.locator("#view :is(h1, h2)").first).to_be_visible()
    expect(page.locator(".health summary")).to_have_text("All well")
    open_everything(page)
    assert overflow(page) == 0
    assert too_faint(page) == []
    watched.assert_clean()


@pytest.mark.parametrize("kind", ADDRESSES)
@pytest.mark.parametrize("width", [390, 2200], ids=["phone", "wall"])
def test_a_view_fits(shared: Shared, kind: str, width: int) -> None:
    watched = shared(viewport={"width": width, "height": 844})
    page = watched.turn_to(address(kind, watched.server.world))
    open_everything(page)
    assert overflow(page) == 0
    watched.assert_clean()


def open_everything(page: Page) -> None:
    page.evaluate("document.querySelectorAll('#view details').forEach((one) => { one.open = true; })")


def test_the_watch_on_the_policy_sees_what_it_should(watched: Watched) -> None:
    page = watched.go()
    page.evaluate("document.body.setAttribute('style', 'color: red')")
    until(page, "window.violations.length > 0")
    assert watched.violations() == ["style-src-attr"]
    assert (
        page.evaluate("(() => { try { document.body.innerHTML = 'x'; } catch (e) { return e.name; } })()")
        == "TypeError"
    )


def test_the_overview_says_what_the_api_says(watched: Watched) -> None:
    page = watched.go()
    world = watched.server.world
    agents = world.agents
    expect(page.locator("tbody tr")).to_have_count(len(agents))
    first = max(agents, key=trouble)
    row = page.locator("tbody tr").first
    expect(row.locator("th a")).to_have_text(first["agent_id"])
    expect(row.locator("td").nth(1)).to_have_text(tallied([first], -1))
    expect(row.locator("td").nth(2)).to_have_text(tallied([first], 0))
    expect(row.locator("td").nth(5)).to_have_text(str(first["run_count"]))
    expect(row.locator("svg.spark")).to_have_attribute("aria-label", re.compile(rf"Today: {first['sparkline'][-1]}$"))
    today = sum(agent["sparkline"][-1] for agent in agents)
    sums = page.locator(".sums dd")
    assert sums.nth(0).inner_text() == str(sum(issue["status"] != "resolved" for issue in world.issues))
    assert sums.nth(1).text_content() == f"{today}{tallied(agents, -1)}"
    assert sums.nth(3).inner_text() == str(sum(agent["run_count"] for agent in agents))
    expect(page.locator(".horizon li").last).to_contain_text(str(today))
    page.get_by_role("button", name="Newest first").click()
    expect(page.locator("tbody tr").first.locator("th a")).to_have_text(agents[0]["agent_id"])
    assert page.url.endswith("#/?by=activity")


GRAVITY = ("CRITICAL", "HIGH", "MEDIUM", "LOW")


def trouble(agent: Json) -> tuple[int, ...]:
    by = agent["severity_sparklines"]
    today, week = ([sum(by.get(severity, [0])[since:]) for severity in GRAVITY] for since in (-1, 0))
    return (*today, *week)


def tallied(agents: list[Json], since: int) -> str:
    """As the page writes the signals of each severity."""
    counts = {one: sum(sum(agent["severity_sparklines"].get(one, [0])[since:]) for agent in agents) for one in GRAVITY}
    return "".join(f"{n} {severity.lower()} " for severity, n in counts.items() if n) or "0"


def test_what_is_wrong_now_comes_first_the_worst_of_it_on_top(watched: Watched) -> None:
    page = watched.go()
    live = [issue for issue in watched.server.world.issues if issue["status"] != "resolved"]
    expect(page.locator(".wrongs li")).to_have_count(min(6, len(live)))
    worst = page.locator(".wrongs li").first
    expect(worst).to_contain_text("Prompt injection signal")
    expect(worst).to_contain_text("mail-assistant")
    expect(worst.locator(".badge")).to_have_text("Critical")
    worst.click()
    expect(page.locator("h1")).to_have_text("mail-assistant")
    assert page.url.endswith("/signals?failure_type=PROMPT_INJECTION_SIGNAL")


def test_no_open_issue_is_said_to_be_good_news(watched: Watched, server: PageServer) -> None:
    for issue in server.world.issues:
        issue["status"] = "resolved"
    page = watched.go()
    expect(page.locator("p.calm").filter(has_text="No open issues.")).to_be_visible()
    expect(page.locator(".wrongs")).to_have_count(0)


def test_issues_of_all_agents_by_state(watched: Watched) -> None:
    page = watched.go("#/issues")
    issues = watched.server.world.issues
    for button, states in (
        ("Resolved", {"resolved"}),
        ("All", {"open", "reopened", "resolved"}),
        ("Open", {"open", "reopened"}),
    ):
        page.get_by_role("button", name=button, exact=True).click()
        expect(page.locator("tbody tr")).to_have_count(sum(issue["status"] in states for issue in issues))
        expect(page.get_by_role("button", name=button, exact=True)).to_have_attribute("aria-pressed", "true")
    row = page.locator("tbody tr").first
    expect(row).to_contain_text("mail-assistant")
    expect(row.locator("svg[role=img]")).to_have_attribute(
        "aria-label", re.compile(r"\d clean runs? of the 5 that resolve it")
    )


def test_signals_of_all_agents_are_the_newest_of_each_merged(watched: Watched, server: PageServer) -> None:
    page = watched.go("#/signals?shadow=1")
    everything = sorted(server.world.signals, key=lambda signal: (-signal["detected_at"], -signal["id"]))
    assert len(everything) > 40
    shown = page.locator("details.signal").evaluate_all("(all) => all.map((one) => one.id)")
    assert shown == [f"signal-{signal['id']}" for signal in everything[:50]]
    page.get_by_label("Severity").select_option("CRITICAL")
    critical = [signal for signal in everything if signal["severity"] == "CRITICAL"]
    expect(page.locator("details.signal")).to_have_count(len(critical))
    expect(page.locator("details.signal").first).to_contain_text("mail-assistant")


def test_the_sections_are_marked_and_lead_to_each_other(watched: Watched) -> None:
    page = watched.go()
    for text in ("Issues", "Signals", "Overview"):
        page.locator("#sections").get_by_role("link", name=text).click()
        expect(page.locator("h1")).to_contain_text(text)
        expect(page.locator("#sections [aria-current=page]")).to_have_text(text)


def test_from_the_overview_to_a_run_by_keyboard_alone(watched: Watched) -> None:
    page = watched.go()
    wanted = watched.server.world.agents[0]["agent_id"]
    reach(page, f"#/agents/{quote(wanted, safe='')}")
    page.keyboard.press("Enter")
    expect(page.locator("h1")).to_have_text(wanted)
    expect(page.locator("h1")).to_be_focused()
    newest = max(
        (r for r in watched.server.world.runs.values() if r["agent_id"] == wanted), key=lambda r: r["started_at"]
    )
    reach(page, f"#/runs/{newest['run_id']}")
    page.keyboard.press("Enter")
    expect(page.locator("h1")).to_have_text(newest["run_id"])
    expect(page.locator("h1")).to_be_focused()
    watched.assert_clean()


def reach(page: Page, href: str) -> None:
    """Presses Tab until the link has the focus, and checks that one can see that it has."""
    for _ in range(60):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.getAttribute('href')") == href:
            outlines = "['', '::after'].map((part) => getComputedStyle(document.activeElement, part).outlineStyle)"
            assert "solid" in page.evaluate(outlines)
            return
    pytest.fail(f"Tab never reached {href}")


def test_the_skip_link_goes_to_the_content_and_stays_on_the_view(watched: Watched) -> None:
    page = watched.go("#/agents/research-agent")
    page.keyboard.press("Tab")
    expect(page.locator(".skip")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("#view")).to_be_focused()
    assert page.url.endswith("#/agents/research-agent")


def test_going_back_shows_the_list_where_it_was_left(watched: Watched) -> None:
    page = watched.go("#/agents/support-triage")
    expect(page.locator("tbody tr")).to_have_count(50)
    page.evaluate("scrollTo(0, 900)")
    until(page, "history.state?.y === 900")
    page.locator("tbody a").nth(30).evaluate("(link) => link.click()")
    expect(page.locator(".stage")).to_be_visible()
    assert page.evaluate("scrollY") == 0
    page.go_back()
    expect(page.locator("tbody tr")).to_have_count(50)
    until(page, "scrollY === 900")


def test_more_runs_are_loaded_on_asking_and_stay_over_a_refresh(watched: Watched) -> None:
    watched.page.clock.install()
    page = watched.go("#/agents/support-triage")
    expect(page.locator("tbody tr")).to_have_count(50)
    page.get_by_role("button", name="More").click()
    expect(page.locator("tbody tr")).to_have_count(100)
    page.get_by_role("button", name="More").click()
    expect(page.locator("tbody tr")).to_have_count(120)
    expect(page.get_by_role("button", name="More")).to_have_count(0)
    with page.expect_response("**/runs?*limit=150"):
        page.clock.fast_forward(15_000)
    expect(page.locator("tbody tr")).to_have_count(120)


def test_runs_and_signals_are_filtered_by_the_api_and_the_filter_is_in_the_address(watched: Watched) -> None:
    page = watched.go("#/agents/research-agent")
    page.get_by_label("Show").select_option("true")
    until(page, "location.hash.endsWith('has_signals=true')")
    with_signals = [
        r for r in watched.server.world.runs.values() if r["agent_id"] == "research-agent" and r["has_signals"]
    ]
    expect(page.locator("tbody tr")).to_have_count(len(with_signals))
    assert page.url.endswith("#/agents/research-agent?has_signals=true")
    page.get_by_label("Status").select_option("running")
    expect(page.locator("tbody tr")).to_have_count(1)
    expect(page.locator("tbody .standing")).to_have_text("Running")
    assert page.url.endswith("#/agents/research-agent?has_signals=true&status=running")
    page.locator(".tabs").get_by_role("link", name="Signals").click()
    of_agent = [signal for signal in watched.server.world.signals if signal["agent_id"] == "research-agent"]
    live = [signal for signal in of_agent if not signal["shadow"]]
    assert len(of_agent) > len(live)
    expect(page.locator("details.signal")).to_have_count(len(live))
    page.get_by_label("Shadow signals too").check()
    expect(page.locator("details.signal")).to_have_count(len(of_agent))
    page.get_by_label("Severity").select_option("CRITICAL")
    expect(page.get_by_text("No signal of this agent fits these filters.")).to_be_visible()


def test_a_signal_is_explained_and_its_fix_can_be_copied(open_page: Callable[..., Watched]) -> None:
    watched = open_page(permissions=["clipboard-read", "clipboard-write"])
    page = watched.go(address("looping run", watched.server.world))
    signal = next(s for s in watched.server.world.signals if s["run_id"] in page.url)
    card = page.locator("details.signal").first
    for field in ("title", "what", "why_it_matters", "evidence_summary"):
        expect(card.get_by_text(signal[field], exact=True)).to_be_visible()
    expect(card.locator(".badge")).to_have_text("High")
    card.get_by_role("button", name="Copy").first.click()
    expect(card.get_by_role("button", name="Copied")).to_be_visible()
    assert page.evaluate("navigator.clipboard.readText()") == signal["suggested_fixes"][0]["code"]
    watched.assert_clean()


def test_the_timeline_shows_a_step_s_facts_by_arrow_keys_and_pointer(watched: Watched) -> None:
    page = watched.go(address("looping run", watched.server.world))
    stage = page.locator(".stage")
    stage.focus()
    page.keyboard.press("ArrowRight")
    expect(page.locator("#step-facts")).to_contain_text("Step 1")
    page.keyboard.press("ArrowRight")
    expect(page.locator("#step-facts")).to_contain_text("web_search")
    expect(stage).to_have_attribute("aria-valuetext", "Step 2, Tool, web_search, answered, 900 ms")
    page.keyboard.press("End")
    expect(page.locator("#step-facts")).to_contain_text("Step 15")
    page.locator(".bar.tool").first.hover()
    expect(page.locator("#step-facts")).to_contain_text("Step 2")
    page.get_by_role("button", name="By step").click()
    expect(page.get_by_role("button", name="By step")).to_have_attribute("aria-pressed", "true")
    expect(page.locator(".timeline .bar")).to_have_count(15)
    page.locator(".flag .shape").click()
    expect(page.locator("details.signal > summary").first).to_be_focused()
    watched.assert_clean()


def test_failed_and_open_calls_look_so(watched: Watched) -> None:
    page = watched.go(address("failed run", watched.server.world))
    expect(page.locator(".bar.failed")).to_have_count(4)
    expect(page.locator(".facts").first).to_contain_text("4 failed")
    page = watched.go(address("running run", watched.server.world))
    expect(page.locator(".bar.open")).to_have_count(1)
    expect(page.locator(".standing")).to_have_text("Running")


def test_a_slow_call_looks_slow_and_says_how_slow(shared: Shared) -> None:
    watched = shared()
    page = watched.turn_to(address("slow run", watched.server.world))
    expect(page.locator(".bar.slow")).to_have_count(1)
    expect(page.locator(".bar.slow text")).to_have_text("run_query · 41.0 s")
    expect(page.locator(".facts").first).to_contain_text("Slow calls1")
    page.locator(".bar.slow rect").hover()
    expect(page.locator("#step-facts .warn")).to_have_text("41.0 s, slow")
    expect(page.locator(".log tr.selected")).to_have_count(2)  # the call and its answer


def test_events_are_filtered_by_type_without_asking_the_server(shared: Shared) -> None:
    watched = shared()
    kind = address("failed run", watched.server.world)
    page = watched.turn_to(kind)
    events = watched.server.world.runs[kind.removeprefix("#/runs/")]["events"]
    expect(page.locator(".log tbody tr")).to_have_count(len(events))
    watched.forget()
    page.get_by_role("button", name="Tools", exact=True).click()
    tools = [event for event in events if event["event_type"].startswith("tool.")]
    expect(page.locator(".log tbody tr")).to_have_count(len(tools))
    assert page.url.endswith("?show=tool")
    page.get_by_role("button", name="Failed", exact=True).click()
    expect(page.locator(".log tbody tr")).to_have_count(5)  # four answers, and the end
    page.get_by_role("button", name="Retrieval", exact=True).click()
    expect(page.get_by_text("No event of this run is of that kind.")).to_be_visible()
    assert [request.url for request in watched.requests if "/v1/" in request.url] == []
    page.go_back()
    expect(page.locator(".log tbody tr")).to_have_count(5)
    page.locator(".log tr.failed .payload summary").first.click()
    expect(page.locator(".log tr.failed .facts").first).to_contain_text("Latency1.00 s")


def test_a_parked_run_says_why(watched: Watched) -> None:
    (parked,) = [run for run in watched.server.world.runs.values() if run["status"] == "parked"]
    page = watched.go(f"#/runs/{parked['run_id']}")
    expect(page.locator(".standing")).to_have_text("Parked")
    expect(page.get_by_text("SLOW_STEP: KeyError at slow_step.py:41")).to_be_visible()


@pytest.mark.parametrize("id_", ["a/b", "..%2f", "a b?c#d&e", "日本語", "100%", "a%2Fb"])
def test_ids_are_percent_encoded_once(watched: Watched, server: PageServer, id_: str) -> None:
    script = loop(server.world.now - 100)
    script.end()
    add(server.world, detail(id_, script, "run.completed", run_id=f"run {id_}"), ["TOOL_LOOP"])
    summarise(server.world)
    page = watched.go()
    page.locator(f'tr[data-key="{id_}"] a').click()
    expect(page.locator("h1")).to_have_text(id_)
    assert any(path.startswith(f"/v1/agents/{quote(id_, safe='')}/runs") for path, _ in server.seen)
    page.locator("tbody a").click()
    expect(page.locator("h1")).to_have_text(f"run {id_}")
    page.reload()
    expect(page.locator("h1")).to_have_text(f"run {id_}")
    watched.assert_clean()


@pytest.mark.parametrize("name", [HOSTILE, LONG, "\u202eevil", "   ", "x" * 10_000, "a\nb"], ids=range(6))
def test_hostile_names_are_text_in_their_place(watched: Watched, server: PageServer, name: str) -> None:
    script = loop(server.world.now - 3)
    script.model = name
    script.tool(name, 0.4, failed=True)
    script.llm(0.3, 10, finish=name)
    script.events[-1]["payload"][name] = {name: [name]}
    script.end()
    run = detail(name, script, "run.completed", run_id=f"run-{name}") | {"agent_version": name, "parent_run_id": name}
    add(server.world, run, ["TOOL_LOOP"])
    words = ("title", "what", "why_it_matters", "evidence_summary")
    server.world.signals[-1] |= dict.fromkeys(words, name) | {"failure_type": name[:60], "evidence": {name: name}}
    fix = {"description": name, "language": name, "code": name}
    server.world.signals[-1] |= {"suggested_fixes": [fix], "severity": name[:60]}
    summarise(server.world)
    page = watched.go("#/?by=activity")
    assert overflow(page) == 0
    page.locator("tbody tr").first.locator("th a").click()
    expect(page.locator("h1 bdi.name")).to_be_visible()
    title = page.locator("h1 bdi").get_attribute("title") or ""
    assert len(title) >= min(len(name), 1)
    assert "\u202e" not in page.locator("body").inner_text()
    assert "\x00" not in title
    for tab in ("Signals", "Open issues", "Insights", "Runs"):
        page.locator(".tabs").get_by_role("link", name=tab).click()
        page.wait_for_selector(".tab")
        assert overflow(page) == 0
    page.locator("tbody a").first.click()
    expect(page.locator(".stage")).to_be_visible()
    page.locator("details.signal").first.evaluate("(details) => { details.open = true; }")
    assert overflow(page) == 0
    assert page.evaluate("window.hacked") is None
    assert page.locator("img").count() == 1  # the logo
    assert page.locator("script").count() == 1
    watched.assert_clean()
