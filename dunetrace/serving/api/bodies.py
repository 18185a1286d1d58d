"""The body of a request that changes something: JSON, checked against the shape its route declares. Used by app.py."""

from __future__ import annotations

import re
from typing import TypeVar

import msgspec

from dunetrace.serving.answers import invalid
from dunetrace.serving.wire import tolerant_json

Shape = TypeVar("Shape", bound=msgspec.Struct)
_FIELD = re.compile(r"`\$\.(\w+)|required field `(\w+)`")


def read_body(body: bytes, shape: type[Shape]) -> Shape:
    """Raises RefusedError: 422 naming the field that is missing or wrong. Further fields are ignored."""
    value = tolerant_json(body)
    if not isinstance(value, dict):
        raise invalid(["body"], "must be an object", "dict_type")
    try:
        return msgspec.convert(value, shape)
    except msgspec.ValidationError as error:
        # The checker's words name types and limits, never the value: shapes of bodies hold no choices.
        text = str(error)
        found = _FIELD.search(text)
        field = (found[1] or found[2]) if found else "body"
        if found and found[2]:
            raise invalid(["body", field], f"{field}: is required", "missing") from None
        raise invalid(["body", field], f"{field}: {text.partition(' - at')[0]}", "value_error") from None
