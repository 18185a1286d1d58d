"""PagerDuty's own reading of an event: its published schema of the Events API v2, strictly.

document = pagerduty.accept(body)   # NotAcceptedError, as PagerDuty would answer 400 `invalid event`

The fields are those of PagerDuty's OpenAPI document of the API, the lengths those of its reference. What it would
ignore (an unknown field, a wrong type of an optional one) is not accepted here either.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any
from urllib.parse import urlsplit

EVENT_BYTES = 512 * 1024
ROUTING_KEY = "0123456789abcdef0123456789ABCDEF"

Rule = Callable[[Any], bool]


class NotAcceptedError(AssertionError):
    """PagerDuty would answer 400, or show something else than was meant."""


def accept(body: bytes) -> dict[str, Any]:
    """The event, if PagerDuty would take it."""
    if len(body) > EVENT_BYTES:
        raise NotAcceptedError(f"{len(body)} bytes")
    try:
        document = json.loads(body.decode("utf-8", "strict"), parse_constant=_no_constant)
    except ValueError as error:
        raise NotAcceptedError(f"not JSON: {error}") from None
    _check(document, _EVENT, required={"routing_key", "event_action"})
    if document["event_action"] == "trigger":
        if "payload" not in document:
            raise NotAcceptedError("a trigger without payload")
    elif "dedup_key" not in document:
        raise NotAcceptedError("no trigger, and no dedup_key")
    if "payload" in document:
        _check(document["payload"], _PAYLOAD, required={"summary", "source", "severity"})
    for link in document.get("links", []):
        _check(link, _LINK, required={"href"})
    return dict(document)


def _check(document: Any, rules: Mapping[str, Rule], required: set[str]) -> None:
    if not isinstance(document, dict):
        raise NotAcceptedError("not an object")
    if not required <= set(document):
        raise NotAcceptedError(f"missing: {sorted(required - set(document))}")
    for name, value in document.items():
        if name not in rules or not rules[name](value):
            raise NotAcceptedError(f"{name}: {str(value)[:80]!r}")


def _text(most: int) -> Rule:
    return lambda value: isinstance(value, str) and len(value.strip()) > 0 and len(value) <= most


def _one_of(*names: str) -> Rule:
    return lambda value: value in names


def _is_url(value: Any) -> bool:
    return isinstance(value, str) and urlsplit(value).scheme in {"http", "https"} and bool(urlsplit(value).hostname)


def _is_time(value: Any) -> bool:
    try:
        return datetime.fromisoformat(value).tzinfo is not None
    except (TypeError, ValueError):
        return False


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


_EVENT: dict[str, Rule] = {
    "routing_key": lambda value: isinstance(value, str) and re.fullmatch(r"[0-9A-Za-z]{32}", value) is not None,
    "event_action": _one_of("trigger", "acknowledge", "resolve"),
    "dedup_key": _text(255),
    "payload": lambda value: isinstance(value, dict),
    "client": _text(1024),
    "client_url": _is_url,
    "links": lambda value: isinstance(value, list),
}
_PAYLOAD: dict[str, Rule] = {
    "summary": _text(1024),
    "source": _text(1024),
    "severity": _one_of("critical", "error", "warning", "info"),
    "timestamp": _is_time,
    "component": _text(1024),
    "group": _text(1024),
    "class": _text(1024),
    "custom_details": lambda value: isinstance(value, dict),
}
_LINK: dict[str, Rule] = {"href": _is_url, "text": _text(1024)}
