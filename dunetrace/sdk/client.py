"""`Dunetrace`: what a user makes once, gives runs from, and closes. It ties settings, outputs and runs together."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final, Literal, TypeVar, overload
from weakref import finalize

from dunetrace.hashing import Hasher
from dunetrace.sdk import lifecycle, plain, settings, threads
from dunetrace.sdk.content import Backlog, Content, Unawaited
from dunetrace.sdk.context import Recorder, RunPlan, numbers
from dunetrace.sdk.outputs import Output, is_output
from dunetrace.sdk.posting import HttpOutput
from dunetrace.sdk.quiet import quiet
from dunetrace.sdk.scope import RunScope
from dunetrace.sdk.settings import UNSET, Unset
from dunetrace.sdk.shipper import Shipper

if TYPE_CHECKING:
    from dunetrace.sdk.decorators import InputFrom
    from dunetrace.sdk.guard import Guard
    from dunetrace.sdk.signal import DunetraceSignal

F = TypeVar("F", bound=Callable[..., Any])

VERSION: Final = "1.0.0.dev0"
_RETIRE_TIMEOUT_S = 60.0


class Dunetrace:
    """Records what agents do and ships it, hashed, in the background. One for a process is enough.

    Anything not given comes from the environment (``DUNETRACE_ENDPOINT``, ``DUNETRACE_API_KEY``,
    ``DUNETRACE_HASH_KEY``); an argument given, None included, wins. `endpoint=None` sends nothing over HTTP.
    `buffer_size` is in events; `emit_as_json` also writes each event to stdout; `otel_exporter` is one more output;
    `hash_key` makes digests of short values impossible to look up. ``DUNETRACE_DISABLED=1`` switches everything off.

    `on_signal` is the guard: what shows while a run goes on is told inside the agent, by a line on stderr ("warn"), by
    raising `DunetraceSignal` out of the method that reported it ("raise"; from HIGH on), or to a function. `limits` are
    its thresholds, as the ``default`` section of detectors.yml: ``{"tool_loop": {"threshold": 4}}``.
    """

    def __init__(
        self,
        endpoint: str | Unset | None = UNSET,
        api_key: str | Unset | None = UNSET,
        *,
        buffer_size: int = settings.DEFAULT_BUFFER_SIZE,
        flush_interval_ms: float = settings.DEFAULT_FLUSH_INTERVAL_MS,
        emit_as_json: bool = False,
        otel_exporter: object = None,
        debug: bool = False,
        hash_key: str | bytes | Unset | None = UNSET,
        on_signal: Literal["warn", "raise"] | Callable[[DunetraceSignal], object] | None = None,
        limits: Mapping[str, Mapping[str, object]] | None = None,
        **unknown: object,
    ) -> None:
        self._settings = settings.read(
            endpoint=endpoint,
            api_key=api_key,
            hash_key=hash_key,
            buffer_size=buffer_size,
            flush_interval_ms=flush_interval_ms,
            emit_as_json=emit_as_json,
            debug=debug,
        )
        self._agent_id = self._settings.agent_id
        if self._settings.debug:
            lifecycle.speak_up()
        for keyword in unknown:
            lifecycle.debug(f"Dunetrace: unknown argument {keyword!r}", once=f"Dunetrace {keyword}")
        backlog = Backlog(self._settings.buffer_size)
        self._shippers = [self._shipper(output, backlog) for output in self._outputs(otel_exporter)]
        if not self._shippers:
            backlog = Unawaited(0)
        guard = None if on_signal is None or self._settings.disabled else _guard(on_signal, limits)
        hasher = Hasher(self._settings.hash_key)
        self._recorder = Recorder(
            rings=tuple(shipper.ring for shipper in self._shippers),
            content=Content(hasher, backlog) if guard is None else guard.content(hasher, backlog),
            version=f"dunetrace-python/{VERSION}",
            disabled=self._settings.disabled,
            guard=guard,
        )
        if not self._settings.disabled:
            threads.follow()
        # When neither the client nor a run of its is held any more, what it took is shipped and its threads end.
        finalize(self._recorder.content, _retire, self._shippers).atexit = False

    def _outputs(self, otel_exporter: object) -> list[Output]:
        if self._settings.disabled:
            return []
        outputs: list[Output] = []
        if self._settings.endpoint is not None:
            outputs.append(HttpOutput(self._settings.endpoint, self._settings.api_key, VERSION))
        if self._settings.emit_as_json:
            outputs.append(_ndjson())
        if is_output(otel_exporter):
            outputs.append(otel_exporter)
        elif otel_exporter is not None:
            lifecycle.debug(f"otel_exporter: {type(otel_exporter).__name__} is not an output, it gets no events")
        return outputs

    def _shipper(self, output: Output, backlog: Backlog) -> Shipper:
        return Shipper(
            output,
            capacity=self._settings.buffer_size,
            interval_s=self._settings.flush_interval_s,
            backlog=backlog,
        )

    def run(
        self,
        agent_id: str = "",
        *,
        user_input: str | None = "",
        system_prompt: str | None = "",
        model: str = "unknown",
        tools: Iterable[object] | None = None,
        parent_run_id: str | None = None,
        run_id: str | None = None,
        task: str | None = None,
        **unknown: object,
    ) -> RunScope:
        """A run of `agent_id`, as a context manager, ``with`` or ``async with``, that gives a `RunContext`.

        `user_input`, `system_prompt` and `task` are hashed here; `parent_run_id` is the run this one is opened in
        unless it is given; `agent_id` left out is ``DUNETRACE_AGENT_ID``.

        >>> with dt.run("support", user_input="Where is it?", model="gpt-4o", tools=["search"]) as run:
        ...     run.final_answer()
        >>> run.exit_reason
        'final_answer'
        """
        for keyword in unknown:
            lifecycle.debug(f"run: unknown argument {keyword!r}", once=f"run {keyword}")
        name = plain.name(agent_id) or plain.name(self._agent_id) or "agent"
        plan = RunPlan(name, user_input, system_prompt, model, tools, parent_run_id, run_id, task)
        return RunScope(plan, self._recorder)

    def agent(
        self,
        agent_id: str | F = "",
        *,
        model: str = "unknown",
        tools: Iterable[object] | None = None,
        system_prompt: str | None = "",
        input_from: InputFrom = None,
    ) -> Any:
        """Decorate a function that is an agent: each call of it is a run, what it returns is its final answer.

        Plain functions, coroutines and generators of both kinds. Without `agent_id` the run belongs to the client's
        default agent, else to one named like the function. The user's input is the argument `input_from`, by name or
        place, or what that function makes of the arguments; else the first that is text.

        >>> @dt.agent("support", model="gpt-4o", tools=["search"], input_from="question")
        ... def answer(question, customer):
        ...     return f"{customer}: it is in section 3"
        >>> answer("Where is it?", customer="Ada")
        'Ada: it is in section 3'
        """
        return self._as_run(agent_id, self._agent_id, input_from, model=model, tools=tools, system_prompt=system_prompt)

    def trace(
        self,
        agent_id: str | F = "",
        *,
        model: str = "unknown",
        tools: Iterable[object] | None = None,
        system_prompt: str | None = "",
        input_from: InputFrom = None,
    ) -> Any:
        """The same as `agent`, for a function that is an agent of its own: without `agent_id` it is named like it.

        Called inside a run it is a run beneath that one.

        >>> @dt.trace
        ... def summarise(text):
        ...     return text[:10]
        >>> summarise("A long story about a whale")
        'A long sto'
        """
        return self._as_run(agent_id, "", input_from, model=model, tools=tools, system_prompt=system_prompt)

    def _as_run(self, agent_id: Any, default: str, input_from: InputFrom, *, tools: Any, **opening: Any) -> Any:
        from dunetrace.sdk import decorators  # noqa: PLC0415 - `inspect` is a tenth of the import time

        names = decorators.tool_names(tools)
        given = "" if decorators.is_function(agent_id) else plain.name(agent_id)

        def open_run(called: str, user_input: object) -> RunScope:
            return self.run(given or default or called, user_input=user_input, tools=names, **opening)  # type: ignore[arg-type]

        return decorators.applied(lambda function: decorators.as_run(function, open_run, input_from), agent_id)

    @overload
    def tool(self, name: F, /) -> F: ...
    @overload
    def tool(self, name: str = "") -> Callable[[F], F]: ...
    def tool(self, name: Any = "") -> Any:
        """Decorate a function that is a tool, bare or with a name: each call of it inside a run is a tool call of that.

        Its arguments, result and error are hashed and measured. Outside of any run it is just the function.

        >>> @dt.tool
        ... def search(query):
        ...     return ["section 3"]
        >>> with dt.run("support") as run:
        ...     found = search("refunds")
        >>> run.step
        1
        """
        from dunetrace.sdk import decorators  # noqa: PLC0415 - as above

        given = "" if decorators.is_function(name) else plain.name(name)
        return decorators.applied(lambda function: decorators.as_tool(function, given), name)

    def init(self, agent_id: str = "", frameworks: Iterable[str] | None = None) -> list[str]:
        """Name the agent of runs that name none, and instrument libraries: `auto_instrument`, whose answer it gives.

        >>> dt.init("support", frameworks=["httpx"])
        ['httpx']
        """
        self._agent_id = plain.name(agent_id) or self._agent_id
        return self.auto_instrument(frameworks)

    def auto_instrument(self, frameworks: Iterable[str] | None = None) -> list[str]:
        """Record what these libraries do inside runs, of any client; those that are recorded now.

        ``httpx``, ``requests``, ``openai`` and ``anthropic``; left out: all that are installed. Undone by
        `dunetrace.sdk.instrument.remove`.

        >>> "httpx" in dt.auto_instrument()
        True
        """
        if self._settings.disabled:
            return []
        from dunetrace.sdk.instrument import install  # noqa: PLC0415 - for those who ask

        return install(frameworks)

    @quiet(fallback=None)
    def mark_deploy(self, agent_id: str, version: str) -> None:
        """Note that `version` of the agent is live from now on; sent in the background, shown as a mark on trends.

        >>> dt.mark_deploy("support", "2f1c9ab0")
        """
        for shipper in self._shippers:
            if isinstance(shipper.output, HttpOutput):
                shipper.call(shipper.output.deploy(plain.name(agent_id), plain.name(version)))

    @quiet(fallback=False)
    def flush(self, timeout: float = 5.0) -> bool:
        """Send what waits, for at most `timeout` seconds. True only when every event since the last flush arrived.

        >>> dt.flush(timeout=5.0)
        True
        """
        deadline = time.monotonic() + float(timeout)
        up_to = next(numbers)
        answers = [shipper.flush(up_to, max(0.0, deadline - time.monotonic())) for shipper in self._shippers]
        return all(answers)

    @quiet(fallback=False)
    def shutdown(self, timeout: float = 5.0) -> bool:
        """Send what waits, for at most `timeout` seconds, and stop. True when every event since the last flush arrived.

        Events emitted afterwards are dropped and counted.

        >>> dt.shutdown(timeout=5.0)
        True
        """
        deadline = time.monotonic() + float(timeout)
        for shipper in self._shippers:
            shipper.begin_stop(deadline, patient=True)
        answers = [shipper.finish_stop(deadline) for shipper in self._shippers]
        return all(answers)

    def stats(self) -> dict[str, dict[str, int]]:
        """For each output (`http`, `ndjson`, `otel`): events emitted, acknowledged, rejected, dropped,
        waiting; attempts.

        >>> sorted(dt.stats()["http"])
        ['acknowledged', 'attempts', 'dropped', 'emitted', 'rejected', 'waiting']
        """
        return {s.output.name: s.ring.stats() | {"attempts": s.attempts} for s in self._shippers}


def _guard(on_signal: object, limits: object) -> Guard:
    lifecycle.load(("dunetrace.sdk.guard",))
    from dunetrace.sdk.guard import Guard  # noqa: PLC0415 - with all detectors, only for those who ask

    return Guard(on_signal, limits)


def _ndjson() -> Output:
    lifecycle.load(("dunetrace.sdk.ndjson",))
    from dunetrace.sdk.ndjson import NdjsonOutput  # noqa: PLC0415 - only for those who ask

    return NdjsonOutput()


def _retire(shippers: list[Shipper]) -> None:
    deadline = time.monotonic() + _RETIRE_TIMEOUT_S
    for shipper in shippers:
        shipper.retire(deadline)


DunetraceClient = Dunetrace
