"""The examples in the docstrings of the SDK's public names are run."""

from __future__ import annotations

import doctest
from collections.abc import Callable

import pytest

import dunetrace
from dunetrace import Dunetrace, DunetraceASGIMiddleware, DunetraceWSGIMiddleware, RunContext
from dunetrace.sdk import instrument

Make = Callable[..., Dunetrace]
FINDER = doctest.DocTestFinder(recurse=False)


def _public(owner: type) -> list[object]:
    return [owner, *(value for name, value in vars(owner).items() if callable(value) and not name.startswith("_"))]


EXAMPLES = [
    test
    for owner in (Dunetrace, RunContext, DunetraceASGIMiddleware, DunetraceWSGIMiddleware)
    for value in _public(owner)
    for test in FINDER.find(value, getattr(value, "__name__", ""), module=False)  # type: ignore[arg-type]
    if test.examples
]


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.name)
def test_an_example_runs(example: doctest.DocTest, client: Make) -> None:
    dt = client()
    run = dt.run("example").begin()
    example.globs = {"dunetrace": dunetrace, "dt": dt, "run": run, "app": lambda *_: []}
    example.globs |= {name: getattr(dunetrace, name) for name in dunetrace.__all__}
    try:
        assert doctest.DocTestRunner().run(example).failed == 0
    finally:
        instrument.remove()


def test_every_public_method_has_one() -> None:
    wanted = {
        name
        for owner in (Dunetrace, RunContext)
        for name, value in vars(owner).items()
        if callable(value) and not name.startswith("_") and name != "end"
    }
    assert wanted <= {example.name for example in EXAMPLES}
