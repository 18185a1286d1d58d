"""The pages name all there is to name: settings, tables, log events, dependencies, published files."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import yaml

from dunetrace.alerts import listing
from dunetrace.config import SETTINGS
from dunetrace.store import migrations
from dunetrace.telemetry import LOG_EVENTS
from tests.docs.pages import code_blocks, named, prose, table_rows
from tests.shared import CHECKOUT

DOCS = CHECKOUT / "docs"
DATA_DIR = "the platform's user data directory, `/var/lib/dunetrace` for root"


def test_every_setting_stands_in_the_table_with_its_default() -> None:
    rows = {row[0].strip("`"): row for row in table_rows(DOCS / "configuration.md") if len(row) == 4}
    rows.pop("setting", None)
    assert set(rows) == {setting.name for setting in SETTINGS}
    for setting in SETTINGS:
        _, default, what, allowed = rows[setting.name]
        assert what, setting.name
        assert allowed, setting.name
        if setting.name == "DUNETRACE_DATA_DIR":
            assert default == DATA_DIR
        else:
            assert default == (f"`{setting.default}`" if setting.default else "unset"), setting.name


def test_what_alerts_yml_may_hold_stands_in_its_table_and_its_sample_is_taken() -> None:
    page = DOCS / "alerts.md"
    rows = [row for row in table_rows(page) if len(row) == 4]
    named = [row[0].strip("`") for row in rows]
    told = set(named[named.index("key") :]) - {"key", "---"}
    assert told == {key for kind in listing.KINDS.values() for key in kind.keys}
    (sample,) = (code for code in code_blocks(page, "yaml") if code.startswith("destinations:"))
    text = {name: f"https://host.example/{name}" for name in re.findall(r"\$\{(\w+)\}", sample)}
    made = listing.check(yaml.safe_load(sample), {**text, "PAGERDUTY_ROUTING_KEY": "0" * 32}, {}, 3600.0)
    assert {destination.kind for destination in made} == set(listing.KINDS)


def test_every_table_has_its_purpose() -> None:
    tables = {
        name
        for migration in migrations.load()
        for name in re.findall(r"CREATE TABLE (?:IF NOT EXISTS )?(\w+)", migration.sql)
    }
    section = prose(DOCS / "architecture.md").split("## The tables")[1]
    described = {name for line in section.splitlines() if line.startswith("| `") for name in named(line.split("|")[1])}
    assert described == tables | {"schema_migrations"}


def test_every_log_event_is_explained() -> None:
    rows = table_rows(DOCS / "operations.md")
    explained = {name for row in rows for name in named(row[0])}
    assert explained == set(LOG_EVENTS)


def test_what_is_logged_is_what_is_listed() -> None:
    sources = {file: file.read_text("utf-8") for file in (CHECKOUT / "dunetrace").rglob("*.py")}
    names = {
        name
        for text in sources.values()
        for name in re.findall(r"\blog\.(?:debug|info|warning|error)\(\s*\"([^\"]+)\"", text)
    }
    assert names <= set(LOG_EVENTS)
    elsewhere = "\n".join(text for file, text in sources.items() if file.name != "telemetry.py")
    unused = [name for name in LOG_EVENTS if f'"{name}"' not in elsewhere]
    assert unused == []


def test_every_dependency_has_its_reason() -> None:
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text("utf-8"))
    listed = [*project["build-system"]["requires"], *project["project"]["dependencies"]]
    listed += [entry for extra in project["project"]["optional-dependencies"].values() for entry in extra]
    names = {re.split(r"[\[<>=;! ]", entry, maxsplit=1)[0] for entry in listed} - {"dunetrace"}
    reasons = prose(DOCS / "decisions.md").split("## Dependencies")[1]
    given = {name for bold in re.findall(r"^\*\*([^*]+)\*\*", reasons, re.MULTILINE) for name in bold.split(", ")}
    assert given == names


def test_the_project_holds_no_path_of_a_machine() -> None:
    homes = re.compile(r"/(?:home|root|work|Users)/[\w.-]+/")
    files = [*CHECKOUT.glob("*.*"), CHECKOUT / "Makefile"]
    for room in ("dunetrace", "tests", "docs", "sql", "web", "examples", "bench", ".ci"):
        files += [path for path in (CHECKOUT / room).rglob("*") if path.suffix in TEXT]
    for file in files:
        if file.is_file() and file != Path(__file__) and file.name != ".git":  # a worktree's names its checkout
            assert not homes.search(file.read_text("utf-8")), file


TEXT = {".py", ".md", ".sql", ".html", ".css", ".js", ".toml", ".yml", ".sh", ""}
