"""Payloads and signals as attributes of spans: whose name is whose. Called by `otel_spans`; knows no OpenTelemetry."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from dunetrace.signals import FailureSignal

_LARGEST_INT = 2**63 - 1  # of OTLP
_PLAIN = {bool, int, float, str}


class Kind(NamedTuple):
    """A kind of call: its span, what all of them say, other names for keys, what its failure is called."""

    span: str
    operation: str
    names: Mapping[str, tuple[str, ...]]
    failure: str


_LLM = Kind(
    "llm_call",
    "chat",
    {
        "model": ("gen_ai.request.model",),
        "prompt_tokens": ("gen_ai.usage.input_tokens",),
        "cached_prompt_tokens": ("gen_ai.usage.cache_read.input_tokens",),
        "completion_tokens": ("gen_ai.usage.output_tokens",),
        "finish_reason": ("gen_ai.response.finish_reason",),
    },
    "llm call failed",
)
_TOOL = Kind(
    "tool_call", "execute_tool", {"tool_name": ("dunetrace.tool_name", "gen_ai.tool.name")}, "tool call failed"
)
_RETRIEVAL = Kind(
    "retrieval",
    "retrieval",
    {"index_name": ("dunetrace.index_name", "gen_ai.data_source.id")},
    "retrieval failed",
)
CALLED = {"llm.called": _LLM, "tool.called": _TOOL, "retrieval.called": _RETRIEVAL}
RESPONDED = {"llm.responded": _LLM, "tool.responded": _TOOL, "retrieval.responded": _RETRIEVAL}
RUN_NAMES = {"error_type": ("dunetrace.error_type", "error.type"), "model": ("dunetrace.model",)}
_LEFT_OUT = frozenset({"call_id", "injection_signal"})  # pairs events; is a signal of its own


def signal_attributes(prefix: str, signal: FailureSignal) -> dict[str, Any]:
    """A signal as ``<prefix>.failure_type``, …, and its evidence as ``<prefix>.evidence.<name>``."""
    said: dict[str, Any] = {
        "failure_type": str(signal.failure_type),
        "severity": str(signal.severity),
        "confidence": signal.confidence,
        "step_index": signal.step_index,
        **({"shadow": True} if signal.shadow else {}),
        **{f"evidence.{key}": value for key, value in signal.evidence.items()},
    }
    values = {f"{prefix}.{key}": value_of(value) for key, value in said.items()}
    return {name: value for name, value in values.items() if value is not None}


def attributes_of(payload: Mapping[str, Any], names: Mapping[str, tuple[str, ...]]) -> dict[str, Any]:
    """A payload's values under their `names`, by default ``dunetrace.<key>``. What has no value has no attribute."""
    found: dict[str, Any] = {}
    for key, given in payload.items():
        value = None if key in _LEFT_OUT else value_of(given)
        if value is not None:
            found |= dict.fromkeys(names.get(key, (f"dunetrace.{key}",)), value)
    return found


def value_of(value: Any) -> Any:
    """`value` as an attribute may be: a number within 64 bits, a flag, text, a list of one of them, else JSON."""
    if isinstance(value, int) and abs(value) > _LARGEST_INT:
        return None
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, list | tuple) and len(kinds := {type(item) for item in value}) <= 1 and kinds <= _PLAIN:
        return tuple(value)
    return json.dumps(value, separators=(",", ":"))
