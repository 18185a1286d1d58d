"""Every failure type as a run's page shows it: what its own detector found, in its own words and numbers."""

from __future__ import annotations

import re
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from dunetrace.explain import explain
from dunetrace.signals import FailureSignal, FailureType
from tests.detection.cases import signals
from tests.page.serving import PageServer
from tests.page.test_views import open_everything, overflow
from tests.page.watching import Watched
from tests.page.world import Json, World, add, detail, loop, summarise

FOUND = signals()


def shown(signal: FailureSignal, number: int, run: Json) -> Json:
    facts = {
        "id": number, "failure_type": str(signal.failure_type), "severity": str(signal.severity),
        "run_id": run["run_id"], "agent_id": run["agent_id"], "agent_version": run["agent_version"],
        "step_index": signal.step_index, "confidence": signal.confidence, "detected_at": run["started_at"],
        "evidence": signal.evidence, "alerted": False, "shadow": False,
    }  # fmt: skip
    return facts | explain(signal).as_json()


def test_there_is_one_of_each() -> None:
    assert {signal.failure_type for signal in FOUND.values()} == set(FailureType)


@pytest.mark.parametrize("width", [1440, 390])
def test_every_failure_type_is_explained_with_its_numbers(watched: Watched, server: PageServer, width: int) -> None:
    world = server.world = World(server.world.now)
    script = loop(world.now - 60)
    script.end()
    run = detail("one-of-each", script, "run.completed")
    add(world, run, [])
    run["signals"] = [shown(signal, number, run) for number, signal in enumerate(FOUND.values())]
    summarise(world)
    watched.page.set_viewport_size({"width": width, "height": 900})
    page = watched.go(f"#/runs/{run['run_id']}")
    expect(page.locator("details.signal")).to_have_count(len(FOUND))
    open_everything(page)
    assert overflow(page) == 0
    for signal in run["signals"]:
        check(page, signal)
    expect(page.locator(".flag")).to_have_count(len(FOUND))
    watched.assert_clean()


def check(page: Page, signal: Json) -> None:
    card = page.locator(f"#signal-{signal['id']}")
    text = card.inner_text()
    assert not re.search(r"undefined|NaN|\[object|\bnull\b|n/a", text), (signal["failure_type"], text)
    for field in ("title", "what", "why_it_matters", "evidence_summary"):
        assert signal[field].replace("`", "") in text, (field, signal[field])
    assert card.locator(".raw dt").count() == len(signal["evidence"])
    assert all(value.strip() for value in card.locator(".raw dd").all_text_contents())
    assert card.locator(".fixes li").count() == len(signal["suggested_fixes"])
    codes: list[Any] = [fix["code"] for fix in signal["suggested_fixes"] if fix["code"]]
    assert card.locator("pre code").all_text_contents() == codes
