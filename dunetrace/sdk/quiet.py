"""The wall between the SDK's faults and the agent: a public method that fails says so in a debug line and goes on.

Only the guard's `DunetraceSignal` passes it.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

from dunetrace.sdk import lifecycle
from dunetrace.sdk.signal import DunetraceSignal

P = ParamSpec("P")
R = TypeVar("R")


def quiet(fallback: R) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Make a function give `fallback` instead of raising. Keyword arguments it does not know are left out."""

    def wrap(function: Callable[P, R]) -> Callable[P, R]:
        code = function.__code__
        known = frozenset(code.co_varnames[: code.co_argcount + code.co_kwonlyargcount])
        takes_any = bool(code.co_flags & 0x08)  # **kwargs

        @wraps(function)
        def quietly(*args: P.args, **kwargs: P.kwargs) -> R:
            try:
                return function(*args, **kwargs)
            except DunetraceSignal:
                raise  # the guard's word, which was asked for
            except Exception as error:
                unknown = () if takes_any else kwargs.keys() - known
                if not unknown:
                    lifecycle.debug(f"{function.__qualname__}: {type(error).__name__}")
                    return fallback
            for keyword in unknown:
                lifecycle.debug(f"{function.__qualname__}: unknown argument {keyword!r}", once=f"{code!r} {keyword}")
            return quietly(*args, **{k: v for k, v in kwargs.items() if k in known})  # type: ignore[arg-type]

        return quietly

    return wrap
