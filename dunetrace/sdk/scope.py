"""Where a run begins and ends: the context manager that `Dunetrace.run` gives, for sync and async code alike.

What runs piece by piece, a generator or a response, begins and ends its run by hand and has it current while it works.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import Token
from types import TracebackType

from dunetrace.sdk import plain
from dunetrace.sdk.context import Recorder, RunContext, RunPlan, current_run, get_current_run


class RunScope:
    """The context manager of a run. Nothing is emitted before it is entered."""

    def __init__(self, plan: RunPlan, recorder: Recorder) -> None:
        self._plan = plan
        self._recorder = recorder
        self._run: RunContext | None = None
        self._token: Token[RunContext | None] | None = None

    def begin(self) -> RunContext:
        """The run, begun; it is nobody's current run by that."""
        outer = get_current_run()
        parent = plain.name(self._plan.parent_run_id) or (outer.run_id if outer is not None else None)
        return RunContext(self._plan, self._recorder, parent)

    def __enter__(self) -> RunContext:
        self._run = self.begin()
        self._token = current_run.set(self._run)
        return self._run

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        run, token = self._run, self._token
        if run is None or token is None:
            return
        self._run = self._token = None
        try:
            current_run.reset(token)
        except ValueError:  # closed in another context than it was opened in, as async generators are
            if current_run.get() is run:
                current_run.set(None)
        end(run, error)

    async def __aenter__(self) -> RunContext:
        return self.__enter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.__exit__(kind, error, traceback)


@contextmanager
def current(run: RunContext | None) -> Iterator[None]:
    """Have `run` be the current one for the length of the block."""
    token = current_run.set(run)
    try:
        yield
    finally:
        current_run.reset(token)


def end(run: RunContext, error: BaseException | None) -> None:
    """Say how the run ended: a consumer that wants no more, or an exit with success, is no error but an end."""
    is_orderly = isinstance(error, GeneratorExit) or (isinstance(error, SystemExit) and not error.code)
    run.end(None if is_orderly else error)
