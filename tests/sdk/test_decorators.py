"""Decorated functions of every kind: what they record, and that they stay what they were."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Callable, Iterator
from functools import partial
from typing import Any

import pytest
import trio

from dunetrace import Dunetrace, get_current_run
from dunetrace.hashing import Hasher
from tests.sdk.sink import Sink

Make = Callable[..., Dunetrace]


@pytest.fixture
def dt(client: Make) -> Dunetrace:
    return client()


def _events(dt: Dunetrace, sink: Sink) -> list[dict[str, Any]]:
    assert dt.flush(10)
    return sink.accepted


def _told(dt: Dunetrace, sink: Sink) -> list[str]:
    return [event["event_type"] for event in sorted(_events(dt, sink), key=lambda event: event["timestamp"])]


def test_an_agent_is_a_run(dt: Dunetrace, sink: Sink) -> None:
    @dt.agent("support", model="gpt-4o", tools=["search"], system_prompt="Be kind.")
    def answer(customer: int, question: str) -> str:
        """Doc."""
        assert (run := get_current_run()) is not None
        assert run.agent_id == "support"
        return question.upper()

    assert answer(7, question="why?") == "WHY?"
    assert (answer.__name__, answer.__doc__) == ("answer", "Doc.")
    assert list(inspect.signature(answer).parameters) == ["customer", "question"]
    started, completed = _events(dt, sink)
    assert started["payload"]["input_hash"] == Hasher().text("why?")
    assert (started["payload"]["model"], started["payload"]["tools"]) == ("gpt-4o", ["search"])
    assert completed["payload"]["exit_reason"] == "final_answer"
    assert get_current_run() is None


@pytest.mark.parametrize(
    ("input_from", "said"),
    [("b", "second"), (1, "second"), (lambda a, b: a + b, "firstsecond"), ("nobody", ""), (9, ""), (None, "first")],
)
def test_what_the_user_said_is_an_argument(dt: Dunetrace, sink: Sink, input_from: Any, said: str) -> None:
    @dt.agent("a", input_from=input_from)
    def answer(a: str, b: str) -> None: ...

    answer("first", b="second")
    assert _events(dt, sink)[0]["payload"]["input_hash"] == Hasher().text(said)


def test_names(client: Make, sink: Sink, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DUNETRACE_AGENT_ID", "by default")
    dt = client()

    def helper() -> None: ...

    for decorated in (dt.agent(helper), dt.agent()(helper), dt.agent("named")(helper), dt.trace(helper)):
        decorated()
    assert [event["agent_id"] for event in _events(dt, sink)[::2]] == ["by default", "by default", "named", "helper"]


def test_a_trace_in_a_run_is_a_run_beneath_it(dt: Dunetrace, sink: Sink) -> None:
    @dt.trace
    def inner() -> None: ...

    with dt.run("outer") as run:
        inner()
        assert get_current_run() is run
    assert {event["parent_run_id"] for event in _events(dt, sink) if event["agent_id"] == "inner"} == {run.run_id}


def test_what_is_raised_ends_the_run_and_comes_through(dt: Dunetrace, sink: Sink) -> None:
    @dt.agent("a")
    def answer() -> None:
        raise LookupError("secret")

    with pytest.raises(LookupError, match="secret"):
        answer()
    assert _events(dt, sink)[-1]["payload"]["error_type"] == "LookupError"


def test_a_tool_is_a_call_of_the_run_it_is_in(dt: Dunetrace, sink: Sink) -> None:
    @dt.tool
    def search(query: str, limit: int = 3) -> list[str]:
        return [query]

    @dt.tool("other name")
    def failing() -> None:
        raise ValueError("no")

    assert search("outside") == ["outside"]
    with dt.run("a"):
        assert search("x", limit=2) == ["x"]
        with pytest.raises(ValueError, match="no"):
            failing()
    _, called, responded, _, failed, _ = _events(dt, sink)
    assert called["payload"]["tool_name"] == "search"
    assert called["payload"]["args_hash"] == Hasher().text('{"limit":2,"query":"x"}')
    assert responded["payload"]["success"] and responded["payload"]["call_id"] == called["payload"]["call_id"]
    assert not failed["payload"]["success"] and failed["payload"]["error_hash"]
    assert failed["payload"]["tool_name"] == "other name"


class Desk:
    """What methods of all kinds are decorated in."""

    def __init__(self, dt: Dunetrace) -> None:
        class Inner:
            @dt.tool
            def method(self, x: int) -> int:
                return x

            @dt.tool
            @classmethod
            def of_class(cls, x: int) -> int:
                return x

            @dt.tool
            @staticmethod
            def static(x: int) -> int:
                return x

            @staticmethod
            @dt.tool
            def inside(x: int) -> int:
                return x

        self.inner = Inner()


def test_methods_of_all_kinds_and_no_self_in_their_arguments(dt: Dunetrace, sink: Sink) -> None:
    desk: Any = Desk(dt).inner
    with dt.run("a"):
        assert [desk.method(1), desk.of_class(1), desk.static(1), desk.inside(1), type(desk).of_class(1)] == [1] * 5
    calls = [event["payload"] for event in _events(dt, sink) if event["event_type"] == "tool.called"]
    assert [call["tool_name"] for call in calls] == ["method", "of_class", "static", "inside", "of_class"]
    assert {call["args_hash"] for call in calls} == {Hasher().text('{"x":1}')}


def test_wrong_arguments_are_for_the_function_to_refuse(dt: Dunetrace, sink: Sink) -> None:
    @dt.tool
    def search(query: str) -> None: ...

    with dt.run("a"), pytest.raises(TypeError, match="missing 1 required"):
        search()  # type: ignore[call-arg]
    assert _events(dt, sink)[2]["payload"]["success"] is False


def test_coroutines_on_asyncio_and_trio(dt: Dunetrace, sink: Sink) -> None:
    @dt.tool
    async def search(query: str) -> str:
        await _breath()
        return query

    @dt.agent("a")
    async def answer(question: str) -> str:
        return await search(question)

    async def many() -> list[str]:
        return list(await asyncio.gather(*map(answer, "xyz")))

    assert inspect.iscoroutinefunction(answer) and inspect.iscoroutinefunction(search)
    assert asyncio.run(many()) == ["x", "y", "z"]
    assert trio.run(answer, "t") == "t"
    runs: dict[str, list[str]] = {}
    for event in _events(dt, sink):
        runs.setdefault(event["run_id"], []).append(event["event_type"])
    assert list(runs.values()) == [["run.started", "tool.called", "tool.responded", "run.completed"]] * 4


async def _breath() -> None:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        await trio.lowlevel.checkpoint()
    else:
        await asyncio.sleep(0)


def test_a_generator_is_a_run_while_it_works(dt: Dunetrace, sink: Sink) -> None:
    @dt.agent("a")
    def words(question: str) -> Iterator[str]:
        for word in question.split():
            assert (run := get_current_run()) is not None
            assert run.agent_id == "a"
            yield word

    assert inspect.isgeneratorfunction(words)
    for word in words("one two"):
        assert word in ("one", "two")
        assert get_current_run() is None  # its consumer is not inside of it
    assert _events(dt, sink)[-1]["payload"]["exit_reason"] == "final_answer"


def test_a_generator_can_be_spoken_to(dt: Dunetrace) -> None:
    @dt.trace
    def echo() -> Any:
        heard = yield "ready"
        try:
            yield heard
        except KeyError:
            yield "caught"
        return "done"

    spoken = echo()
    assert (next(spoken), spoken.send("hello"), spoken.throw(KeyError())) == ("ready", "hello", "caught")
    with pytest.raises(StopIteration) as stop:
        next(spoken)
    assert stop.value.value == "done"


def test_a_generator_that_is_closed_early_ends_in_order(dt: Dunetrace, sink: Sink) -> None:
    closed = []

    @dt.trace
    def words() -> Iterator[int]:
        try:
            yield 1
            yield 2
        finally:
            closed.append(get_current_run())

    one = words()
    assert next(one) == 1
    one.close()  # type: ignore[attr-defined]
    assert len(closed) == 1 and closed[0] is not None
    assert _events(dt, sink)[-1]["payload"]["exit_reason"] == "completed"


async def _async_words(dt: Dunetrace, decorate: Any) -> None:
    @decorate
    async def words(question: str) -> AsyncIterator[str]:
        try:
            for word in question.split():
                yield word
        finally:
            await asyncio.sleep(0)

    assert inspect.isasyncgenfunction(words)
    with dt.run("outer") as run:
        assert [word async for word in words("one two")] == ["one", "two"]
        started = words("three four")
        assert await anext(started) == "three"
        await started.aclose()
        assert get_current_run() is run


@pytest.mark.parametrize("kind", ["tool", "trace"])
def test_asynchronous_generators(dt: Dunetrace, sink: Sink, kind: str) -> None:
    asyncio.run(_async_words(dt, getattr(dt, kind)))
    inner = {"tool": ["tool.called", "tool.responded"], "trace": ["run.started", "run.completed"]}[kind]
    assert _told(dt, sink) == ["run.started", *inner, *inner, "run.completed"]


def test_an_asynchronous_generator_can_be_spoken_to(dt: Dunetrace) -> None:
    @dt.trace
    async def echo() -> Any:
        heard = yield "ready"
        try:
            yield heard
        except KeyError:
            yield "caught"

    async def speak() -> tuple[str, ...]:
        spoken = echo()
        return await anext(spoken), await spoken.asend("hello"), await spoken.athrow(KeyError())

    assert asyncio.run(speak()) == ("ready", "hello", "caught")


class Callee:
    def __call__(self, x: str) -> str:
        return x


class AsyncCallee:
    async def __call__(self, x: str) -> str:
        return x


def test_other_things_that_can_be_called(dt: Dunetrace, sink: Sink) -> None:
    async def later(a: int, x: str) -> str:
        return x

    with dt.run("a"):
        assert dt.tool(Callee())("x") == "x"
        assert dt.tool(len)("xyz") == 3
        assert asyncio.run(dt.tool(AsyncCallee())("y")) == "y"
        assert asyncio.run(dt.tool(partial(later, 1))("z")) == "z"
    names = [event["payload"]["tool_name"] for event in _events(dt, sink) if event["event_type"] == "tool.called"]
    assert names == ["Callee", "len", "AsyncCallee", "partial"]


def test_recursion_is_runs_beneath_runs(dt: Dunetrace, sink: Sink) -> None:
    @dt.trace
    def count(n: int) -> int:
        return n and 1 + count(n - 1)  # type: ignore[no-any-return]

    assert count(3) == 3
    parents = [event["parent_run_id"] for event in _events(dt, sink) if event["event_type"] == "run.started"]
    assert parents[0] is None and len(set(parents)) == 4


@pytest.mark.parametrize("odd", [5, None, object(), [], b"name"], ids=["number", "none", "object", "list", "bytes"])
def test_odd_arguments_decorate_all_the_same(dt: Dunetrace, odd: Any) -> None:
    def function(x: int) -> int:
        return x

    for decorator in (dt.tool(odd), dt.agent(odd), dt.trace(odd), dt.agent(model=odd, tools=odd, system_prompt=odd)):
        assert decorator(function)(3) == 3
    assert dt.tool("name")(odd) is odd
