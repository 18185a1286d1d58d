"""A request's body as it was sent: decoded strictly and fast, and tolerantly only when that fails.

The strict decoder checks every field in C. Where it refuses anything at all, the tolerant one reads the body as
Python's own `json` writes it and finds the events that can be kept: one malformed event costs only itself.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Annotated, Any, Final, NamedTuple

import msgspec
from msgspec import Meta

from dunetrace.events import MAX_EVENT_TYPE_CHARS, MAX_NAME_CHARS, MAX_STEP_INDEX, TIMESTAMP_END, storable
from dunetrace.serving import plain
from dunetrace.serving.answers import RefusedError, invalid

_Id = Annotated[str, Meta(min_length=1, max_length=MAX_NAME_CHARS)]


class SentEvent(msgspec.Struct, gc=False):
    """One well-formed event as it was sent; a `payload` that is not `Plain` has not passed the privacy door."""

    event_type: Annotated[str, Meta(min_length=1, max_length=MAX_EVENT_TYPE_CHARS)]
    run_id: _Id
    agent_id: _Id
    agent_version: _Id
    step_index: Annotated[int, Meta(ge=0, le=MAX_STEP_INDEX)]
    timestamp: Annotated[float, Meta(ge=0, lt=TIMESTAMP_END)] | None = None
    payload: plain.Payload | msgspec.Raw = None
    parent_run_id: Annotated[str, Meta(max_length=MAX_NAME_CHARS)] | None = None
    event_id: Annotated[str, Meta(max_length=MAX_NAME_CHARS)] | None = None
    conversation_id: Any = None


class Malformed(NamedTuple):
    """Why one event cannot be kept. `field` is "" when the event as a whole is not an object."""

    position: int
    field: str
    msg: str
    kind: str

    @property
    def error(self) -> str:
        """`step_index: must be >= 0`, as the `rejected` list shows it."""
        return f"{self.field}: {self.msg}" if self.field else self.msg

    @property
    def detail(self) -> dict[str, Any]:
        """The same as an entry of a 422's `detail`."""
        loc: list[str | int] = ["events", self.position]
        return {"loc": [*loc, self.field] if self.field else loc, "msg": self.msg, "type": self.kind}


class SentBatch(NamedTuple):
    """One decoded body. `events` are (position in the body, event); `api_key` is "" when there was none."""

    api_key: str
    agent_id: str
    dropped_events: int
    events: list[tuple[int, SentEvent]]
    malformed: list[Malformed]


class _StrictEvent(SentEvent, gc=False):
    payload: msgspec.Raw = msgspec.Raw(b"null")


class _StrictBatch(msgspec.Struct, gc=False):
    agent_id: _Id
    events: list[_StrictEvent]
    api_key: str | None = None
    dropped_events: Annotated[int, Meta(ge=0, le=MAX_STEP_INDEX)] | None = None


_strict = msgspec.json.Decoder(_StrictBatch)
_NUL_ESCAPE: Final = b"\\u0000"


def decode(body: bytes, max_events: int) -> SentBatch:
    """Raises RefusedError: 422 when the body is not a batch at all, 413 when it holds too many events."""
    if _NUL_ESCAPE not in body:
        try:
            return _strictly(body, max_events)
        except (msgspec.MsgspecError, ValueError, RecursionError):
            pass
    return _tolerant(tolerant_json(body), max_events)


def _strictly(body: bytes, max_events: int) -> SentBatch:
    batch = _strict.decode(body)
    _check_number(len(batch.events), max_events)
    events: list[SentEvent] = [*batch.events]
    not_plain: set[str] = set()
    for event, strict in zip(events, batch.events, strict=True):
        event.payload = plain.read(event.event_type, strict.payload, not_plain)
    return SentBatch(batch.api_key or "", batch.agent_id, batch.dropped_events or 0, list(enumerate(events)), [])


def tolerant_json(body: bytes) -> Any:
    """What Python's `json` wrote: NaN, infinities and numbers out of range are None. Raises RefusedError 422.

    Text may hold U+0000 and lone surrogates; whoever keeps a text makes it `storable`.
    """
    try:
        return json.loads(
            body.decode("utf-8", "surrogatepass"),
            parse_constant=lambda _name: None,
            parse_float=_float_in_range,
            parse_int=_int_in_range,
        )
    except ValueError:
        raise invalid(["body"], "is not JSON", "json_invalid") from None
    except RecursionError:
        raise invalid(["body"], "is nested too deeply", "recursion") from None


def _float_in_range(text: str) -> float | None:
    number = float(text)
    return number if math.isfinite(number) else None


