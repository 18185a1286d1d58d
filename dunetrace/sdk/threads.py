"""A thread that is started inside a run belongs to it, and a task given to a pool to the run that gave it.

Python lets context variables follow neither. From the first client on, `threading.Thread.start` and
`ThreadPoolExecutor.submit` take the current run along, and nothing else; outside of a run they do what they did.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from functools import partial, wraps
from typing import Any

from dunetrace.sdk.context import RunContext, current_run, get_current_run
from dunetrace.sdk.scope import current

_POOLS = "concurrent.futures.thread"
_MARK = "__dunetrace_follows__"


def follow() -> None:
    """Have threads follow runs. Idempotent."""
    _replace(threading.Thread, "start", _start)


def _replace(owner: Any, name: str, make: Callable[[Any], Any]) -> None:
    original = getattr(owner, name)
    if hasattr(original, _MARK):
        return
    replacement = wraps(original)(make(original))
    setattr(replacement, _MARK, original)
    setattr(owner, name, replacement)


def _start(original: Any) -> Any:
    def start(self: threading.Thread) -> None:
        run = get_current_run()
        if run is not None:
            if _POOLS in sys.modules:  # a pool may be starting a thread: what else it does is not for this run
                _replace(sys.modules[_POOLS].ThreadPoolExecutor, "submit", _submit)
            self.run = partial(_within, run, self.run)  # type: ignore[method-assign]
        original(self)

    return start


def _submit(original: Any) -> Any:
    def submit(self: Any, fn: Any, /, *args: Any, **kwargs: Any) -> Any:
        return original(self, _within, get_current_run(), fn, *args, **kwargs)

    return submit


def _within(run: RunContext | None, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    if current_run.get() is run:
        return function(*args, **kwargs)
    with current(run):
        return function(*args, **kwargs)
