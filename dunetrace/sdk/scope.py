"""Where a run begins and ends: the context manager that `Dunetrace.run` gives, for sync and async code alike."""

from __future__ import annotations

from contextvars import Token
from types import TracebackType

from dunetrace.sdk import plain
from dunetrace.sdk.context import Recorder, RunContext, RunPlan, current_run


class RunScope:
    """The context manager of a run. Nothing is emitted before it is entered."""

    def __init__(self, plan: RunPlan, recorder: Recorder) -> None:
        self._plan = plan
        self._recorder = recorder
        self._run: RunContext | None = None
        self._token: Token[RunContext | None] | None = None

    def __enter__(self) -> RunContext:
        outer = current_run.get()
        parent = plain.name(self._plan.parent_run_id) or (outer.run_id if outer is not None else None)
        self._run = RunContext(self._plan, self._recorder, parent)
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
        run.end(None if _is_orderly(error) else error)

    async def __aenter__(self) -> RunContext:
        return self.__enter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.__exit__(kind, error, traceback)


def _is_orderly(error: BaseException | None) -> bool:
    """Whether this is no error but an end: a consumer that wants no more, an exit with success."""
    return error is None or isinstance(error, GeneratorExit) or (isinstance(error, SystemExit) and not error.code)
