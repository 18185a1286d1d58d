"""From a signal to a fix that is seen to work, on the page: the real server asks ones that play others."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import pytest
from playwright.sync_api import Browser, Locator, Page, expect

from tests.api.rows import Rows
from tests.langfuse import Langfuse, observation
from tests.models import DIAGNOSIS, FIX, ROOT_CAUSE, Model
from tests.page.reading import too_faint
from tests.page.real import Real, holding, looping, real, watch
from tests.page.test_views import overflow
from tests.page.watching import Watched
from tests.page.world import HOSTILE
from tests.postgres import TestPostgres
from tests.receiver import Mode

ADDITION = "Search at most twice"
PROMPT = "support/answers"
OLD = "You answer questions.\nBe brief."


class Desk(NamedTuple):
    """A server that can explain and apply, and whom it asks."""

    house: Real
    langfuse: Langfuse
    model: Model

    def traced(self, run_id: str, prompt: str | None = PROMPT) -> None:
        named = (prompt, 1) if prompt else None
        self.langfuse.traces[run_id.replace("-", "")] = [observation("answer", prompt=named)]


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory, postgres: TestPostgres) -> Iterator[Desk]:
    with Langfuse() as langfuse, Model() as model:
        environment = {**langfuse.environment, **model.environment}
        with real(tmp_path_factory.mktemp("fixing"), postgres.database(), environment) as house:
            yield Desk(house, langfuse, model)


@pytest.fixture
def opened(desk: Desk, browser: Browser) -> Iterator[Callable[..., Watched]]:
    """A page of the desk's server; what its services were told before is forgotten."""
    desk.model.says, desk.model.mode = [DIAGNOSIS], Mode.OK
    desk.langfuse.mode = Mode.OK
    desk.langfuse.prompts.clear()
    desk.langfuse.put(PROMPT, OLD, labels=["production"])
    made: list[Watched] = []

    def make(**options: Any) -> Watched:
        made.append(watch(browser, desk.house.server, **options))
        return made[-1]

    yield make
    for watched in made:
        watched.page.context.close()


def card_of(page: Page) -> Locator:
    """The one card of a run's page."""
    card = page.locator("details.signal")
    expect(card).to_have_count(1)
    return card


def ask(card: Locator) -> None:
    card.get_by_role("button", name="Explain with Langfuse").click()
    expect(card.get_by_text(ROOT_CAUSE)).to_be_visible()


def test_a_signal_is_explained_applied_once_however_often_it_is_clicked_and_watched(
    desk: Desk, opened: Callable[..., Watched]
) -> None:
    desk.house.put(lambda rows: looping(rows, "fix-agent", run="run-1"))
    desk.traced("run-1")
    watched = opened()
    page = watched.go("#/runs/run-1")
    card = card_of(page)
    ask(card)
    expect(card.get_by_text("From the run's trace in Langfuse")).to_be_visible()
    expect(page.locator("#announce")).to_have_text("Tool loop is explained.")
    expect(card.locator(".proposal pre").first).to_have_text(FIX)
    card.get_by_text(f"Apply to prompt {PROMPT}…").click()
    expect(card.locator(".confirm .new")).to_contain_text(FIX)
    press = card.get_by_role("button", name="Apply it")
    press.dblclick()
    expect(card.get_by_text("Applied.")).to_be_visible(timeout=20_000)
    assert [one["version"] for one in desk.langfuse.prompts[PROMPT]] == [1, 2]
    expect(card.locator(".published .new")).to_contain_text(["", FIX])
    expect(card.locator(".published .same")).to_contain_text(["You answer questions.", "Be brief."])
    link = card.get_by_role("link", name="Open it in Langfuse")
    assert (link.get_attribute("href") or "").startswith(desk.langfuse.url)
    expect(link).to_have_attribute("rel", "noopener noreferrer")
    expect(card.locator(".result")).to_contain_text("Too early to tell No run of this agent was judged since the fix.")
    expect(card.locator(".result")).to_contain_text(f"The fix was applied to the prompt {PROMPT}, version 2 just now.")
    assert overflow(page) == 0
    watched.assert_clean()


