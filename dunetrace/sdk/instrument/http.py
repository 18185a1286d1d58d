"""An HTTP call as a tool named by its host. What `httpx` and `requests` have in common.

Method, URL and a body that is in memory anyway are the arguments, hashed as any; headers are never looked at but for a
length. A body that streams is left to the agent: the call has then been answered when its head has come.
"""

from __future__ import annotations

from collections.abc import Mapping

from dunetrace.sdk import plain
from dunetrace.sdk.context import RunContext

_MOST_BYTES = 1024 * 1024  # of a body that is hashed; of a larger one the length is told


class HttpCall:
    """One request under way. `body` counts when it is bytes or text."""

    def __init__(self, run: RunContext, host: str, method: str, url: str, body: object) -> None:
        args = {"method": method, "url": url}
        if isinstance(body, bytes | str) and body:
            args["body"] = _text(body) or f"<{len(body)}>"
        self._run = run
        self._host = host or "unknown"
        self._call_id = run.tool_called(self._host, args)

    def answered(self, status: int, body: bytes | None, headers: Mapping[str, str]) -> None:
        """The server answered; `body` is None where it is still to be read."""
        success = status < 400
        self._run.tool_responded(
            self._host,
            success,
            output_length=_declared(headers) if body is None else len(body),
            error=None if success else f"HTTP {status}",
            output=None if body is None else _text(body),
            call_id=self._call_id,
        )

    def raised(self, error: BaseException) -> None:
        """There is no answer: no connection, too late, cancelled."""
        self._run.tool_responded(self._host, False, error=told(error), call_id=self._call_id)


def told(error: BaseException) -> str:
    """What an error says, or what it is called."""
    return plain.text(error) or type(error).__name__


def _text(body: bytes | str) -> str | None:
    if len(body) > _MOST_BYTES:
        return None
    if isinstance(body, str):
        return body
    try:
        return body.decode()
    except UnicodeDecodeError:
        return body.decode("latin-1")


def _declared(headers: Mapping[str, str]) -> int | None:
    """The body's length as the server announced it, in bytes; None where it is coded, or there may be no body."""
    if headers.get("content-encoding"):
        return None
    length = headers.get("content-length") or ""
    return int(length) if length.isascii() and length.isdigit() else None
