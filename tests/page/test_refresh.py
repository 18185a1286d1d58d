"""What happens over time: refreshes that disturb nobody, a hidden page that asks nothing, outages, and the key."""

from __future__ import annotations

from playwright.sync_api import Page, expect

from tests.page.serving import HEALTHY, PageServer
from tests.page.watching import Watched, until
from tests.page.world import World, add, detail, loop, summarise

HIDE = """(hidden) => {
    Object.defineProperty(document, "hidden", { configurable: true, get: () => hidden });
    document.dispatchEvent(new Event("visibilitychange"));
}"""


def start(watched: Watched, address: str = "#/") -> Page:
    """The page on a clock that the test moves."""
    watched.page.clock.install()
    page = watched.go(address)
    expect(page.locator(".health")).to_be_visible()
    return page


def new_run(world: World) -> str:
    script = loop(world.now - 1)
    script.end()
    run = detail("research-agent", script, "run.completed", run_id=f"new-{len(world.runs)}")
    add(world, run, ["TOOL_LOOP"])
    world.signals[-1]["shadow"] = False
    world.signals[-1]["detected_at"] = world.now + len(world.runs)
    summarise(world)
    return str(run["run_id"])


def test_every_fifteen_seconds_what_is_new_appears(watched: Watched, server: PageServer) -> None:
    page = start(watched, "#/agents/research-agent")
    run_id = new_run(server.world)
    with page.expect_response("**/runs?*"):
        page.clock.fast_forward(15_000)
    expect(page.locator(f'tr[data-key="{run_id}"]')).to_be_visible()
    watched.assert_clean()


def test_a_hidden_page_asks_nothing_and_catches_up_when_seen(watched: Watched, server: PageServer) -> None:
    page = start(watched)
    page.evaluate(HIDE, True)
    before = len(server.seen)
    for _ in range(4):
        page.clock.fast_forward(15_000)
    run_id = new_run(server.world)
    assert len(server.seen) == before
    status = page.locator(".pop")
    known = status.text_content() or ""
    page.evaluate(HIDE, False)
    expect(status).not_to_have_text(known)
    assert asked(server, before) == 1
    assert run_id
    refresh(page)
    assert asked(server, before) == 2


def asked(server: PageServer, since: int) -> int:
    """How often the list of agents was read."""
    return sum(path.startswith("/v1/agents?") for path, _ in server.seen[since:])


def test_a_page_seen_again_is_read_at_once_however_short_it_was_hidden(watched: Watched, server: PageServer) -> None:
    page = start(watched)
    before = len(server.seen)
    page.evaluate(HIDE, True)
    with page.expect_response("**/v1/agents?*"):
        page.evaluate(HIDE, False)
    assert asked(server, before) == 1


def test_the_events_of_a_run_are_read_again_only_when_there_are_more(watched: Watched, server: PageServer) -> None:
    run = next(run for run in server.world.runs.values() if run["agent_id"] == "invoice-reader")
    page = start(watched, f"#/runs/{run['run_id']}")
    rows = len(run["events"])
    page.locator(".log .payload summary").nth(3).click()
    page.evaluate("window.changes = 0")
    page.evaluate("""() => new MutationObserver((all) => { window.changes += all.length; })
        .observe(document.querySelector(".log"), { childList: true, subtree: true, characterData: true })""")
    before = len(server.seen)
    for _ in range(3):
        refresh(page)
    assert [("events=false" in path) for path, _ in server.seen[before:]] == [True] * 3
    assert page.evaluate("window.changes") == 0
    late = run["events"][-1] | {"event_type": "external.signal", "payload": {"signal_name": "deploy"}}
    run["events"].append(late)
    run["event_count"] += 1
    refresh(page)
    expect(page.locator(".log tbody tr")).to_have_count(rows + 1)
    assert server.seen[-1][0].endswith("?include_shadow=true")
    expect(page.locator(".log details[open]")).to_have_count(1)
    assert run["events_truncated"] is False


