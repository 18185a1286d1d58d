"""alerts.yml: what it makes, and one line for whatever is wrong with it, with no secret in it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dunetrace import config
from dunetrace.alerts import FORMS, Destination, destinations_from, pagerduty
from dunetrace.alerts.listing import KINDS, MOST_DESTINATIONS, check
from dunetrace.deliveries import Subscription
from dunetrace.errors import SettingError
from dunetrace.signals import Severity
from tests.pagerduty import ROUTING_KEY

TOKEN = "xoxb-very-secret-token"
URL = f"https://hooks.example.com/{TOKEN}"
VARIABLES = {"SLACK_URL": URL, "PAGER_KEY": ROUTING_KEY, "TOKEN": TOKEN, "EMPTY": ""}


def _load(directory: Path, text: str, **environ: str) -> tuple[Destination, ...]:
    (directory / "alerts.yml").write_text(text)
    return destinations_from(config.load({**VARIABLES, **environ}, directory))


def _one(directory: Path, entry: str, **environ: str) -> Destination:
    (only,) = _load(directory, f"destinations: [{{name: ops, {entry}}}]", **environ)
    return only


def _refused(directory: Path, text: str, **environ: str) -> str:
    with pytest.raises(SettingError) as raised:
        _load(directory, text, **environ)
    said = str(raised.value)
    assert "\n" not in said and len(said) < 400
    assert "very-secret" not in said
    assert ROUTING_KEY not in said
    return said


def test_every_kind_has_a_form() -> None:
    assert KINDS.keys() == FORMS.keys()


@pytest.mark.parametrize("text", ["", "# nothing yet\n", "destinations:\n", "destinations: []\n"])
def test_a_file_with_nothing_in_it(tmp_path: Path, text: str) -> None:
    assert _load(tmp_path, text) == ()


def test_what_is_not_said_goes_by_the_kind(tmp_path: Path) -> None:
    slack, hook, pager = _load(
        tmp_path,
        f"""
        destinations:
          - {{name: ops, kind: slack, url: "{URL}"}}
          - {{name: audit, kind: webhook, url: "{URL}", secret: {TOKEN}}}
          - {{name: pager, kind: pagerduty, routing_key: {ROUTING_KEY}}}
        """,
        DUNETRACE_ALERT_WINDOW="120",
    )
    assert slack == Destination("ops", "slack", URL, min_severity=Severity.HIGH, gather_s=120.0)
    assert hook == Destination("audit", "webhook", URL, TOKEN)
    assert pager == Destination(
        "pager", "pagerduty", pagerduty.ENQUEUE_URL, ROUTING_KEY, min_severity=Severity.HIGH, gather_s=120.0
    )
    assert pager.subscription == Subscription("pager", "pagerduty", Severity.HIGH, (), 120.0, True)
    for destination in (slack, hook, pager):
        assert TOKEN not in repr(destination) and ROUTING_KEY not in repr(destination)


def test_what_is_said_counts(tmp_path: Path) -> None:
    found = _one(
        tmp_path,
        "kind: Slack, url: '${SLACK_URL}', min_severity: medium, agents: [checkout, 'support-*'], gather: 15m, "
        "resolved: false, digest: false",
    )
    assert found == Destination(
        "ops", "slack", URL, None, Severity.MEDIUM, ("checkout", "support-*"), 900.0, resolved=False, digest=False
    )
    assert found.subscription == Subscription("ops", "slack", Severity.MEDIUM, ("checkout", "support-*"), 900.0, False)


def test_a_variable_may_be_a_part_of_a_text_and_come_from_the_dotenv_file(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("FROM_FILE=a$b${TOKEN}\n")
    entry = "kind: webhook, url: 'https://host/${TOKEN}/${TOKEN}', secret: '${FROM_FILE}'"
    found = _one(tmp_path, entry)
    assert found.url == f"https://host/{TOKEN}/{TOKEN}"
    assert found.secret == "a$b${TOKEN}"  # what a variable holds is not looked into


@pytest.mark.parametrize(
    ("gather", "seconds"),
    [("off", 0), ("'off'", 0), ("0", 0), ("90", 90), ("1.5", 1.5), ("90s", 90), ("15m", 900), ("2 h", 7200),
     ("7d", 604_800), ("'${GATHER}'", 30), ("null", 3600)],
)  # fmt: skip
def test_durations(tmp_path: Path, gather: str, seconds: float) -> None:
    entry = f"kind: slack, url: '{URL}', gather: {gather}"
    assert _one(tmp_path, entry, GATHER="30s").gather_s == seconds


def test_it_stands_beside_what_the_settings_make(tmp_path: Path) -> None:
    text = f"destinations: [{{name: ops, kind: slack, url: '{URL}'}}]"
    both = _load(tmp_path, text, SLACK_WEBHOOK_URL=URL, DUNETRACE_ALERT_WINDOW="60")
    assert [(destination.name, destination.gather_s) for destination in both] == [("slack", 60.0), ("ops", 60.0)]


def test_a_name_a_setting_could_make_is_free_while_it_does_not(tmp_path: Path) -> None:
    text = f"destinations: [{{name: slack, kind: slack, url: '{URL}'}}]"
    assert [destination.name for destination in _load(tmp_path, text)] == ["slack"]
    assert "`slack` is the name of SLACK_WEBHOOK_URL already" in _refused(tmp_path, text, SLACK_WEBHOOK_URL=URL)


def test_the_file_may_lie_elsewhere(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere.yml"
    elsewhere.write_text(f"destinations: [{{name: ops, kind: slack, url: '{URL}'}}]")
    settings = config.load({"ALERTS_CONFIG": str(elsewhere)}, tmp_path)
    assert [destination.name for destination in settings.listed] == ["ops"]
    assert TOKEN not in repr(settings)
    with pytest.raises(SettingError, match=r"ALERTS_CONFIG: .* cannot be read \(No such file"):
        config.load({"ALERTS_CONFIG": str(tmp_path / "missing.yml")}, tmp_path)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("destinations: [", "ALERTS_CONFIG: {path} is not YAML at line 1"),
        ("destinations: []\ndestinations: []", "ALERTS_CONFIG: {path} has the same key twice at line 2"),
        ("a: 2026-99-99", "ALERTS_CONFIG: {path} is not YAML"),
        ("[" * 3000, "ALERTS_CONFIG: {path} is not YAML"),
        ("\x00", "ALERTS_CONFIG: {path} is not YAML"),
    ],
)  # fmt: skip
def test_what_is_no_document(tmp_path: Path, text: str, said: str) -> None:
    assert _refused(tmp_path, text).startswith(said.format(path=tmp_path / "alerts.yml"))


def test_what_is_no_text(tmp_path: Path) -> None:
    (tmp_path / "alerts.yml").write_bytes(b"\xff")
    with pytest.raises(SettingError, match=r"ALERTS_CONFIG: .* is not UTF-8 text"):
        config.load({}, tmp_path)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("- name: ops", "the file: must be a mapping (`key: value`), and is a list"),
        (f"'{URL}'", "the file: must be a mapping (`key: value`), and is text"),
        ("destination: []", "the file: unknown key 'destination'; did you mean `destinations`?"),
        ("destinations: {ops: {}}", "destinations: must be a list (`- name: ...`), and is a mapping"),
        ("destinations: [ops]", "destination 1: must be a mapping (`key: value`), and is text"),
        ("destinations: [null]", "destination 1: must be a mapping (`key: value`), and is empty"),
        ("destinations: [{kind: slack}]", "destination 1: name: is missing"),
        ("destinations: [{name: on, kind: slack}]", "destination 1: name: is true or false and not text; write it in"),
        ("destinations: [{name: 12, kind: slack}]", "destination 1: name: is a number and not text; write"),
        ("destinations: [{name: Ops Team}]",
         "destination 1: name: 'Ops Team' is not 1 to 40 of a-z, 0-9 and -; write `ops-team`"),
        ("destinations: [{name: ''}]", "destination 1: name: a text of 0 characters is not 1 to 40 of"),
        (f"destinations: [{{name: '{URL}'}}]", f"destination 1: name: a text of {len(URL)} characters is not 1"),
        ("destinations: [{nmae: ops}]", "destination 1: unknown key 'nmae'; did you mean `name`? Known: name, kind"),
        (f"destinations: [{{name: ops, '{URL}': 1}}]", f"destination 1: unknown key a text of {len(URL)} characters;"),
        ("destinations: [{name: ops, on: 1}]", "destination 1: unknown key True; did you mean"),
        (f"destinations: {[{'name': f'd{n}'} for n in range(MOST_DESTINATIONS + 1)]}", "destinations: lists 101; at"),
    ],
)  # fmt: skip
def test_what_is_no_list_of_destinations(tmp_path: Path, text: str, said: str) -> None:
    assert _refused(tmp_path, text).startswith(f"alerts.yml: {said}")


def test_a_name_is_there_once(tmp_path: Path) -> None:
    entry = f"{{name: ops, kind: slack, url: '{URL}'}}"
    said = _refused(tmp_path, f"destinations: [{entry}, {entry}]")
    assert said == "alerts.yml: destination 2: name: `ops` is the name of destination 1 already; choose another"


SLACK = f"kind: slack, url: '{URL}'"
PAGER = f"kind: pagerduty, routing_key: {ROUTING_KEY}"


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        (f"url: '{URL}'", "kind: is missing; known are slack, webhook, pagerduty"),
        ("kind: slak", "kind: 'slak' is not one of slack, webhook, pagerduty; the nearest is slack"),
        ("kind: [slack]", "kind: is a list and not text"),
        ("kind: slack", "url: is missing; it looks like https://host/path"),
        ("kind: webhook", "url: is missing"),
        ("kind: slack, url: 443", "url: is a number and not text; write it in quotes"),
        (f"kind: slack, url: 'hooks.example.com/{TOKEN}'", "url: must start with https:// or http://"),
        (f"kind: slack, url: 'https://host:0/{TOKEN}'", "url: the port must be 1..65535"),
        ("kind: slack, url: ''", "url: is missing"),
        (f"kind: slack, url: '{URL}', secret: {TOKEN}", "secret: a slack destination has no such key; it has name"),
        (f"kind: webhook, url: '{URL}', digest: true", "digest: a webhook destination has no such key"),
        (f"kind: webhook, url: '{URL}', secret: 12345678", "secret: is a number and not text; write it in quotes"),
        (f"kind: webhook, url: '{URL}', secret: 'whsec_%{TOKEN}'", "secret: what follows whsec_ must be base64"),
        ("kind: pagerduty", "routing_key: is missing"),
        ("kind: pagerduty, routing_key: ''", "routing_key: is missing"),
        ("kind: pagerduty, routing_key: 12345678901234567890123456789012", "routing_key: is a number and not text"),
        (f"kind: pagerduty, routing_key: {TOKEN}", "routing_key: an integration key of PagerDuty's Events API v2"),
        (f"{PAGER}, url: 'ftp://events.example.com'", "url: must start with https:// or http://"),
        (f"{SLACK}, min_severity: hihg",
         "min_severity: 'hihg' is not one of LOW, MEDIUM, HIGH, CRITICAL; the nearest is HIGH"),
        (f"{SLACK}, min_severity: 3", "min_severity: is a number and not text"),
        (f"{SLACK}, min_severity: '${{SLACK_URL}}'", "min_severity: a text of 12 characters is not one of LOW"),
        (f"{SLACK}, agents: checkout", "agents: must be a list, as in [checkout, 'support-*'], and is text"),
        (f"{SLACK}, agents: []", "agents: is an empty list; leave it out to be told of all agents"),
        (f"{SLACK}, agents: [true]", "agents: is true or false and not text; write it in quotes"),
        (f"{SLACK}, agents: ['']", "agents: a name or a pattern has 1 to 256 characters"),
        (f"{SLACK}, agents: [null]", "agents: a name or a pattern has 1 to 256 characters"),
        (f"{SLACK}, agents: ['{'a' * 257}']", "agents: a name or a pattern has 1 to 256 characters"),
        (f"{SLACK}, gather: soon", "gather: 'soon' is not a duration; write 90, 90s, 15m, 2h, 1d or off"),
        (f"{SLACK}, gather: 15x", "gather: '15x' is not a duration"),
        (f"{SLACK}, gather: -1", "gather: -1 is not a duration"),
        (f"{SLACK}, gather: .nan", "gather: a number is not a duration"),
        (f"{SLACK}, gather: on", "gather: True is not a duration"),
        (f"{SLACK}, gather: [1]", "gather: a list is not a duration"),
        (f"{SLACK}, gather: 8d", "gather: '8d' is too long; the longest is 7d"),
        (f"{SLACK}, gather: .inf", "gather: a number is too long; the longest is 7d"),
        (f"{SLACK}, resolved: 'yes'", "resolved: 'yes' is not true or false"),
        (f"{SLACK}, resolved: 1", "resolved: 1 is not true or false"),
        (f"{SLACK}, digest: weekly", "digest: 'weekly' is not true or false"),
        ("kind: slack, url: '${NOT_THERE}'", "url: ${NOT_THERE} is not set; set it in the environment or in .env"),
        ("kind: slack, url: '${EMPTY}'", "url: ${EMPTY} is not set"),
        ("kind: pagerduty, routing_key: '${PAGER_KEY'", "routing_key: after ${ must stand the name of a variable"),
        (f"kind: slack, url: '${{{URL}}}'", "url: after ${ must stand the name of a variable and }"),
        ("kind: slack, url: '${TOKEN}'", "url: must start with https:// or http://"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_destination(tmp_path: Path, entry: str, said: str) -> None:
    line = _refused(tmp_path, f"destinations: [{{name: ops, {entry}}}]")
    assert line.startswith(f"alerts.yml: `ops`: {said}"), line


_LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.sampled_from(
    ["slack", "pagerduty", "HIGH", "15m", "${TOKEN}", "${", URL, ROUTING_KEY, "https://host/"]
)  # fmt: skip
_KEYS = st.sampled_from(
    ["name", "kind", "url", "secret", "routing_key", "min_severity", "agents", "gather", "resolved"]
)
_DOCUMENTS = st.recursive(
    _LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_KEYS | _LEAVES, inner, max_size=9)
)


@given(
    _DOCUMENTS
    | st.fixed_dictionaries({"destinations": _DOCUMENTS | st.lists(st.dictionaries(_KEYS, _LEAVES), min_size=1)})
)
def test_any_document_is_taken_or_refused_in_one_line_without_a_secret(document: object) -> None:
    try:
        made = check(document, VARIABLES, {}, 3600.0)
    except SettingError as error:
        said = str(error)
    else:
        said = repr([replace(destination, agents=()) for destination in made])
    assert "\n" not in said
    assert TOKEN not in said and ROUTING_KEY not in said
