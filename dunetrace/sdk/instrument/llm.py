"""A call of a model, from the request to the end of its answer. What `openai` and `anthropic` have in common.

Both clients send everything through one method, `request`, retries included. It gives a whole answer, a stream, or a
raw response that the agent reads as it likes; in each case the call is answered once, when the answer has ended.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from dunetrace.sdk import lifecycle
from dunetrace.sdk.context import RunContext
from dunetrace.sdk.instrument import streams
from dunetrace.sdk.instrument.answers import Answer, Pieces
from dunetrace.sdk.instrument.http import told
from dunetrace.sdk.instrument.watching import Begin, busy, leave


def watching(endpoints: Mapping[str, Callable[[], Pieces]]) -> Begin:
    """Watches a client's `request(cast_to, options, ...)` for POSTs to these paths; others are none of a model's."""

    def begin(run: RunContext, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> LlmCall | None:
        options = kwargs["options"] if "options" in kwargs else args[2]
        pieces = endpoints.get(options.url.partition("?")[0])
        if pieces is None or options.method.lower() != "post":
            return None
        body = options.json_data
        model = body.get("model") if isinstance(body, Mapping) else None
        return LlmCall(run, model if isinstance(model, str) else "unknown", pieces())

    return begin


class LlmCall:
    """One call of a model. It is answered by whatever ends it first; dropped without an end, when it is let go."""

    def __init__(self, run: RunContext, model: str, pieces: Pieces) -> None:
        self._run = run
        self._pieces = pieces
        self._taken = False
        self._open = [pieces]  # empty once it is answered: taking out is one step, whichever thread does it
        self._began_s = time.perf_counter()
        self._latency_ms: float | None = None
        self.stepping = False  # whether a piece is being waited for, so that its outcome will be told
        self._call_id = run.llm_called(model)

    # ---- what `request` gave

    def returned(self, result: Any) -> None:
        """A stream, a raw response, or the whole answer."""
        response = streams.raw_response(result)
        if streams.is_stream(result):
            streams.follow(result, self)
        elif response is None:
            self.whole(result)
        elif response.is_closed:
            self._read(response)
            self.end()
        else:
            streams.await_parse(result, response, self)

    def raised(self, error: BaseException) -> None:
        """There is no answer, or one that the client would not parse and gives with the error."""
        completion = getattr(error, "completion", None)
        if completion is not None:
            self.take(completion)
        self.end(error)

    # ---- how the answer comes

    def take(self, piece: Any) -> None:
        """A piece of it."""
        try:
            self._pieces.take(piece)
            self._taken = True
        except Exception as error:
            lifecycle.debug(f"instrument: a piece of an answer: {type(error).__name__}", once=f"piece {type(error)}")

    def whole(self, result: Any) -> None:
        """All of it."""
        self.take(result)
        self.end()

    def closed(self, response: Any, *, is_last: bool) -> bool:
        """The response was closed; whether that answers the call, as the last close does in any case."""
        self._latency_ms = self._latency_ms or self._elapsed_ms()
        if self.stepping:
            return True
        if not self._taken and not self._read(response) and not is_last:
            return False
        self.end()
        return True

    def end(self, error: BaseException | None = None) -> None:
        """It has ended, with what is known by now."""
        try:
            pieces = self._open.pop()
        except IndexError:
            return
        answer = _answer(pieces)
        token = busy.set(self._run)
        try:
            self._run.llm_responded(
                answer.completion_tokens,
                self._latency_ms or self._elapsed_ms(),
                answer.finish_reason,
                output_length=answer.length,
                output=answer.text,
                prompt_tokens=answer.prompt_tokens,
                cached_prompt_tokens=answer.cached_prompt_tokens,
                error=answer.error if error is None else told(error),
                call_id=self._call_id,
            )
        finally:
            leave(token)

    def __del__(self) -> None:
        try:
            self.end()
        except Exception:  # the guard's word has nobody to go to, and at the process's end everything may be gone
            return

    def _elapsed_ms(self) -> float:
        return round((time.perf_counter() - self._began_s) * 1000, 3)

    def _read(self, response: Any) -> bool:
        """Take a raw response's body as JSON, where it has been read."""
        import json  # noqa: PLC0415 - whoever has a response has loaded it

        try:
            self.take(json.loads(response.content))
        except Exception:  # not read, or no JSON
            return False
        return True


def _answer(pieces: Pieces) -> Answer:
    try:
        return pieces.answer()
    except Exception as error:
        lifecycle.debug(f"instrument: an answer: {type(error).__name__}", once=f"answer {type(error)}")
        return Answer()
