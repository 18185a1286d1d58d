"""Functions of every kind with something begun before them and ended after: plain, async, and both kinds of generators.

What is begun may be a run, which is then the current one while the function works, and only then: a generator's
consumer, between two items, is not inside of it. Used by `decorators` and `middleware`.
"""

from __future__ import annotations

import inspect
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import AbstractContextManager, nullcontext
from functools import partial, wraps
from typing import Any, Protocol

from dunetrace.sdk.context import RunContext
from dunetrace.sdk.scope import current


class Part(Protocol):
    """Begun when made. `run` is current while the function works; None leaves what is."""

    run: RunContext | None

    def end(self, error: BaseException | None, result: object = None) -> None:
        """The function is done: it raised `error`, or returned `result`."""


Begin = Callable[[tuple[Any, ...], dict[str, Any]], "Part | None"]


def around(function: Any, begin: Begin) -> Any:
    """`function` with a part around each call of it; `begin` gives None for a call that needs none.

    A generator is around for as long as it is consumed. Static and class methods stay what they are.
    """
    if isinstance(function, staticmethod | classmethod):
        return type(function)(around(function.__func__, begin))
    inner = function
    while isinstance(inner, partial):
        inner = inner.func
    if not inspect.isroutine(inner) and not inspect.isclass(inner):
        inner = getattr(type(inner), "__call__", inner)  # noqa: B004 - the method itself is wanted
    if inspect.isasyncgenfunction(inner):
        wrapper = _async_generator(function, begin)
    elif inspect.isgeneratorfunction(inner):
        wrapper = _generator(function, begin)
    elif inspect.iscoroutinefunction(inner):
        wrapper = _coroutine(function, begin)
    else:
        wrapper = _plain(function, begin)
    return wraps(function)(wrapper)


def _working(part: Part) -> AbstractContextManager[None]:
    return nullcontext() if part.run is None else current(part.run)


def _plain(function: Any, begin: Begin) -> Any:
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        part = begin(args, kwargs)
        if part is None:
            return function(*args, **kwargs)
        try:
            with _working(part):
                result = function(*args, **kwargs)
        except BaseException as error:
            part.end(error)
            raise
        part.end(None, result)
        return result

    return wrapper


def _coroutine(function: Any, begin: Begin) -> Any:
    async def wrapper(*args: Any, **kwargs: Any) -> Any:
        part = begin(args, kwargs)
        if part is None:
            return await function(*args, **kwargs)
        try:
            with _working(part):
                result = await function(*args, **kwargs)
        except BaseException as error:
            part.end(error)
            raise
        part.end(None, result)
        return result

    return wrapper


def _generator(function: Any, begin: Begin) -> Any:
    def wrapper(*args: Any, **kwargs: Any) -> Generator[Any, Any, Any]:
        part = begin(args, kwargs)
        if part is None:
            return (yield from function(*args, **kwargs))
        try:
            returned = yield from _driven(function(*args, **kwargs), part)
        except BaseException as error:
            part.end(error)
            raise
        part.end(None)
        return returned

    return wrapper


def _driven(generator: Generator[Any, Any, Any], part: Part) -> Generator[Any, Any, Any]:
    """`yield from generator`, with the part's run current while it works and not between."""
    step: Callable[[], Any] = partial(next, generator)
    while True:
        try:
            with _working(part):
                item = step()
        except StopIteration as stop:
            return stop.value
        try:
            sent = yield item
        except GeneratorExit:
            with _working(part):
                generator.close()
            raise
        except BaseException as thrown:  # noqa: ASYNC103 - for the generator to deal with
            step = partial(generator.throw, thrown)
        else:
            step = partial(generator.send, sent)


def _async_generator(function: Any, begin: Begin) -> Any:
    async def wrapper(*args: Any, **kwargs: Any) -> AsyncGenerator[Any, Any]:
        part = begin(args, kwargs) or _Nothing()
        try:
            generator = function(*args, **kwargs)
            step: Callable[[], Any] = generator.__anext__
            while True:
                try:
                    with _working(part):
                        item = await step()
                except StopAsyncIteration:
                    break
                try:
                    sent = yield item
                except GeneratorExit:
                    with _working(part):
                        await generator.aclose()
                    raise
                except BaseException as thrown:  # noqa: ASYNC103 - as above
                    step = partial(generator.athrow, thrown)
                else:
                    step = partial(generator.asend, sent)
        except BaseException as error:
            part.end(error)
            raise
        part.end(None)

    return wrapper


class _Nothing:
    """The part of a call that needs none."""

    run: RunContext | None = None

    def end(self, error: BaseException | None, result: object = None) -> None:
        """Nothing was begun."""