def _int_in_range(text: str) -> int | None:
    return int(text) if len(text) <= 19 else None  # 64 bits are 19 digits


def _tolerant(value: Any, max_events: int) -> SentBatch:
    if not isinstance(value, dict):
        raise invalid(["body"], "must be an object", "dict_type")
    agent_id = required_text(value, "agent_id", MAX_NAME_CHARS)
    sent = value.get("events")
    if not isinstance(sent, list):
        fault = ("must be a list", "list_type") if "events" in value else _MISSING
        raise invalid(["events"], *fault)
    _check_number(len(sent), max_events)
    api_key, dropped = value.get("api_key"), value.get("dropped_events")
    events, malformed = [], []
    for index, item in enumerate(sent):
        read = _event(index, item)
        if isinstance(read, Malformed):
            malformed.append(read)
        else:
            events.append((index, read))
    return SentBatch(
        api_key if isinstance(api_key, str) else "",
        agent_id,
        dropped if isinstance(dropped, int) and not isinstance(dropped, bool) and 0 <= dropped <= MAX_STEP_INDEX else 0,
        events,
        malformed,
    )


def required_text(value: Mapping[str, Any], field: str, longest: int) -> str:
    """A text field of a body, storable. Raises RefusedError 422 when it is missing, no text, empty or too long."""
    text = value.get(field)
    fault = _fault_of_text(text, 1, longest) if field in value else _MISSING
    if fault or not isinstance(text, str):
        raise invalid([field], *(fault or _MISSING))
    return storable(text)


def _check_number(number: int, max_events: int) -> None:
    if number == 0:
        raise invalid(["events"], "must not be empty", "too_short")
    if number > max_events:
        raise RefusedError(413, f"More than {max_events} events; send fewer at a time")


_Fault = tuple[str, str]
_MISSING: Final = ("is required", "missing")
_REQUIRED: Final[Mapping[str, int]] = {
    "event_type": MAX_EVENT_TYPE_CHARS,
    "run_id": MAX_NAME_CHARS,
    "agent_id": MAX_NAME_CHARS,
    "agent_version": MAX_NAME_CHARS,
}
_OPTIONAL: Final = ("parent_run_id", "event_id")


def _event(index: int, item: Any) -> SentEvent | Malformed:
    """The event, or the first thing that is wrong with it: by the same rules as `SentEvent`."""
    if not isinstance(item, dict):
        return Malformed(index, "", "must be an object", "dict_type")
    for field, longest in _REQUIRED.items():
        fault = _fault_of_text(item[field], 1, longest) if field in item else _MISSING
        if fault:
            return Malformed(index, field, *fault)
    fault = _fault_of_step(item["step_index"]) if "step_index" in item else _MISSING
    if fault:
        return Malformed(index, "step_index", *fault)
    timestamp, payload = item.get("timestamp"), item.get("payload")
    if timestamp is not None and (fault := _fault_of_timestamp(timestamp)):
        return Malformed(index, "timestamp", *fault)
    if payload is not None and not isinstance(payload, dict):
        return Malformed(index, "payload", "must be an object", "dict_type")
    for field in _OPTIONAL:
        if item.get(field) is not None and (fault := _fault_of_text(item[field], 0, MAX_NAME_CHARS)):
            return Malformed(index, field, *fault)
    texts = {field: storable(item[field]) for field in (*_REQUIRED, *_OPTIONAL) if item.get(field) is not None}
    return SentEvent(
        **texts,
        step_index=item["step_index"],
        timestamp=None if timestamp is None else float(timestamp),
        payload=payload,
        conversation_id=item.get("conversation_id"),
    )


def _fault_of_text(value: Any, shortest: int, longest: int) -> _Fault | None:
    if not isinstance(value, str):
        return "must be a string", "string_type"
    if len(value) < shortest:
        return "must not be empty", "string_too_short"
    if len(value) > longest:
        return f"must be at most {longest} characters", "string_too_long"
    return None


def _fault_of_step(value: Any) -> _Fault | None:
    if not isinstance(value, int) or isinstance(value, bool):
        return "must be an integer", "int_type"
    if value < 0:
        return "must be >= 0", "greater_than_equal"
    if value > MAX_STEP_INDEX:
        return f"must be <= {MAX_STEP_INDEX}", "less_than_equal"
    return None


def _fault_of_timestamp(value: Any) -> _Fault | None:
    if not isinstance(value, int | float) or isinstance(value, bool):
        return "must be a number", "float_type"
    if value < 0:
        return "must be >= 0", "greater_than_equal"
    if value >= TIMESTAMP_END:
        return f"must be < {TIMESTAMP_END}", "less_than"
    return None
