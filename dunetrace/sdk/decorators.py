"""Functions that are runs (`agent`, `trace`) or tool calls inside one (`tool`), by a decorator.

The client's methods of these names make them. What they record, they record through `RunContext`, so it is hashed and
bounded like everything else; the function's own results and errors pass through untouched.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from dunetrace.sdk import lifecycle, plain, scope
from dunetrace.sdk.context import RunContext, get_current_run
from dunetrace.sdk.parts import Part, around
from dunetrace.sdk.scope import RunScope

InputFrom = str | int | Callable[..., object] | None


class Arguments:
    """A function's arguments by name, without `self` and `cls`."""

    def __init__(self, function: object) -> None:
        try:
            self._signature: inspect.Signature | None = inspect.signature(function)  # type: ignore[arg-type]
        except (TypeError, ValueError):  # some built-in functions have none
            self._signature = None

    def of(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
        """What was given, in the order of the parameters. Never raises: what does not fit, the function refuses."""
        try:
            if self._signature is None:
                raise TypeError  # noqa: TRY301 - as where they do not fit
            named = dict(self._signature.bind_partial(*args, **kwargs).arguments)
        except TypeError:
            return {**{str(place): value for place, value in enumerate(args)}, **kwargs}
        for receiver in ("self", "cls"):
            if next(iter(named), None) == receiver:
                del named[receiver]
        return named


class ToolPart:
    """One call of a tool, inside `within`."""

    run: RunContext | None = None

    def __init__(self, within: RunContext, name: str, args: Mapping[str, Any]) -> None:
        self._within = within
        self._name = name
        self._call_id = within.tool_called(name, args)

    def end(self, error: BaseException | None, result: object = None) -> None:
        """A consumer that wanted no more of a generator had what it wanted."""
        if error is None or isinstance(error, GeneratorExit):
            self._within.tool_responded(self._name, output=result, call_id=self._call_id)
        else:
            self._within.tool_responded(self._name, success=False, error=error, call_id=self._call_id)


class RunPart:
    """One run."""

    def __init__(self, opening: RunScope) -> None:
        self.run: RunContext | None = opening.begin()

    def end(self, error: BaseException | None, result: object = None) -> None:  # noqa: ARG002 - not recorded
        """What returns has given its answer."""
        run, self.run = self.run, None
        if run is not None:
            if error is None:
                run.final_answer()
            scope.end(run, error)


def as_tool(function: Any, name: str = "") -> Any:
    """`function`, recorded as a tool call of the run it is called in; outside of any it is just called."""
    called = name or _name_of(function)
    arguments = Arguments(_function_of(function))

    def begin(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Part | None:
        run = get_current_run()
        return None if run is None else ToolPart(run, called, arguments.of(args, kwargs))

    return around(function, begin)


def as_run(function: Any, open_run: Callable[[str, object], RunScope], input_from: InputFrom) -> Any:
    """`function`, a run each time; `open_run` gets its name and what the user said, and gives the run's scope."""
    called = _name_of(function)
    arguments = Arguments(_function_of(function))

    def begin(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Part | None:
        return RunPart(open_run(called, _input(input_from, arguments.of(args, kwargs), args, kwargs)))

    return around(function, begin)


def is_function(given: object) -> bool:
    """Whether a decorator was used bare."""
    return isinstance(given, staticmethod | classmethod) or callable(given)


def applied(decorate: Callable[[Any], Any], given: object) -> Any:
    """The decorated function where the decorator was used bare, else the decorator.

    What cannot be decorated stays as it is.
    """

    def decorator(function: Any) -> Any:
        try:
            return decorate(function) if is_function(function) else function
        except Exception as error:
            lifecycle.debug(f"not decorated: {type(function).__name__}, {type(error).__name__}")
            return function

    return decorator(given) if is_function(given) else decorator


def tool_names(tools: Iterable[object] | None) -> list[str] | None:
    """The names of a decorator's tools, now: a generator could be read only once."""
    return None if tools is None else plain.names(tools)


def _input(input_from: InputFrom, named: dict[str, Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> object:
    """What the user said: the argument that was chosen, else the first that is text."""
    if input_from is None:
        return next((value for value in named.values() if isinstance(value, str)), "")
    try:
        if callable(input_from):
            return input_from(*args, **kwargs)
        return list(named.values())[input_from] if isinstance(input_from, int) else named[input_from]
    except Exception as error:
        lifecycle.debug(f"input_from: {type(error).__name__}", once=f"input_from {input_from!r:.80}")
        return ""


def _function_of(function: Any) -> Any:
    return function.__func__ if isinstance(function, staticmethod | classmethod) else function


def _name_of(function: Any) -> str:
    inner = _function_of(function)
    return plain.name(getattr(inner, "__name__", "") or type(inner).__name__)
