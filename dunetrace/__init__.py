"""Dunetrace watches AI agents at run time. These are the names an agent's code uses.

    from dunetrace import Dunetrace

    dt = Dunetrace()
    with dt.run("my-agent", user_input=question, model="gpt-4o", tools=["search"]) as run:
        call = run.tool_called("search", {"q": question})
        run.tool_responded("search", output=result, call_id=call)
        run.final_answer()

Importing them needs the standard library only and loads nothing of the server; importing the server's own modules
loads nothing of the SDK.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dunetrace.sdk.client import VERSION as __version__  # noqa: N811 - the name packages have
    from dunetrace.sdk.client import Dunetrace, DunetraceClient
    from dunetrace.sdk.context import RunContext, get_current_run
    from dunetrace.sdk.middleware import DunetraceASGIMiddleware, DunetraceWSGIMiddleware
    from dunetrace.sdk.signal import DunetraceSignal

__all__ = [
    "Dunetrace",
    "DunetraceASGIMiddleware",
    "DunetraceClient",
    "DunetraceSignal",
    "DunetraceWSGIMiddleware",
    "RunContext",
    "__version__",
    "get_current_run",
]

_HOMES = {
    "Dunetrace": ("dunetrace.sdk.client", "Dunetrace"),
    "DunetraceASGIMiddleware": ("dunetrace.sdk.middleware", "DunetraceASGIMiddleware"),
    "DunetraceWSGIMiddleware": ("dunetrace.sdk.middleware", "DunetraceWSGIMiddleware"),
    "DunetraceClient": ("dunetrace.sdk.client", "DunetraceClient"),
    "DunetraceSignal": ("dunetrace.sdk.signal", "DunetraceSignal"),
    "RunContext": ("dunetrace.sdk.context", "RunContext"),
    "__version__": ("dunetrace.sdk.client", "VERSION"),
    "get_current_run": ("dunetrace.sdk.context", "get_current_run"),
}


def __getattr__(name: str) -> Any:
    try:
        module, attribute = _HOMES[name]
    except KeyError:
        raise AttributeError(f"module 'dunetrace' has no attribute {name!r}") from None
    from importlib import import_module  # noqa: PLC0415 - nothing is loaded before it is asked for

    value = globals()[name] = getattr(import_module(module), attribute)
    return value