def refresh(page: Page) -> None:
    """Moves the clock by one refresh and waits for its last word: the page plans the next one right after it."""
    status = page.locator(".pop")
    before = status.text_content() or ""
    page.clock.fast_forward(15_000)
    expect(status).not_to_have_text(before)


def test_what_was_found_later_in_an_ended_run_appears(watched: Watched, server: PageServer) -> None:
    run = next(run for run in server.world.runs.values() if run["agent_id"] == "invoice-reader")
    page = start(watched, f"#/runs/{run['run_id']}")
    expect(page.get_by_text("No signals in this run.")).to_be_visible()
    add(server.world, run, ["TOOL_LOOP"])
    refresh(page)
    expect(page.locator("details.signal")).to_have_count(1)


def test_a_refresh_keeps_focus_scroll_opened_details_and_the_very_elements(
    watched: Watched, server: PageServer
) -> None:
    page = start(watched, "#/agents/research-agent/signals")
    card = page.locator("details.signal").nth(3)
    key = card.get_attribute("data-key")
    card.locator("summary").first.click()
    card.locator(".fixes details:not([open]) summary").first.click()
    card.get_by_role("button", name="Copy").first.focus()
    page.evaluate("scrollTo(0, 240)")
    page.evaluate("(key) => { window.kept = document.querySelector(`[data-key='${key}']`); }", key)
    page.evaluate("window.focused = document.activeElement")
    new_run(server.world)
    with page.expect_response("**/signals?*limit=50*"):
        page.clock.fast_forward(15_000)
    expect(page.locator("details.signal").nth(4)).to_have_attribute("data-key", key or "")
    same = "document.querySelector(`[data-key='${window.kept.dataset.key}']`) === window.kept && window.kept.open"
    assert page.evaluate(same)
    assert page.evaluate("window.kept.querySelectorAll('.fixes details[open]').length") == 2
    assert page.evaluate("document.activeElement === window.focused")
    assert page.evaluate("scrollY") >= 240  # what came in above is scrolled past, not what is being read
    assert page.evaluate("document.querySelectorAll('#view > *').length") > 0


def test_an_unchanged_refresh_leaves_the_list_s_elements_alone(watched: Watched) -> None:
    page = start(watched)
    page.evaluate("""() => {
        window.changes = 0;
        new MutationObserver((all) => { window.changes += all.filter((one) => one.type === "childList").length; })
            .observe(document.getElementById("view"), { childList: true, subtree: true });
    }""")
    with page.expect_response("**/v1/agents?*"):
        page.clock.fast_forward(15_000)
    until(page, "document.querySelector('.loading') === null")
    assert page.evaluate("window.changes") == 0


def test_an_outage_is_said_in_plain_words_with_a_retry(watched: Watched, server: PageServer) -> None:
    server.outage = True
    page = watched.go()
    expect(page.get_by_role("heading")).to_have_text("Dunetrace can't answer right now")
    expect(page.get_by_text("The database is unreachable")).to_be_visible()
    server.outage = False
    page.get_by_role("button", name="Try again").click()
    expect(page.locator("h1")).to_have_text("Overview")


def test_an_outage_after_loading_keeps_what_was_known(watched: Watched, server: PageServer) -> None:
    page = start(watched)
    rows = page.locator("tbody tr").count()
    server.outage = True
    server.health = HEALTHY | {"status": "degraded", "db": "unreachable"}
    page.clock.fast_forward(15_000)
    expect(page.get_by_role("alert")).to_contain_text("Shown is what was known at")
    expect(page.locator(".health summary")).to_have_text("Database away")
    expect(page.locator("tbody tr")).to_have_count(rows)
    server.outage, server.health = False, HEALTHY
    page.clock.fast_forward(15_000)
    expect(page.get_by_role("alert")).to_have_count(0)
    expect(page.locator(".health summary")).to_have_text("All well")