def test_an_answer_waits_while_one_looks_elsewhere(desk: Desk, opened: Callable[..., Watched]) -> None:
    desk.house.put(lambda rows: looping(rows, "patient-agent", run="run-2"))
    watched = opened()
    page = watched.go("#/runs/run-2")
    held = holding(page, "**/explain")
    card = card_of(page)
    card.get_by_role("button", name="Explain with Langfuse").click()
    expect(card.get_by_role("progressbar")).to_be_visible()
    expect(card.get_by_role("status")).to_have_text("The run's trace is being read and a model asked…")
    expect(card.get_by_role("button", name="Explain with Langfuse")).to_have_count(0)
    page.locator("#sections").get_by_role("link", name="Overview").click()
    expect(page.locator("h1")).to_have_text("Overview")
    held[0].continue_()
    expect(page.locator("#announce")).to_have_text("Tool loop is explained.")
    page.go_back()
    expect(card.get_by_text(ROOT_CAUSE)).to_be_visible()
    expect(card.get_by_text("From the signal alone: Langfuse has no trace of this run")).to_be_visible()
    watched.assert_clean()


def test_a_prompt_that_the_trace_does_not_name_can_be_named(desk: Desk, opened: Callable[..., Watched]) -> None:
    desk.house.put(lambda rows: looping(rows, "nameless-agent", run="run-3"))
    desk.traced("run-3", prompt=None)
    watched = opened()
    card = card_of(watched.go("#/runs/run-3"))
    ask(card)
    card.locator(".apply summary").click()
    field = card.get_by_label("Prompt in Langfuse (the trace names none)")
    field.fill("nothing-there")
    card.get_by_role("button", name="Cancel").click()
    expect(field).to_be_hidden()
    assert not [call for call in desk.langfuse.calls if call.endswith("nothing-there")]
    card.locator(".apply summary").click()
    field.press("Enter")
    expect(card.locator(".wrong")).to_have_text("Not applied. Prompt not found in Langfuse.")
    field.fill(PROMPT)
    field.press("Enter")
    expect(card.get_by_text("Applied.")).to_be_visible()
    expect(card.get_by_text(f"Version 2 of the prompt {PROMPT} holds it.")).to_be_visible()


@pytest.mark.parametrize(
    ("failure_type", "why"),
    [
        ("SLOW_STEP", "This fix is a change of the agent's code, so it can't be put into a prompt. Copy it instead."),
        ("PROMPT_INJECTION_SIGNAL", "Against an injection nothing is ever applied for you"),
    ],
)
def test_what_cannot_be_applied_says_why_and_can_be_copied(
    desk: Desk, opened: Callable[..., Watched], failure_type: str, why: str
) -> None:
    run_id = f"run-{failure_type}"
    agent_id = f"agent-{failure_type}"
    signal = desk.house.put(lambda rows: looping(rows, agent_id, run=run_id, failure_type=failure_type))
    desk.traced(run_id)
    watched = opened(permissions=["clipboard-read", "clipboard-write"])
    page = watched.go(f"#/runs/{run_id}")
    card = card_of(page)
    ask(card)
    expect(card.locator(".blocked")).to_contain_text(why)
    expect(card.locator(".apply")).to_have_count(0)
    card.locator(".proposal").get_by_role("button", name="Copy fix").click()
    expect(card.get_by_text("Copied, and noted: the runs from now on show whether it helps.")).to_be_visible()
    assert page.evaluate("navigator.clipboard.readText()") == FIX
    expect(card.locator(".result")).to_contain_text("The fix was copied just now.")
    kept = desk.house.put(
        lambda rows: rows.row(f"SELECT fix_content, applied_via FROM fixes WHERE signal_id = {signal}")
    )
    assert (kept["fix_content"], kept["applied_via"]) == (FIX, "clipboard")
    watched.assert_clean()


