"""Streamed answers, followed while the agent reads them: what `llm` knows of the clients' streams and responses.

A stream keeps its type and its methods. Its iterator is replaced by one that shows each piece to the call, and its
response tells when it is closed, which is how every way of ending early ends.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Iterator
from typing import Any, Generic, Protocol, TypeVar
from weakref import ref

T = TypeVar("T")


class Call(Protocol):
    """What is told of the stream."""

    stepping: bool

    def take(self, piece: Any) -> None: ...
    def whole(self, result: Any) -> None: ...
    def raised(self, error: BaseException) -> None: ...
    def end(self) -> None: ...
    def closed(self, response: Any, *, is_last: bool) -> bool: ...


def is_stream(result: object) -> bool:
    """Whether this is one of the clients' streams."""
    return hasattr(type(result), "__stream__")


def raw_response(result: object) -> Any:
    """The HTTP response that this is or wraps, None when it is something else."""
    held = getattr(result, "__dict__", {}).get("http_response", result)
    return held if hasattr(type(held), "iter_raw") else None


def follow(stream: Any, call: Call) -> None:
    """Show the pieces of `stream` to `call` as they are read."""
    inner = stream._iterator
    stream._iterator = _AsyncItems(inner, call) if hasattr(inner, "__anext__") else _Items(inner, call)
    _Closing(stream.response, call, is_stream=True)


def await_parse(raw: Any, response: Any, call: Call) -> None:
    """See what the agent makes of a raw response whose body is still to be read."""
    _Closing(response, call, is_stream=False)
    if raw is not response:
        _Parsing(raw, call)


class _Items(Iterator[T], Generic[T]):
    """A stream's iterator. It holds nothing but the one it stands for, so that a dropped stream is closed as before."""

    def __init__(self, inner: Iterator[T], call: Call) -> None:
        self._inner = inner
        self._call = call

    def __getattr__(self, name: str) -> Any:
        return _of_inner(self, name)

    def __next__(self) -> T:
        call = self._call
        call.stepping = True
        try:
            item = next(self._inner)
        except StopIteration:
            call.end()
            raise
        except BaseException as error:
            call.raised(error)
            raise
        finally:
            call.stepping = False
        call.take(item)
        return item


class _AsyncItems(AsyncIterator[T], Generic[T]):
    """The same of an async stream."""

    def __init__(self, inner: AsyncIterator[T], call: Call) -> None:
        self._inner = inner
        self._call = call

    def __getattr__(self, name: str) -> Any:
        return _of_inner(self, name)

    async def __anext__(self) -> T:
        call = self._call
        call.stepping = True
        try:
            item = await self._inner.__anext__()
        except StopAsyncIteration:
            call.end()
            raise
        except BaseException as error:
            call.raised(error)
            raise
        finally:
            call.stepping = False
        call.take(item)
        return item


def _of_inner(items: Any, name: str) -> Any:
    if name.startswith("__"):
        raise AttributeError(name)
    return getattr(items.__dict__["_inner"], name)


class _Closing:
    """Stands in for `close` and `aclose` of one response until a close has answered the call. Holds it weakly, because
    a cycle would keep a dropped response open until the garbage collector comes."""

    def __init__(self, response: Any, call: Call, *, is_stream: bool) -> None:
        self._response = ref(response)
        self._call = call
        self._is_stream = is_stream
        self._was_closed = False
        response.close, response.aclose = self._close, self._aclose

    def _close(self) -> None:
        response = self._response()
        if response is not None:
            try:
                type(response).close(response)
            finally:
                self._closed(response)

    async def _aclose(self) -> None:
        response = self._response()
        if response is not None:
            try:
                await type(response).aclose(response)
            finally:
                self._closed(response)

    def _closed(self, response: Any) -> None:
        # A response that is read whole closes first and has its content after that; its next close is the agent's.
        is_last = self._is_stream or self._was_closed or not response.is_stream_consumed
        self._was_closed = True
        if self._call.closed(response, is_last=is_last):
            vars(response).pop("close", None)
            vars(response).pop("aclose", None)


class _Parsing:
    """Stands in for `parse` of one raw response, once."""

    def __init__(self, raw: Any, call: Call) -> None:
        self._raw = raw
        self._call = call
        raw.parse = self._parse

    def _parse(self, *args: Any, **kwargs: Any) -> Any:
        parsed = type(self._raw).parse(self._raw, *args, **kwargs)
        if hasattr(parsed, "__await__"):
            return self._later(parsed)
        self._seen(parsed)
        return parsed

    async def _later(self, parsing: Awaitable[Any]) -> Any:
        parsed = await parsing
        self._seen(parsed)
        return parsed

    def _seen(self, parsed: Any) -> None:
        if vars(self._raw).pop("parse", None) is None:
            return
        if is_stream(parsed):
            follow(parsed, self._call)
        else:
            self._call.whole(parsed)
