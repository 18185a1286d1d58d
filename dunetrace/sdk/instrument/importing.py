"""Tells when a library has been imported, so that none is imported for its instrumentation's sake.

A finder on `sys.meta_path` that finds nothing itself: for a name somebody waits for, it lends the real loader a hand
for the one import. It is there only while something is waited for, and costs other imports a look into a dict.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

from dunetrace.sdk import lifecycle

Imported = Callable[[ModuleType], None]


class ImportWatch:
    """What is waited for. A name's callback is called once, by whoever takes it out."""

    def __init__(self) -> None:
        self._waiting: dict[str, Imported] = {}

    def waits_for(self, name: str) -> bool:
        """Whether the module `name` is waited for."""
        return name in self._waiting

    def wait_for(self, name: str, imported: Imported) -> None:
        """Call `imported` with the module right after its first import."""
        self._waiting[name] = imported
        if self not in sys.meta_path:
            sys.meta_path.insert(0, self)

    def forget(self, name: str) -> bool:
        """Wait for `name` no longer; whether it was waited for until now."""
        was_waiting = self._waiting.pop(name, None) is not None
        if not self._waiting and self in sys.meta_path:
            sys.meta_path.remove(self)
        return was_waiting

    def loaded(self, module: ModuleType) -> None:
        """`module` has been executed."""
        imported = self._waiting.get(module.__name__)
        if imported is None or not self.forget(module.__name__):
            return
        try:
            imported(module)
        except Exception as error:
            lifecycle.debug(f"instrument: {module.__name__}: {type(error).__name__}")

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """The spec that the other finders have, its loader wrapped; None for what nobody waits for."""
        if name not in self._waiting:
            return None
        spec = self._found(name, path, target)
        if spec is not None and hasattr(spec.loader, "exec_module"):
            spec.loader = _Loader(spec.loader, self)  # type: ignore[assignment]  # it has all that a loader has
        return spec

    def _found(self, name: str, path: Sequence[str] | None, target: ModuleType | None) -> ModuleSpec | None:
        for finder in list(sys.meta_path):
            find = None if finder is self else getattr(finder, "find_spec", None)
            spec: ModuleSpec | None = None if find is None else find(name, path, target)
            if spec is not None:
                return spec
        return None


class _Loader:
    """The real loader, which the module sees as its own."""

    def __init__(self, loader: Any, watch: ImportWatch) -> None:
        self._loader = loader
        self._watch = watch

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(self._loader, name)

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        module: ModuleType | None = self._loader.create_module(spec)
        return module

    def exec_module(self, module: ModuleType) -> None:
        if module.__spec__ is not None:
            module.__spec__.loader = self._loader
        module.__loader__ = self._loader
        self._loader.exec_module(module)
        self._watch.loaded(module)
