"""Auto-instrumentation: what an agent's libraries do inside a run is recorded without a line of its own.

`install` and `remove` are called by `auto_instrument` and `init`. A library that is not imported yet is not imported
here either, because that costs an agent up to a second for something it may never use: it is instrumented right after
its own import (`importing`). Outside of a run an instrumented method costs one look at a context variable.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from importlib.util import find_spec
from types import ModuleType

from dunetrace.sdk import lifecycle, plain
from dunetrace.sdk.instrument.anthropic import ANTHROPIC
from dunetrace.sdk.instrument.httpx import HTTPX, HTTPX2
from dunetrace.sdk.instrument.importing import ImportWatch
from dunetrace.sdk.instrument.openai import OPENAI
from dunetrace.sdk.instrument.patching import Library
from dunetrace.sdk.instrument.requests import REQUESTS

_LIBRARIES = {library.name: library for library in (HTTPX, HTTPX2, REQUESTS, OPENAI, ANTHROPIC)}
_watch = ImportWatch()


def install(names: Iterable[str] | None = None) -> list[str]:
    """Instrument these libraries, or all known ones that are installed; the names of those instrumented now.

    One that is not imported yet counts: it will be instrumented when it is. Never raises; a name or a version that is
    not known is left alone with a debug line.
    """
    for library in _chosen(names):
        module = sys.modules.get(library.name)
        if module is not None:
            library.instrument(module)
        elif _is_installed(library.name):
            _await(library)
        elif names is not None:
            lifecycle.debug(f"instrument: {library.name} is not installed")
    return [name for name, library in _LIBRARIES.items() if library.on or _watch.waits_for(name)]


def remove(names: Iterable[str] | None = None) -> None:
    """Undo `install` for these libraries, or for all. Their own methods are back as they were."""
    for library in _chosen(names):
        _watch.forget(library.name)
        library.restore()


def _chosen(names: object) -> Iterator[Library]:
    if names is None:
        yield from _LIBRARIES.values()
        return
    try:
        given = [names] if isinstance(names, str) else list(names)  # type: ignore[call-overload]  # whatever it is
        for name in given:
            library = _LIBRARIES.get(name) if isinstance(name, str) else None
            if library is None:
                lifecycle.debug(f"instrument: {plain.name(name)!r} is not one of {', '.join(_LIBRARIES)}")
            else:
                yield library
    except Exception as error:
        lifecycle.debug(f"instrument: {type(error).__name__}")


def _is_installed(name: str) -> bool:
    try:
        return find_spec(name) is not None
    except Exception:  # whatever other finders do
        return False


def _await(library: Library) -> None:
    def imported(module: ModuleType) -> None:
        library.instrument(module)

    _watch.wait_for(library.name, imported)
    module = sys.modules.get(library.name)
    if module is not None and _watch.forget(library.name):  # imported meanwhile, by another thread
        library.instrument(module)
