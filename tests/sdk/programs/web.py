"""A WSGI application for gunicorn: each request is a run, answered with the run's id.

The client is made when the module is imported: with `preload_app` before the workers are forked, otherwise in each.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from dunetrace import Dunetrace
from tests.sdk.programs.work import one_run

dt = Dunetrace(flush_interval_ms=60_000)
one_run(dt, "import")  # so that a preloaded client's drain thread runs when workers are forked


def app(environ: dict[str, Any], start_response: Callable[..., object]) -> Iterable[bytes]:
    run_id = one_run(dt, "web")
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [run_id.encode()]
