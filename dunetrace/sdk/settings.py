"""What a client was told, by argument or by environment: the only reader of the SDK's environment."""

from __future__ import annotations

import os
from collections.abc import Mapping
from enum import Enum
from typing import Any, Final, NamedTuple

DEFAULT_ENDPOINT: Final = "http://localhost:8001"
DEFAULT_BUFFER_SIZE: Final = 10_000  # events
DEFAULT_FLUSH_INTERVAL_MS: Final = 200
_SHORTEST_INTERVAL_S, _LONGEST_INTERVAL_S = 0.005, 60.0
_LARGEST_BUFFER = 1_000_000  # events; about 1 GB


class Unset(Enum):
    """The default of an argument that was not given, where None means something of its own."""

    UNSET = "unset"


UNSET: Final = Unset.UNSET


class Settings(NamedTuple):
    """A client's settings, each in a usable form whatever was given."""

    endpoint: str | None
    api_key: str | None
    agent_id: str
    hash_key: bytes | None
    disabled: bool
    buffer_size: int
    flush_interval_s: float
    emit_as_json: bool
    debug: bool


def read(
    *,
    endpoint: object,
    api_key: object,
    hash_key: object,
    buffer_size: object,
    flush_interval_ms: object,
    emit_as_json: object,
    debug: object,
    environ: Mapping[str, str] = os.environ,
) -> Settings:
    """The settings from these arguments; one that is UNSET comes from the environment, else it has its default."""
    key = environ.get("DUNETRACE_HASH_KEY") if hash_key is UNSET else hash_key
    return Settings(
        endpoint=_text(environ.get("DUNETRACE_ENDPOINT", DEFAULT_ENDPOINT) if endpoint is UNSET else endpoint),
        api_key=_text(environ.get("DUNETRACE_API_KEY") if api_key is UNSET else api_key),
        agent_id=environ.get("DUNETRACE_AGENT_ID", ""),
        hash_key=key if isinstance(key, bytes) else (_text(key) or "").encode("utf-8", "replace") or None,
        disabled=environ.get("DUNETRACE_DISABLED", "").strip().lower() in {"1", "true", "yes", "on"},
        buffer_size=int(_number(buffer_size, DEFAULT_BUFFER_SIZE, 1, _LARGEST_BUFFER)),
        flush_interval_s=_number(flush_interval_ms, DEFAULT_FLUSH_INTERVAL_MS, 0, _LONGEST_INTERVAL_S * 1000) / 1000
        or _SHORTEST_INTERVAL_S,
        emit_as_json=_flag(emit_as_json),
        debug=_flag(debug),
    )


def _flag(value: object) -> bool:
    try:
        return bool(value)
    except Exception:  # an object that does not know
        return False


def _text(value: object) -> str | None:
    return value.strip() or None if isinstance(value, str) else None


def _number(value: Any, default: float, lowest: float, highest: float) -> float:
    if isinstance(value, int | float) and value == value:  # noqa: PLR0124 - NaN differs from itself
        return min(max(value, lowest), highest)
    return default
