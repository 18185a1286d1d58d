"""Methods of other people's classes, replaced so that they can be put back. Used by each library's own module."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any, NamedTuple

from dunetrace.sdk import lifecycle
from dunetrace.sdk.instrument.watching import Begin, watched


class Target(NamedTuple):
    """A method to watch: `name` in the class `owner` itself."""

    owner: type
    name: str
    begin: Begin


def defining(kind: type, name: str, parameter: str) -> type:
    """The class among `kind`'s own and its bases that defines the method. LookupError when it takes no `parameter`."""
    import inspect  # noqa: PLC0415 - whoever has the library has loaded it

    for owner in kind.__mro__:
        if name in vars(owner):
            if parameter in inspect.signature(vars(owner)[name]).parameters:
                return owner
            break
    raise LookupError(name)


class Library:
    """A library that can be instrumented. `targets` finds its methods, or raises when its shape is not known."""

    def __init__(self, name: str, targets: Callable[[Any], Sequence[Target]]) -> None:
        self.name = name
        self._targets = targets
        self._module: ModuleType | None = None
        self._patches: list[_Patch] = []

    @property
    def on(self) -> bool:
        """Whether it is instrumented."""
        return any(patch.on for patch in self._patches)

    def instrument(self, module: ModuleType) -> None:
        """Watch the methods of `module`, all or none. Doing it again changes nothing."""
        try:
            if module is not self._module:
                patches = [_Patch(target) for target in self._targets(module)]
                self.restore()
                self._module, self._patches = module, patches
            for patch in self._patches:
                patch.apply()
        except Exception as error:
            self.restore()
            version = getattr(module, "__version__", "?")
            lifecycle.debug(f"instrument: {self.name} {version} is not known: {type(error).__name__}")

    def restore(self) -> None:
        """Put the methods back."""
        for patch in self._patches:
            patch.undo()


class _Patch:
    """One method. `on` is read by its wrapper, for when somebody else has wrapped that and it cannot be taken out."""

    def __init__(self, target: Target) -> None:
        self.on = False
        self._owner, self._name, self._begin = target
        self._original: Any = None
        self._wrapper: Any = None

    def apply(self) -> None:
        current = vars(self._owner)[self._name]
        if not _leads_to(current, self._wrapper):
            self._original, self._wrapper = current, watched(current, self._begin, self)
            setattr(self._owner, self._name, self._wrapper)
        self.on = True

    def undo(self) -> None:
        self.on = False
        if self._wrapper is not None and vars(self._owner).get(self._name) is self._wrapper:
            setattr(self._owner, self._name, self._original)


def _leads_to(function: Any, wrapper: Any) -> bool:
    """Whether `wrapper` is `function` or is wrapped by it."""
    while function is not None and function is not wrapper:
        function = getattr(function, "__wrapped__", None)
    return function is not None