def test_a_server_that_is_gone_is_said_so(watched: Watched, server: PageServer) -> None:
    page = start(watched)
    page.context.set_offline(True)
    page.clock.fast_forward(15_000)
    expect(page.get_by_role("alert")).to_contain_text("Dunetrace can't be reached")
    expect(page.locator(".health summary")).to_have_text("Not reachable")


def test_a_degraded_actor_is_named(watched: Watched, server: PageServer) -> None:
    actors = HEALTHY["actors"] | {"dispatcher": {"state": "restarting", "restarts": 3}}
    server.health = HEALTHY | {"status": "degraded", "actors": actors}
    page = watched.go()
    expect(page.locator(".health summary")).to_have_text("Degraded: dispatcher")
    page.locator(".health summary").click()
    expect(page.locator(".pop li", has_text="dispatcher")).to_contain_text("3 restarts")


def test_a_missing_run_is_said_so(watched: Watched) -> None:
    page = watched.go("#/runs/nothing")
    expect(page.get_by_text("Run 'nothing' not found")).to_be_visible()


def test_a_name_that_no_address_can_carry_is_said_so(watched: Watched, server: PageServer) -> None:
    page = watched.go("#/agents/..")
    expect(page.get_by_role("heading")).to_have_text("This name can't be part of an address")
    assert server.seen == []


def test_a_key_without_the_scope_says_so_and_another_can_be_given(watched: Watched, server: PageServer) -> None:
    server.key, server.refusal = "k", (403, {"detail": "This key lacks the scope read"})
    page = watched.go()
    page.get_by_label("API key").fill("k")
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading")).to_have_text("This isn't allowed")
    expect(page.get_by_text("This key lacks the scope read")).to_be_visible()
    page.get_by_role("button", name="Use another key").click()
    expect(page.locator("h1")).to_have_text("An API key is needed")


def test_nobody_yet_means_five_lines_to_start_with(watched: Watched, server: PageServer) -> None:
    server.world = World(server.world.now)
    page = watched.go()
    expect(page.locator("h1")).to_have_text("No agent has been heard of yet")
    assert page.locator("pre").first.inner_text().startswith("curl http://127.0.0.1:8001/v1/ingest ")
    snippet = page.locator("pre").last.inner_text()
    assert len(snippet.splitlines()) == 5
    compile(snippet, "snippet", "exec")
    assert 'Dunetrace("http://127.0.0.1:8001")' in snippet
    watched.assert_clean()


def test_a_key_is_asked_for_kept_in_the_session_and_sent_in_the_header_only(
    watched: Watched, server: PageServer
) -> None:
    server.key = "dt_live_secret"
    page = watched.go("#/agents/research-agent")
    expect(page.locator("h1")).to_have_text("An API key is needed")
    field = page.get_by_label("API key")
    assert field.get_attribute("type") == "password"
    field.fill("wrong")
    page.keyboard.press("Enter")
    expect(page.get_by_text("That key wasn't accepted.")).to_be_visible()
    field.fill("dt_live_secret")
    page.keyboard.press("Enter")
    expect(page.locator("h1")).to_have_text("research-agent")
    assert page.evaluate("[Object.values(sessionStorage), Object.values(localStorage), document.cookie]") == [
        ["dt_live_secret"],
        [],
        "",
    ]
    assert server.seen[-1][1] == "Bearer dt_live_secret"
    assert not any("dt_live_secret" in request.url for request in watched.requests)
    assert "dt_live_secret" not in page.content()
    page.locator(".health summary").click()
    page.get_by_role("button", name="Forget the API key").click()
    expect(page.locator("h1")).to_have_text("An API key is needed")
    assert page.evaluate("sessionStorage.length") == 0
    assert watched.violations() == []


def test_a_key_half_typed_survives_the_time_it_takes(watched: Watched, server: PageServer) -> None:
    server.key = "k"
    watched.page.clock.install()
    page = watched.go()
    page.get_by_label("API key").fill("half")
    page.get_by_role("button", name="Open").focus()
    before = len(server.seen)
    page.clock.fast_forward(45_000)
    assert page.get_by_label("API key").input_value() == "half"
    assert len(server.seen) == before
