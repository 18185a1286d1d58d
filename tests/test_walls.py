"""Walls that an import checker can't see: SQL only in the store, event types only where they are interpreted."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from tests.shared import CHECKOUT

PACKAGE = CHECKOUT / "dunetrace"
SQL = re.compile(r"\b(SELECT\s.+\sFROM|INSERT INTO|UPDATE\s\w+\sSET|DELETE FROM|CREATE TABLE)\b", re.DOTALL)
ENVIRONMENT = re.compile(r"\bos\.(environ|getenv)\b")
MAY_READ_ENVIRONMENT = {
    "config.py",
    "sdk/settings.py",
    "store/embedded.py",
    "actors/demo.py",
}  # the last two pass it on


def modules() -> Iterator[tuple[str, str]]:
    """(path within the package, source) of every module."""
    for path in sorted(PACKAGE.rglob("*.py")):
        yield path.relative_to(PACKAGE).as_posix(), path.read_text("utf-8")


def texts(source: str) -> Iterator[tuple[int, str]]:
    """Every string of a module that isn't a docstring, with its line."""
    tree = ast.parse(source)
    docs = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef))
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docs:
            yield node.lineno, node.value


def test_only_the_store_knows_sql() -> None:
    found = [
        f"{name}:{line}"
        for name, source in modules()
        if not name.startswith("store/")
        for line, text in texts(source)
        if SQL.search(text)
    ]
    assert found == []


def test_event_types_are_compared_only_where_they_are_interpreted() -> None:
    compared = re.compile(r"event_type\s*(==|!=)")
    found = [
        f"{name}: {line.strip()}"
        for name, source in modules()
        if name not in ("events.py", "door.py", "runs.py")
        for line in source.splitlines()
        if compared.search(line)
    ]
    assert found == []


def test_the_environment_is_read_in_one_place_a_side() -> None:
    found = {name for name, source in modules() if ENVIRONMENT.search(source)}
    assert found <= MAY_READ_ENVIRONMENT


def test_modules_stay_readable() -> None:
    longest = sorted(((len(source.splitlines()), name) for name, source in modules()), reverse=True)
    assert [entry for entry in longest if entry[0] > 400] == []
    sizes = sorted(size for size, _ in longest)
    assert sizes[len(sizes) // 2] < 200