def test_a_suggested_fix_that_is_copied_is_noted_too(desk: Desk, opened: Callable[..., Watched]) -> None:
    signal = desk.house.put(lambda rows: looping(rows, "copy-agent", run="run-4"))
    watched = opened(permissions=["clipboard-read", "clipboard-write"])
    page = watched.go("#/agents/copy-agent/signals")
    card = card_of(page)
    card.locator("summary").first.click()
    code = card.locator(".fixes pre").first.text_content()
    card.locator(".fixes").get_by_role("button", name="Copy fix").first.click()
    expect(card.locator(".result")).to_contain_text("The fix was copied just now.")
    assert page.evaluate("navigator.clipboard.readText()") == code
    kept = desk.house.put(lambda rows: rows.value(f"SELECT fix_content FROM fixes WHERE signal_id = {signal}"))
    assert kept == code


def test_a_service_that_fails_is_said_in_words_and_can_be_asked_again(
    desk: Desk, opened: Callable[..., Watched]
) -> None:
    desk.house.put(lambda rows: looping(rows, "unlucky-agent", run="run-5"))
    desk.model.mode = Mode.BAD_REQUEST
    card = card_of(opened().go("#/runs/run-5"))
    card.get_by_role("button", name="Explain with Langfuse").click()
    wrong = card.get_by_role("alert")
    expect(wrong).to_contain_text("A service that was asked for it failed. Anthropic answered 400; check ")
    desk.model.mode = Mode.OK
    wrong.get_by_role("button", name="Try again").click()
    expect(card.get_by_text(ROOT_CAUSE)).to_be_visible()
    expect(wrong).to_have_count(0)


def test_what_is_not_set_up_is_a_hint_that_names_the_settings(
    tmp_path: Any, postgres: TestPostgres, browser: Browser
) -> None:
    with real(tmp_path, postgres.database()) as house:
        house.put(lambda rows: looping(rows, "plain-agent", run="run-6"))
        watched = watch(browser, house.server)
        card = card_of(watched.go("#/runs/run-6"))
        card.get_by_role("button", name="Explain with Langfuse").click()
        hint = card.locator(".unset")
        expect(hint).to_contain_text(
            "Not set up on this server: LANGFUSE_HOST, LANGFUSE_PUBLIC_KEY, LANGFUSE_SECRET_KEY, "
            "ANTHROPIC_API_KEY or OPENAI_API_KEY. With these settings"
        )
        expect(card.get_by_role("alert")).to_have_count(0)
        watched.page.context.close()


class Seen(NamedTuple):
    """An agent's runs before and after a fix, how many of each loop, and what is said of it."""

    before: int
    shown: int
    after: int
    again: int
    words: str
    numbers: str


VERDICTS = {
    "verified": Seen(10, 5, 12, 0, "Verified", "None of the 12 runs since the fix shows it."),
    "likely_fixed": Seen(10, 1, 6, 0, "Likely fixed", "None of the 6 runs since the fix shows it."),
    "still_occurring": Seen(10, 5, 6, 2, "Still occurring", "2 of 6 runs since the fix show it again."),
    "insufficient_data": Seen(3, 3, 1, 0, "Too early to tell", "The one run since the fix doesn't show it."),
}


async def fixed(rows: Rows, verdict: str) -> None:
    """An agent of that name, and two fixes of its last signal."""
    seen, now = VERDICTS[verdict], time.time()
    names = [f"{verdict} before {n}" for n in range(seen.before)]
    for n, name in enumerate(names):
        await rows.run(name, verdict, started=now - 7200 - n)
    signals = [await rows.signal(name, verdict, detected=now - 7200 + n) for n, name in enumerate(names[: seen.shown])]
    for n in range(seen.after):
        await rows.run(f"{verdict} after {n}", verdict, started=now - 1800 + n, signal_count=int(n < seen.again))
        if n < seen.again:
            await rows.signal(f"{verdict} after {n}", verdict, detected=now - 10_000)
    await rows.agent(verdict, seen=now)
    await rows.fix(signals[-1], applied=now - 3600)
    prompt = {"langfuse_prompt_name": PROMPT, "langfuse_version": 7, "applied_via": "langfuse"}
    await rows.fix(signals[-1], applied=now - 3000, **prompt)


