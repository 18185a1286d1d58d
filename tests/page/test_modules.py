"""The page's pure modules, run where they live: in the browser, imported from the served files."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from dunetrace.detectors.registry import DETECTORS
from tests.page.watching import Watched


@pytest.fixture
def call(shared: Callable[..., Watched]) -> Any:
    """Calls an exported function of a module with JSON arguments."""
    page = shared().turn_to("#/nowhere")
    script = "async ([module, name, args]) => (await import(`/js/${module}.js`))[name](...args)"
    return lambda module, name, *args: page.evaluate(script, [module, name, list(args)])


def event(event_type: str, step: int, at: float, **payload: Any) -> dict[str, Any]:
    return {"event_type": event_type, "step_index": step, "timestamp": at, "payload": payload}


def spans(call: Any, *events: dict[str, Any], running: bool = False, now: float = 0) -> list[tuple[Any, ...]]:
    folded = call("steps", "fold", call("steps", "inOrder", list(events)), {"running": running, "now": now})
    return [(s["lane"], s["name"], s["step"], round(s["end"] - s["start"], 3), s["outcome"]) for s in folded["spans"]]


def test_durations(call: Any) -> None:
    given = [None, -1, 0, 0.012, 0.9994, 0.9999, 1.239, 12.34, 59.97, 185, 7620, 273_600]
    words = [
        "–",
        "–",
        "< 1 ms",
        "12 ms",
        "999 ms",
        "1.00 s",
        "1.24 s",
        "12.3 s",
        "1 min 00 s",
        "3 min 05 s",
        "2 h 07 min",
    ]
    assert [call("format", "duration", seconds) for seconds in given] == [*words, "3 d 4 h"]


def test_how_long_ago(call: Any) -> None:
    words = ["just now", "just now", "59 s ago", "3 min ago", "5 h ago", "1 day ago", "9 days ago"]
    given = [-30, 2, 59, 185, 18_500, 90_000, 800_000]
    assert [call("format", "ago", 1_000_000 - seconds, 1_000_000) for seconds in given] == words


def test_money(call: Any) -> None:
    given = [0, 0.0001, 0.00499, 0.005, 0.3, 1234.5]
    words = ["$0.00", "under $0.01", "under $0.01", "$0.01", "$0.30", "$1,234.50"]
    assert [call("format", "money", usd) for usd in given] == words


@pytest.mark.parametrize(
    ("before", "after", "changes"),
    [
        ("", "new", [("new", "new")]),
        ("a\nb", "a\nb\n\nc", [("same", "a"), ("same", "b"), ("new", ""), ("new", "c")]),
        ("a\nb\nc", "a\nx\nc", [("same", "a"), ("gone", "b"), ("new", "x"), ("same", "c")]),
        ("a\na", "a\na\na", [("same", "a"), ("same", "a"), ("new", "a")]),
        ("a", "a", [("same", "a")]),
    ],
    ids=range(5),
)
def test_what_a_new_text_adds_to_an_old_one(call: Any, before: str, after: str, changes: list[Any]) -> None:
    found = call("fixing/diff", "changes", before, after)
    assert [(one["kind"], one["text"]) for one in found] == changes


def test_a_rise_holds_while_it_is_new_not_over_and_its_issue_open(call: Any) -> None:
    def rise(id_: int, agent_id: str, **more: Any) -> dict[str, Any]:
        return {"id": id_, "agent_id": agent_id, "failure_type": "T", "found_at": 1e6, "over_at": None, **more}

    rises = [
        rise(1, "a", found_at=1e6 - 9), rise(2, "a"), rise(3, "over", over_at=1e6), rise(4, "old", found_at=1e5),
        rise(5, "resolved"), rise(6, "calm"), rise(7, "b", found_at=1e6 - 5),
    ]  # fmt: skip
    issues = [{"agent_id": name, "failure_type": "T", "status": "open"} for name in ("a", "b", "over", "old")]
    issues += [{"agent_id": "resolved", "failure_type": "T", "status": "resolved"}]
    assert [one["id"] for one in call("rises", "holding", rises, issues, 1e6 + 60)] == [2, 7]


def test_failure_types_in_words(call: Any) -> None:
    types = ["TOOL_LOOP", "RAG_EMPTY_RETRIEVAL", "EMPTY_LLM_RESPONSE", "x"]
    assert [call("format", "words", one) for one in types] == [
        "Tool loop",
        "RAG empty retrieval",
        "Empty LLM response",
        "X",
    ]


def test_hidden_characters_become_visible(call: Any) -> None:
    pairs = {
        "a\x00b": "a␀b",
        "a\nb": "a␊b",
        "\u202egnp": "⟨202E⟩gnp",
        "a\u200bb": "a⟨200B⟩b",
        "  ": "␣␣",
        "": "␣",
        "é👩‍🚀": "é👩‍🚀",
    }
    assert {text: call("format", "visible", text) for text in pairs} == pairs


def test_shortening_counts_characters_not_code_units(call: Any) -> None:
    assert call("format", "shorten", "abc", 3) == "abc"
    assert call("format", "shorten", "abcd", 3) == "ab…"
    assert call("format", "shorten", "🚀🚀🚀", 3) == "🚀🚀🚀"
    assert call("format", "shorten", "🚀" * 10_000, 3) == "🚀🚀…"


@pytest.mark.parametrize("id_", ["a/b", "..", "%", "a?b#c", "日本"])
def test_an_address_leads_back_to_its_id(call: Any, id_: str) -> None:
    assert call("router", "parse", call("router", "runLink", id_)) == {"view": "run", "id": id_, "filters": {}}
    link = call("router", "agentLink", id_, "signals", {"severity": "HIGH", "shadow": ""})
    wanted = {"view": "agent", "id": id_, "tab": "signals", "filters": {"severity": "HIGH"}}
    assert call("router", "parse", link) == wanted


def test_a_lone_surrogate_is_addressed_as_the_door_stored_it(shared: Callable[..., Watched]) -> None:
    page = shared().turn_to("#/nowhere")
    link = page.evaluate("import('/js/router.js').then(({ runLink }) => runLink('a' + String.fromCharCode(0xd800)))")
    assert link == "#/runs/a%EF%BF%BD"


@pytest.mark.parametrize("hash_", ["#/runs", "#/runs/", "#/agents/x/nothing", "#/runs/%E0%A4%A", "#/runs/a/b", "#x"])
def test_other_addresses_lead_nowhere(call: Any, hash_: str) -> None:
    assert call("router", "parse", hash_)["view"] == "lost"


@pytest.mark.parametrize("view", ["issues", "signals"])
def test_a_view_of_all_agents_keeps_its_filters_in_its_address(call: Any, view: str) -> None:
    link = call("router", "fleetLink", view, {"status": "all", "severity": ""})
    assert link == f"#/{view}?status=all"
    assert call("router", "parse", link) == {"view": view, "filters": {"status": "all"}}


def test_the_page_knows_every_failure_type_and_its_severity(call: Any) -> None:
    known = {detector.failure_type.value: detector for detector in DETECTORS}
    for name, detector in known.items():
        usual = "MEDIUM" if name == "SLOW_STEP" else detector.severity.value  # HIGH only at five times the limit
        assert call("kinds", "severityOf", name) == usual, name
    assert call("kinds", "severityOf", "OF_A_LATER_RELEASE") == "MEDIUM"


FIELDS: list[tuple[str, Any, str, str]] = [
    ("wasted_ms", 8100, "Wasted time", "8.10 s"),
    ("latency_ms", 12, "Latency", "12 ms"),
    ("limit_ms", 15000, "Limit", "15.0 s"),
    ("wasted_tokens", 12345, "Wasted tokens", "12,345"),
    ("ratio", 9.0, "Ratio", "9 ×"),
    ("growth_factor", 3.256, "Growth factor", "3.26 ×"),
    ("rate", 0.25, "Rate", "25 %"),
    ("output_length", 1834, "Output", "1,834 characters"),
    ("first_step", 1200, "First step", "1200"),
    ("call_id", 1200, "Call id", "1200"),
    ("steps", [4, 6, 8], "Steps", "4, 6, 8"),
    ("same_arguments", True, "Same arguments", "yes"),
    ("top_score", None, "Top score", "–"),
    ("args_hash", "3b6c5b4537d53e449f1d6c1a", "Args digest", "3b6c5b4537d5…"),
    ("matched_patterns", [], "Matched patterns", "none"),
    ("meta", {"a": 1}, "Meta", '{"a":1}'),
    ("<b>x", "<i>", "<b>x", "<i>"),
]


@pytest.mark.parametrize(("key", "given", "label", "value"), FIELDS, ids=range(len(FIELDS)))
def test_a_stored_field_in_words_with_its_unit(
    shared: Callable[..., Watched], key: str, given: Any, label: str, value: str
) -> None:
    page = shared().turn_to("#/nowhere")
    script = """async ([key, given]) => {
        const { fields } = await import("/js/fields.js");
        const { h } = await import("/js/dom.js");
        return fields({ [key]: given })[0].map((part) => h("p", {}, part).textContent);
    }"""
    assert page.evaluate(script, [key, given]) == [label, value]


def test_a_long_list_is_cut_with_its_count(shared: Callable[..., Watched]) -> None:
    page = shared().turn_to("#/nowhere")
    script = "import('/js/fields.js').then(({ value }) => value('steps', [...Array(40).keys()]).flat(9).join(''))"
    assert page.evaluate(script) == "0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11 and 28 more"


def test_marks_are_deploys_and_first_sights_of_versions_nobody_deployed(call: Any) -> None:
    noon = 1_795_348_800  # 2026-11-22 12:00 UTC
    days = call("insights/charts", "lastDays", noon * 1000)
    assert (len(days), days[0], days[-1]) == (30, "2026-10-24", "2026-11-22")
    found = {
        "deploys": [{"version": "b", "deployed_at": noon - 86_400}],
        "versions": [
            {"agent_version": "b", "first_seen": noon - 86_000},
            {"agent_version": "a", "first_seen": noon - 5 * 86_400},
            {"agent_version": "old", "first_seen": noon - 60 * 86_400},
        ],
    }
    marks = call("insights/trend", "marksOf", found, days)
    assert [(one["version"], one["deployed"], one["place"]) for one in marks] == [("a", False, 24.5), ("b", True, 28.5)]


@pytest.mark.parametrize(("given", "top"), [(0, 5), (4, 5), (6, 10), (11, 20), (21, 50), (1000, 1000)])
def test_an_axis_ends_at_a_round_number(call: Any, given: int, top: int) -> None:
    assert call("insights/charts", "roundUp", given) == top


def test_signals_of_several_agents_add_up_by_severity(call: Any) -> None:
    agents = [
        {"severity_sparklines": {"HIGH": [0, 0, 0, 0, 0, 1, 2], "LOW": [5, 0, 0, 0, 0, 0, 0]}},
        {"severity_sparklines": {"HIGH": [0, 0, 0, 0, 0, 0, 3]}},
    ]
    assert call("dunes", "totals", agents, 1) == {"HIGH": 5, "LOW": 0}
    assert call("dunes", "totals", agents, 7) == {"HIGH": 6, "LOW": 5}


def test_answers_find_their_calls(call: Any) -> None:
    found = spans(
        call,
        event("run.started", 0, 10.0, model="m"),
        event("tool.called", 1, 10.0, tool_name="a", call_id=1),
        event("tool.called", 2, 10.1, tool_name="a", call_id=2),
        event("tool.responded", 1, 10.5, tool_name="a", call_id=1, success=True),
        event("tool.responded", 2, 10.2, tool_name="a", call_id=2, success=False),
        event("tool.called", 3, 11.0, tool_name="b"),
        event("tool.called", 4, 11.1, tool_name="c"),
        event("tool.responded", 3, 11.4),
        event("tool.responded", 9, 11.5),
    )
    assert found == [
        ("tool", "a", 1, 0.5, "ok"),
        ("tool", "a", 2, 0.1, "failed"),
        ("tool", "b", 3, 0.4, "ok"),
        ("tool", "c", 4, 0.4, "ok"),
    ]


def test_a_longer_reported_latency_wins_and_both_step_layouts_count_calls(call: Any) -> None:
    found = spans(
        call,
        event("llm.called", 1, 10.0, model="m"),
        event("llm.responded", 2, 10.001, latency_ms=800, model="another"),
        event("retrieval.called", 3, 10.1, index_name="i"),
        event("retrieval.responded", 4, 10.4, index_name="i", latency_ms=1),
    )
    assert found == [("llm", "m", 1, 0.8, "ok"), ("retrieval", "i", 3, 0.3, "ok")]


def test_a_call_without_an_answer_is_open_only_while_it_can_still_come(call: Any) -> None:
    events = [
        event("tool.called", 1, 10.0, tool_name="lost"),
        event("tool.called", 2, 11.0, tool_name="a"),
        event("tool.responded", 2, 12.0, tool_name="a"),
        event("llm.called", 3, 13.0, model="m"),
    ]
    running = spans(call, *events, running=True, now=20.0)
    assert [(s[1], s[4]) for s in running] == [("lost", "unanswered"), ("a", "ok"), ("m", "open")]
    assert running[2][3] == 7.0
    ended = spans(call, *events, event("run.completed", 4, 14.0))
    assert [(s[1], s[3], s[4]) for s in ended][2] == ("m", 1.0, "unanswered")


def test_events_are_ordered_by_time_then_step_then_arrival(call: Any) -> None:
    given = [event("c", 2, 5.0), event("b", 1, 5.0), event("a", 9, 4.0), event("d", 2, 5.0)]
    assert [one["event_type"] for one in call("steps", "inOrder", given)] == ["a", "b", "c", "d"]


def test_a_week_is_seven_days_whatever_is_given(call: Any) -> None:
    assert call("dunes", "week", []) == [0] * 7
    assert call("dunes", "week", [1, 2]) == [0, 0, 0, 0, 0, 1, 2]
    assert call("dunes", "week", list(range(9))) == [2, 3, 4, 5, 6, 7, 8]
