"""What Slack is told: every failure type in its form, and names that say only what they say, whatever they hold."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from typing import Any
from urllib.parse import unquote
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dunetrace.alerts import FORMS, blocks, slack
from dunetrace.alerts.links import page_url, run_url
from dunetrace.alerts.slack import rate_line
from dunetrace.deliveries import Alert, Kind
from dunetrace.detectors.declaration import Detector
from dunetrace.detectors.judging import Phase, judge
from dunetrace.detectors.registry import DETECTORS
from dunetrace.detectors.thresholds import DEFAULT
from dunetrace.explain import RateContext, explain
from dunetrace.signals import FailureSignal, FailureType, Severity
from tests import slack as slack_server
from tests.detection.building import digest
from tests.detection.cases import CASES

DELIVERY_ID = UUID("5f4dcc3b-5aa7-55d6-8327-deb882cf99aa")
RUN_URL = "https://page.example/#/runs/run-1"
RATE = RateContext(20, 3, 0.15, True)
DIGEST = digest("what the user said")
HEX_DIGEST = re.compile(r"[0-9a-f]{64}")

HOSTILE = {
    "broadcasts": "@channel @here @Everyone <!here> <!channel|x> <@U012AB3CD> <#C024BE7LR> <!subteam^S1|@ops>",
    "link": "<https://evil.example|click> | https://evil.example & &lt; &amp;lt;",
    "markup": "`a` ```b``` *c* _d_ ~e~ > f :fire: {g} {0} %s",
    "endless": "x" * 10_000,
    "endless entities": "&<>" * 5_000,
    "endless emoji": "🏜" * 5_000,
    "control": "a\x00b\x1b[31mc\rd\ne\tf\x7fg\x85h\u2028i\u2029j",
    "right to left": "safe\u202egnp.exe\u202c \u2066x\u2069 \u200f\u200e\u061c",
    "unseen": "a\u200bb\u200dc\ufeffd\U000e0041e",
    "half a character": "\ud800x\udfff",
    "blank": " \t\n",
    "empty": "",
}
hostile = pytest.mark.parametrize("name", HOSTILE.values(), ids=HOSTILE.keys())
every = pytest.mark.parametrize("detector", DETECTORS, ids=lambda detector: detector.name)


def signal_of(detector: Detector[Any]) -> FailureSignal:
    """What the detector finds in its own case, whichever phase it speaks in."""
    run, _ = CASES[detector.name].runs()
    for phase in (Phase.ENDED, Phase.STALLED, Phase.RUNNING):
        for signal in judge(run, DEFAULT.default, phase):
            if signal.failure_type is detector.failure_type:
                return signal
    raise AssertionError(f"{detector.name} does not fire")


def renamed(value: Any, name: str, key: str = "") -> Any:
    """Evidence in which every text is `name`, digests excepted."""
    if isinstance(value, dict):
        return {k: renamed(v, name, k) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [renamed(item, name, key) for item in value]
    return name if isinstance(value, str) and key != "kind" and "_hash" not in key else value


def told(signal: FailureSignal, rate: RateContext | None = RATE, url: str | None = RUN_URL) -> dict[str, Any]:
    """The message, as Slack takes it."""
    alert = Alert(DELIVERY_ID, Kind.FIRST, signal, 1_700_000_000.0, rate, url)
    made = FORMS["slack"].message(alert, None, 0.0)
    assert made.headers == {"Content-Type": "application/json; charset=utf-8"}
    document = slack_server.accept(made.body)
    slack_server.assert_only_says_what_it_says(document)
    assert not HEX_DIGEST.search(made.body.decode())
    return document


def blocks_of(document: dict[str, Any]) -> list[dict[str, Any]]:
    return list(document["attachments"][0]["blocks"])


@every
def test_every_failure_type_in_its_form(detector: Detector[Any]) -> None:
    signal = signal_of(detector)
    document = told(signal)
    words = explain(signal)
    assert document["attachments"][0]["color"] == slack.COLOURS[signal.severity]
    head, small, rate, what, why, evidence, fix, button = blocks_of(document)
    assert [block["type"] for block in (head, small, rate, button)] == ["header", "context", "section", "actions"]
    assert words.title.replace("`", "")[:40] in head["text"]["text"]
    assert len(small["elements"]) == 6
    for item in (signal.agent_id, signal.agent_version, signal.run_id):
        assert f"`{item}`" in " ".join(element["text"] for element in small["elements"])
    assert rate["text"]["text"] == "In 3 of 20 runs (15 %) in the last 7 days: *systemic*"
    for block, said in ((what, words.what), (why, words.why_it_matters), (evidence, words.evidence_summary)):
        assert block["text"]["text"].split("\n", 1)[1] == blocks.prose(said)
    assert blocks.prose(words.suggested_fixes[0].description) in fix["text"]["text"]
    assert button["elements"][0]["url"] == RUN_URL


@every
@hostile
def test_a_hostile_name_in_every_place(detector: Detector[Any], name: str) -> None:
    signal = signal_of(detector)
    told(
        replace(
            signal,
            agent_id=name,
            agent_version=name,
            run_id=name,
            evidence={**renamed(signal.evidence, name), "args_hash": DIGEST, "calls": [{"output_hashes": [DIGEST]}]},
        )
    )


@given(st.data())
def test_any_text_in_every_place(data: st.DataObject) -> None:
    text = st.text(st.characters(exclude_categories=()), max_size=400)
    signal = signal_of(data.draw(st.sampled_from(DETECTORS)))
    signal = replace(
        signal,
        agent_id=data.draw(text),
        agent_version=data.draw(text),
        run_id=data.draw(text),
        severity=data.draw(st.sampled_from(Severity)),
        evidence=renamed(signal.evidence, data.draw(text)),
    )
    told(signal, url=run_url("https://page.example", signal.run_id))


@given(
    st.text(st.characters(exclude_categories=()), max_size=60) | st.text("&<>@🏜ehr\n` ", max_size=60),
    st.integers(8, 40),
)
def test_what_is_cut_ends_in_an_ellipsis_and_never_within_an_entity(text: str, limit: int) -> None:
    whole, cut = blocks.prose(text, 10_000), blocks.prose(text, limit)
    assert len(cut.encode("utf-16-le")) // 2 <= limit
    if cut != whole:
        assert cut.endswith("…") and whole.startswith(cut[:-1])
        assert len(whole.encode("utf-16-le")) // 2 > limit
    assert "&" not in slack_server.ENTITY.sub("", cut)


def test_prose_means_what_it_meant_before() -> None:
    assert blocks.prose("a < b && c | d") == "a &lt; b &amp;&amp; c | d"
    assert blocks.prose("mail me @ home") == "mail me @ home"
    assert blocks.prose("@here").replace("\N{WORD JOINER}", "") == "@here"


def test_code_can_be_copied_and_cannot_end_early() -> None:
    shown = blocks.code("@tool\ndef f(x: int | None) -> str:\n    return '```' + '@here'")
    assert shown.startswith("```\n@tool\ndef f(x: int | None) -&gt; str:\n    return") and shown.endswith("\n```")
    assert shown.count("```") == 2 and "@here" not in shown
    assert blocks.code("x" * 5_000).endswith("…\n```")


@pytest.mark.parametrize("severity", Severity, ids=str)
def test_severity_has_its_colour_and_stands_in_the_fallback(severity: Severity) -> None:
    document = told(replace(signal_of(DETECTORS[0]), severity=severity))
    colours = {"CRITICAL": "#FF0000", "HIGH": "#FF6B00", "MEDIUM": "#FFB800", "LOW": "#36A64F"}
    assert document["attachments"][0]["color"] == colours[severity]
    assert document["text"].startswith(f"{severity}: ") and document["text"].endswith("(agent)")


def test_a_type_of_another_release_is_told_as_well() -> None:
    for failure_type in FailureType:
        told(FailureSignal(failure_type, Severity.HIGH, "run", "agent", "v", 3, 0.9))


def test_without_a_rate_and_without_a_page() -> None:
    kinds = [block["type"] for block in blocks_of(told(signal_of(DETECTORS[0]), rate=None, url=None))]
    assert kinds == ["header", "context", "section", "section", "section", "section"]


def test_an_address_slack_would_not_take_costs_only_the_button() -> None:
    url = run_url("https://page.example", "🏜" * 256)
    assert url is not None and len(url) > 3000
    assert "actions" not in [block["type"] for block in blocks_of(told(signal_of(DETECTORS[0]), url=url))]


@pytest.mark.parametrize(
    ("rate", "said"),
    [
        (RateContext(20, 3, 0.15, True), "In 3 of 20 runs (15 %) in the last 7 days: *systemic*"),
        (RateContext(1, 1, 1.0, False), "In 1 of 1 run (100 %) in the last 7 days"),
        (RateContext(5_000, 1, 0.0002, False), "In 1 of 5,000 runs (under 1 %) in the last 7 days"),
        (RateContext(0, 0, 0.0, False), "In 0 of 0 runs (0 %) in the last 7 days"),
    ],
    ids=["systemic", "one", "rare", "none"],
)
def test_the_rate_in_words(rate: RateContext, said: str) -> None:
    assert rate_line(rate) == said


@given(st.text(min_size=1, max_size=80))
def test_a_run_is_found_again_from_its_address(run_id: str) -> None:
    url = run_url("https://page.example/", run_id)
    assert url is not None and url.isascii()
    before, _, segment = url.partition("#/runs/")
    assert before == "https://page.example/" and not set(segment) & set("/?#<>| \"'")
    assert unquote(segment) == run_id.encode("utf-8", "replace").decode()


def test_the_page_below_a_path_or_unknown() -> None:
    assert run_url("http://127.0.0.1:3000", "a/b") == "http://127.0.0.1:3000/#/runs/a%2Fb"
    assert run_url("https://host/dune/", "r") == "https://host/dune/#/runs/r"
    assert page_url("https://host") == "https://host/#/"
    assert run_url(None, "r") is None


def test_the_test_message_says_that_it_is_one() -> None:
    made = FORMS["slack"].test_message(DELIVERY_ID, None, 1_700_000_000.0)
    document = slack_server.accept(made.body)
    slack_server.assert_only_says_what_it_says(document)
    assert document["text"].startswith("LOW: Test alert from Dunetrace")


def test_the_check_itself_refuses_what_slack_refuses() -> None:
    good = FORMS["slack"].test_message(DELIVERY_ID, None, 0.0).body
    document = json.loads(good)
    head = document["attachments"][0]["blocks"][0]
    head["text"]["text"] = "x" * 151
    with pytest.raises(slack_server.NotAcceptedError):
        slack_server.accept(json.dumps(document).encode())
    head["text"]["text"], head["surprise"] = "x", 1
    with pytest.raises(slack_server.NotAcceptedError):
        slack_server.accept(json.dumps(document).encode())
    with pytest.raises(slack_server.NotAcceptedError):
        slack_server.accept(good[:-1])
    document["text"] = "<!here>"
    with pytest.raises(AssertionError):
        slack_server.assert_only_says_what_it_says(document)
