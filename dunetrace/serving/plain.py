"""Payloads that pass the privacy door unchanged, recognised while they are decoded.

Nearly every payload of our own SDK holds names, numbers and digests and nothing else. Of these the decoder itself
checks keys and values, in C, by the tables of `events.py`, and what it takes is what `door` would have made of it. A
type of this module never takes more than that; where it takes less, the door decides. Called by `wire.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta

from dunetrace.events import EVENT_TYPES, FINISH_REASONS, MAX_NAME_CHARS, MAX_NAMES, MAX_NUMBER, Kind


class Plain(msgspec.Struct):
    """A payload as it may be stored. Its null values are absent."""


Payload = dict[str, Any] | Plain | None

_Name = Annotated[str, Meta(max_length=MAX_NAME_CHARS)]
_Count = Annotated[int, Meta(ge=0, le=MAX_NUMBER)]
_Integer = Annotated[int, Meta(ge=-MAX_NUMBER, le=MAX_NUMBER)]
# What needs a second look has no type here: content, and lists or objects that are cut or merged.
_TYPES: Final[Mapping[Kind, Any]] = {
    Kind.NAME: _Name,
    Kind.LABEL: Annotated[str, Meta(pattern=r"\A[A-Za-z0-9_.-]{1,64}\Z")],
    Kind.DIGEST: Annotated[str, Meta(pattern=r"\A(?:[0-9a-fA-F]{16,128})?\Z")],
    Kind.COUNT: _Count,
    Kind.DURATION: _Count | Annotated[float, Meta(ge=0, le=MAX_NUMBER)],
    Kind.SCORE: _Integer | Annotated[float, Meta(ge=-MAX_NUMBER, le=MAX_NUMBER)],
    Kind.FLAG: bool,
    Kind.FINISH_REASON: Literal[(*sorted({*FINISH_REASONS.values(), "other"}),)],
    Kind.CALL_ID: _Integer | _Name,
    Kind.NAMES: Annotated[list[_Name], Meta(max_length=MAX_NAMES)],
}


def _reader(keys: Mapping[str, Kind]) -> Callable[[msgspec.Raw], Plain | None]:
    fields = [(key, _TYPES[kind] | None, None) for key, kind in keys.items() if kind in _TYPES]
    plain = msgspec.defstruct("plain", fields, bases=(Plain,), forbid_unknown_fields=True, omit_defaults=True, gc=False)
    return msgspec.json.Decoder(plain | None).decode


_READERS: Final = {event_type: _reader(keys) for event_type, keys in EVENT_TYPES.items()}
_any_object: Final[Callable[[msgspec.Raw], dict[str, Any] | None]] = msgspec.json.Decoder(dict[str, Any] | None).decode


def read(event_type: str, sent: msgspec.Raw, not_plain: set[str]) -> Payload:
    """The payload of one event. Raises msgspec.MsgspecError where it isn't an object, or one that is not strict JSON.

    `not_plain` is of one body, empty at first: a client that sends content sends it with each event of a type, so what
    was not plain once is not tried again.
    """
    reader = _READERS.get(event_type)
    if reader is not None and event_type not in not_plain:
        try:
            return reader(sent)
        except msgspec.MsgspecError:
            not_plain.add(event_type)
    return _any_object(sent)
