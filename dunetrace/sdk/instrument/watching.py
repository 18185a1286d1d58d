"""A method of a library, watched: what it was called with, and what came of it, goes to the run it is called in.

Used by `patching`. The call itself is passed on as it came, and what it gives or raises comes back as it is. While it
lasts nothing else of the same run is recorded: the HTTP request under a model's answer is part of it, and so are
redirects and retries.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextvars import ContextVar, Token
from functools import wraps
from typing import Any, ParamSpec, Protocol, TypeVar, cast

from dunetrace.sdk import lifecycle
from dunetrace.sdk.context import RunContext, current_run
from dunetrace.sdk.signal import DunetraceSignal

P = ParamSpec("P")
R = TypeVar("R")

busy: ContextVar[RunContext | None] = ContextVar("dunetrace_busy", default=None)
"""The run that has a watched call under way here. A run opened under that call is another one and is not busy."""


class Watch(Protocol):
    """One call under way. Neither method need be careful: what they raise, the guard's word apart, is caught."""

    def returned(self, result: Any) -> None:
        """The call gave `result`."""

    def raised(self, error: BaseException) -> None:
        """The call ended so; BaseExceptions that are no Exceptions are cancellations and the like."""


Begin = Callable[[RunContext, tuple[Any, ...], Mapping[str, Any]], Watch | None]
"""Given the run and the call's arguments: records the call, or gives None when it is none to record."""


class Switch(Protocol):
    """Whether calls are watched at all."""

    on: bool


def watched(original: Callable[P, R], begin: Begin, switch: Switch) -> Callable[P, R]:
    """`original`, watched inside runs; an async function stays one."""
    import inspect  # noqa: PLC0415 - whoever has a library to watch has loaded it

    if inspect.iscoroutinefunction(inspect.unwrap(original)):
        return cast("Callable[P, R]", _watched_async(cast("Callable[P, Any]", original), begin, switch))

    @wraps(original)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        run = current_run.get()
        if run is None or not switch.on or busy.get() is run:
            return original(*args, **kwargs)
        token = busy.set(run)
        try:
            watch = _begun(begin, run, args, kwargs)
            try:
                result = original(*args, **kwargs)
            except BaseException as error:
                _raised(watch, error)
                raise
            _returned(watch, result)
            return result
        finally:
            leave(token)

    return call


def _watched_async(original: Callable[P, Any], begin: Begin, switch: Switch) -> Callable[P, Any]:
    @wraps(original)
    async def call(*args: P.args, **kwargs: P.kwargs) -> Any:
        run = current_run.get()
        if run is None or not switch.on or busy.get() is run:
            return await original(*args, **kwargs)
        token = busy.set(run)
        try:
            watch = _begun(begin, run, args, kwargs)
            try:
                result = await original(*args, **kwargs)
            except BaseException as error:
                _raised(watch, error)
                raise
            _returned(watch, result)
            return result
        finally:
            leave(token)

    return call


def leave(token: Token[RunContext | None]) -> None:
    """End what `busy.set` began; in another context, as where a coroutine is closed, there is nothing to end."""
    try:
        busy.reset(token)
    except ValueError:
        lifecycle.debug("instrument: closed in another context", once="closed in another context")


def _begun(begin: Begin, run: RunContext, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Watch | None:
    try:
        return begin(run, args, kwargs)
    except DunetraceSignal:
        raise
    except Exception as error:  # arguments the library itself will complain about
        lifecycle.debug(f"instrument: {type(error).__name__}")
        return None


def _returned(watch: Watch | None, result: object) -> None:
    if watch is None:
        return
    try:
        watch.returned(result)
    except DunetraceSignal:
        raise
    except Exception as error:
        lifecycle.debug(f"instrument: {type(error).__name__}")


def _raised(watch: Watch | None, error: BaseException) -> None:
    if watch is None:
        return
    try:
        watch.raised(error)
    except DunetraceSignal:
        if isinstance(error, Exception):  # nothing may take a cancellation's place
            raise
    except Exception as fault:
        lifecycle.debug(f"instrument: {type(fault).__name__}")