@pytest.mark.parametrize("verdict", VERDICTS)
def test_whether_a_fix_helped_is_said_with_its_numbers_and_every_fix(
    desk: Desk, opened: Callable[..., Watched], verdict: str
) -> None:
    seen = VERDICTS[verdict]
    desk.house.put(lambda rows: fixed(rows, verdict))
    watched = opened()
    page = watched.go(f"#/agents/{verdict}/signals")
    card = page.locator("details.signal").first
    expect(card.locator("summary .verdict").first).to_have_text(seen.words)
    card.locator("summary").first.click()
    result = card.locator(".result")
    expect(result.locator("p").first).to_contain_text(
        f"{seen.words} {seen.numbers} In the 30 days before, {seen.shown} of {seen.before} did."
    )
    more = " It takes 5 runs without it to tell."
    assert (more in result.inner_text()) == (verdict == "insufficient_data")
    expect(result).to_contain_text("The first of 2 fixes was copied 1 h ago.")
    result.get_by_text("All fixes").click()
    expect(result.locator("li")).to_contain_text([f"applied to the prompt {PROMPT}, version 7", "copied"])
    page = watched.turn_to(f"#/agents/{verdict}/insights")
    expect(page.locator(".mended tbody tr")).to_have_count(2)
    expect(page.locator(".mended .verdict").first).to_have_class(re.compile(verdict))
    watched.assert_clean()


def test_the_verdict_changes_with_the_runs_while_the_card_is_open(desk: Desk, opened: Callable[..., Watched]) -> None:
    signal = desk.house.put(lambda rows: looping(rows, "changing-agent", run="run-7"))
    desk.house.put(lambda rows: rows.fix(signal, applied=time.time() - 30))
    watched = opened()
    watched.page.clock.install()
    page = watched.go("#/runs/run-7")
    result = card_of(page).locator(".result")
    expect(result).to_contain_text("No run of this agent was judged since the fix.")
    desk.house.put(lambda rows: rows.run("later", "changing-agent", started=time.time()))
    page.clock.fast_forward(15_000)
    expect(result).to_contain_text("The one run since the fix doesn't show it.")


def test_an_open_card_is_asked_for_once_and_not_with_each_drawing(desk: Desk, opened: Callable[..., Watched]) -> None:
    desk.house.put(lambda rows: looping(rows, "once-agent", run="run-8"))
    watched = opened()
    page = watched.go("#/runs/run-8")
    expect(card_of(page).get_by_role("button", name="Explain with Langfuse")).to_be_visible()
    for _ in range(5):  # each redraws what is there
        page.get_by_role("button", name="Copy", exact=True).click()
        page.evaluate("dispatchEvent(new Event('hashchange'))")
    page.wait_for_timeout(300)
    asked = [request.url for request in watched.requests if request.url.endswith("/fix-status")]
    assert len(asked) == 1


@pytest.mark.parametrize(
    "options",
    [{}, {"color_scheme": "dark"}, {"viewport": {"width": 390, "height": 844}}],
    ids=["light", "dark", "phone"],
)
def test_what_a_model_or_langfuse_says_is_text_and_can_be_read(
    desk: Desk, opened: Callable[..., Watched], options: dict[str, Any]
) -> None:
    run_id, prompt = f"hostile-{len(str(options))}", HOSTILE.replace("\0", "")
    desk.house.put(lambda rows: looping(rows, run_id, run=run_id))
    desk.langfuse.put(prompt, HOSTILE + "\n" + "x" * 5000, labels=["production"])
    desk.traced(run_id, prompt)
    desk.model.says = [json.dumps({"root_cause": f"`{HOSTILE}`\n" + "y" * 3000, "fix_content": HOSTILE + "z" * 3000})]
    watched = opened(**options)
    page = watched.go(f"#/runs/{run_id}")
    card = card_of(page)
    card.get_by_role("button", name="Explain with Langfuse").click()
    card.locator(".apply summary").click()
    page.evaluate("document.querySelectorAll('#view details').forEach((one) => { one.open = true; })")
    assert overflow(page) == 0
    assert too_faint(page) == []
    card.get_by_role("button", name="Apply it").click()
    expect(card.locator(".published")).to_be_visible()
    assert overflow(page) == 0
    assert too_faint(page) == []
    assert page.evaluate("window.hacked") is None
    assert "\u202e" not in page.locator("body").inner_text()
    assert (page.locator("img").count(), page.locator("script").count()) == (1, 1)
    watched.assert_clean()
