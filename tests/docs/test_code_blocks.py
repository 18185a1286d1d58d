"""The code in the pages is code: Python runs, shell commands name what there is."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.docs.pages import PAGES, code_blocks
from tests.sdk.instrument.provider import running_provider
from tests.shared import CHECKOUT

BLOCKS = [(page, code) for page in PAGES for code in code_blocks(page, "python")]


@pytest.mark.parametrize(
    ("page", "code"), BLOCKS, ids=[f"{page.name}-{number}" for number, (page, _) in enumerate(BLOCKS)]
)
def test_python_runs(page: Path, code: str, tmp_path: Path) -> None:
    """As a script of its own, with the SDK switched off so that it needs no server; models are asked of a local one."""
    script = tmp_path / "block.py"
    script.write_text(code, "utf-8")
    with running_provider() as provider:
        done = subprocess.run(
            [sys.executable, "-W", "error", str(script)],
            env={**os.environ, "DUNETRACE_DISABLED": "1", "PYTHONPATH": str(CHECKOUT), **provider.environment},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert (done.returncode, done.stderr) == (0, "")


def test_the_readme_has_an_example() -> None:
    assert any(page.name == "README.md" and "dt.run(" in code for page, code in BLOCKS)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_json_and_yaml_are_well_formed(page: Path) -> None:
    for code in code_blocks(page, "json"):
        json.loads(code)
    for code in code_blocks(page, "yaml"):
        yaml.safe_load(code)


def test_every_make_target_that_is_named_exists() -> None:
    targets = set(re.findall(r"^(\w+):", (CHECKOUT / "Makefile").read_text("utf-8"), re.MULTILINE))
    named = {
        target for page in PAGES for target in re.findall(r"(?:^|`)make (\w+)", page.read_text("utf-8"), re.MULTILINE)
    }
    assert named <= targets
    assert {"demo", "test"} <= named
    assert targets == {"help", "setup", "run", "demo", "test", "prove", "lint", "bench", "eval", "docs", "clean"}


def test_every_file_that_is_named_exists() -> None:
    """Paths in backticks that begin with one of the project's directories."""
    rooms = ("dunetrace/", "tests/", "docs/", "sql/", "web/", "examples/", "bench/", ".ci/")
    for page in PAGES:
        for name in re.findall(r"`([^`\s<>*{}]+)`", page.read_text("utf-8")):
            if name.startswith(rooms):
                assert (CHECKOUT / name).exists() or "<" in name, f"{page.name} names {name}"
