"""What a person does about issues, what became more frequent, and what runs cost: over the real server and its rows."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from playwright.sync_api import Browser, Locator, Page, expect

from tests.api.rows import Rows, at
from tests.page.real import VERSION, Real, holding, looping, real, watch
from tests.page.watching import Watched
from tests.postgres import TestPostgres


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory, postgres: TestPostgres) -> Iterator[Real]:
    with real(tmp_path_factory.mktemp("acting"), postgres.database()) as running:
        yield running


@pytest.fixture
def watched(browser: Browser, house: Real) -> Iterator[Watched]:
    opened = watch(browser, house.server)
    yield opened
    opened.page.context.close()


def issue_of(house: Real, agent_id: str) -> dict[str, Any]:
    answer = httpx.get(f"{house.server.api_url}/v1/agents/{agent_id}/issues", trust_env=False).json()
    (found,) = answer["issues"]
    return dict(found)


def row_of(page: Page, agent_id: str) -> Locator:
    return page.locator(".issues tbody tr", has_text=agent_id)


def test_an_issue_is_acknowledged_and_taken_back(watched: Watched, house: Real) -> None:
    house.put(lambda rows: looping(rows, "known-of-agent"))
    row = row_of(watched.go("#/issues"), "known-of-agent")
    row.get_by_role("button", name="Acknowledge").click()
    expect(row.locator(".told")).to_have_text("acknowledged just now")
    expect(watched.page.locator("#announce")).to_have_text("Tool loop of known-of-agent: acknowledged.")
    assert issue_of(house, "known-of-agent")["acknowledged_at"] == pytest.approx(time.time(), abs=15)
    watched.page.reload()
    expect(row.locator(".told")).to_contain_text("acknowledged")
    row.get_by_role("button", name="Take back").click()
    expect(row.get_by_role("button", name="Acknowledge")).to_be_visible()
    expect(row.locator(".told")).to_have_count(0)
    assert issue_of(house, "known-of-agent")["acknowledged_at"] is None
    watched.assert_clean()


@pytest.mark.parametrize(("choice", "seconds"), [("For 1 hour", 3600), ("For 4 hours", 14_400), ("For 1 day", 86_400)])
def test_an_issue_is_snoozed_on_its_agents_page_and_that_is_ended(
    watched: Watched, house: Real, choice: str, seconds: int
) -> None:
    agent_id = f"snoozed-{seconds}"
    house.put(lambda rows: looping(rows, agent_id))
    page = watched.go(f"#/agents/{agent_id}/issues")
    row = page.locator(".issues tbody tr")
    row.locator(".menu summary").click()
    row.get_by_role("button", name=choice).click()
    expect(row.locator(".told")).to_have_text(re.compile(r"^snoozed until .*\d{1,2}:\d{2}"))
    expect(row.get_by_role("button", name="End snooze")).to_be_visible()
    until = issue_of(house, agent_id)["snoozed_until"]
    assert until == pytest.approx(time.time() + seconds, abs=15)
    shown = page.evaluate("(at) => import('/js/format.js').then(({ clock }) => clock(at))", until)
    expect(row.locator(".told")).to_have_text(f"snoozed until {shown}")
    row.get_by_role("button", name="End snooze").click()
    expect(row.locator(".menu summary")).to_be_visible()
    assert issue_of(house, agent_id)["snoozed_until"] is None
    watched.assert_clean()


def test_an_issue_is_resolved_by_keyboard_and_the_focus_is_not_lost(watched: Watched, house: Real) -> None:
    house.put(lambda rows: looping(rows, "mended-agent"))
    page = watched.go("#/issues")
    row = row_of(page, "mended-agent")
    row.get_by_role("button", name="Resolve").focus()
    page.keyboard.press("Enter")
    expect(row).to_have_count(0)
    expect(page.locator("#view")).to_be_focused()
    assert issue_of(house, "mended-agent")["status"] == "resolved"
    page.get_by_role("button", name="Resolved", exact=True).click()
    expect(row.locator(".standing")).to_have_text("Resolved")
    expect(row.get_by_role("button")).to_have_count(0)
    watched.assert_clean()


def test_the_choices_of_a_snooze_close_by_escape_and_when_left(watched: Watched, house: Real) -> None:
    house.put(lambda rows: looping(rows, "menu-agent"))
    page = watched.go("#/agents/menu-agent/issues")
    menu = page.locator(".menu")
    menu.locator("summary").press("Enter")
    page.keyboard.press("Tab")
    expect(menu.get_by_role("button", name="For 1 hour")).to_be_focused()
    page.keyboard.press("Escape")
    expect(menu.locator("summary")).to_be_focused()
    expect(menu).not_to_have_attribute("open", "")
    menu.locator("summary").press("Enter")
    expect(menu).to_have_attribute("open", "")
    page.get_by_role("button", name="Resolve Tool loop").focus()
    expect(menu).not_to_have_attribute("open", "")


def test_it_is_shown_at_once_and_what_fails_is_taken_back_and_said(watched: Watched, house: Real) -> None:
    house.put(lambda rows: looping(rows, "failing-agent"))
    page = watched.go("#/issues")
    row = row_of(page, "failing-agent")
    held = holding(page, "**/acknowledge")
    row.get_by_role("button", name="Acknowledge").click()
    expect(row.locator(".told")).to_have_text("acknowledged just now")  # before there is an answer
    row.get_by_role("button", name="Take back").click()  # one thing at a time
    assert len(held) == 1
    held[0].abort()
    expect(row.locator(".told")).to_have_count(0)
    expect(row.locator(".wrong")).to_contain_text(
        "Not acknowledged. The server may be stopped, or the network may be down."
    )
    row.get_by_role("button", name="All right").click()
    expect(row.locator(".wrong")).to_have_count(0)
    assert issue_of(house, "failing-agent")["acknowledged_at"] is None


def test_a_key_without_the_scope_gets_the_server_s_own_words(
    tmp_path: Any, postgres: TestPostgres, browser: Browser
) -> None:
    async def keys(rows: Rows) -> None:
        await rows.key("reader")
        await rows.key("writer", scopes=("ingest",))
        await looping(rows, "guarded-agent")

    with real(tmp_path, postgres.database(), {"AUTH_MODE": "prod"}) as guarded:
        guarded.put(keys)
        watched = watch(browser, guarded.server)
        page = watched.page
        page.goto(f"{guarded.server.dashboard_url}/#/issues")
        page.get_by_label("API key").fill("reader")
        page.keyboard.press("Enter")
        row = row_of(page, "guarded-agent")
        expect(row).to_be_visible()
        page.evaluate("sessionStorage.setItem('dunetrace.key', 'writer')")  # as if it had lost the scope meanwhile
        row.get_by_role("button", name="Resolve").click()
        expect(row.locator(".wrong")).to_contain_text("Not resolved. This key lacks the scope 'read'")
        expect(row.locator(".standing")).to_have_text("Open")
        page.context.close()


def test_what_somebody_knows_of_steps_back_on_the_overview(watched: Watched, house: Real) -> None:
    house.put(lambda rows: looping(rows, "loud-agent"))
    house.put(lambda rows: looping(rows, "known-agent", failure_type="PROMPT_INJECTION_SIGNAL"))
    issue = issue_of(house, "known-agent")["id"]
    card = watched.go().locator(".wrongs li", has_text="known-agent")
    expect(card).not_to_have_class(re.compile("dealt"))
    path = f"{house.server.api_url}/v1/issues/{issue}/acknowledge"
    httpx.post(path, json={}, trust_env=False).raise_for_status()
    watched.go()
    expect(watched.page.locator(".wrongs li").first).not_to_have_class(re.compile("dealt"))
    assert card.count() == 0 or "acknowledged" in card.inner_text()


# -- what became more frequent


async def risen(rows: Rows, agent_id: str, **columns: Any) -> None:
    now = time.time()
    row = {
        "agent_id": agent_id, "failure_type": "REASONING_STALL", "scope": "version", "subject": VERSION,
        "since": at(now - 7200), "severity": "MEDIUM", "run_id": f"run-of-{agent_id}", "runs": 80, "affected": 25,
        "runs_before": 200, "affected_before": 8, "found_at": at(now - 200),
    }  # fmt: skip
    await rows._insert("fleet_signals", **row | columns)


def test_a_failure_that_became_more_frequent_is_wrong_now(watched: Watched, house: Real) -> None:
    async def fill(rows: Rows) -> None:
        await looping(rows, "risen-agent", failure_type="REASONING_STALL")
        await risen(rows, "risen-agent")
        await risen(rows, "risen-agent", scope="hour", subject="2026-11-22T11:00Z", found_at=at(time.time() - 9000))
        await looping(rows, "calm-agent")
        await risen(rows, "calm-agent", failure_type="TOOL_LOOP", scope="hour", over_at=at(time.time()))

    house.put(fill)
    page = watched.go()
    card = page.locator(".rises li", has_text="risen-agent")
    expect(card).to_have_count(1)
    expect(card).to_contain_text("31 %was 4 %")
    expect(card).to_contain_text("Reasoning stall became more frequentof risen-agent since version 8c1f2a3b, ")
    expect(card).to_contain_text("25 of 80 runs, 8 of 200 before; found 3 min ago")
    expect(page.locator(".rises li", has_text="calm-agent")).to_have_count(0)
    card.get_by_role("link").click()
    assert page.url.endswith("#/agents/risen-agent/signals?failure_type=REASONING_STALL")
    expect(page.locator(".head .rises li")).to_contain_text("31 %was 4 %")
    page = watched.turn_to("#/agents/risen-agent/insights")
    rows = page.locator(".risen tbody tr")
    expect(rows).to_have_count(2)
    expect(rows.filter(has_text="since version")).to_contain_text("31 % of 80 runs4 % of 200")
    expect(rows.filter(has_text="in the hour from")).to_be_visible()
    page = watched.turn_to("#/agents/calm-agent/insights")
    expect(page.locator(".risen tbody tr")).to_contain_text(re.compile("over (just now|\\d+ s ago)"))
    watched.assert_clean()


# -- what it cost


def test_runs_say_what_they_cost_where_there_are_prices(watched: Watched, house: Real) -> None:
    async def fill(rows: Rows) -> None:
        await looping(rows, "priced-agent", run="priced")
        await rows.run("unpriced", "priced-agent", started=time.time() - 9, token_mix={"other": [1, 0, 1]})
        await rows.agent("free-agent", seen=time.time())
        await rows.run("free", "free-agent", started=time.time() - 9)

    house.put(fill)
    page = watched.go("#/agents/priced-agent")
    expect(page.locator("thead")).to_contain_text("Cost")
    expect(page.locator('tr[data-key="priced"]')).to_contain_text("$3.00")
    expect(page.locator('tr[data-key="unpriced"] .faint[title]')).to_have_text("–")
    page = watched.turn_to("#/runs/priced")
    expect(page.locator(".head .facts")).to_contain_text("Cost$3.00")
    expect(page.locator("details.signal .words")).to_contain_text(
        "90,000 tokens and 8.10 s, about $0.30 of the run's $3.00."
    )
    page = watched.turn_to("#/agents/priced-agent/signals")
    page.locator("details.signal > summary").first.click()
    expect(page.locator("details.signal .words")).to_contain_text("about $0.30 of the run's $3.00.")
    page = watched.turn_to("#/agents/priced-agent/insights")
    expect(page.locator(".card", has_text="Health")).to_contain_text("by Tool loop ($0.30)")
    page = watched.turn_to("#/agents/free-agent")
    expect(page.locator("thead")).not_to_contain_text("Cost")
    watched.assert_clean()
