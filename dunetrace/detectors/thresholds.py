"""Checks the document of detectors.yml, already parsed, and turns it into limits. `config` reads the file.

``default`` and each agent hold ``{detector: {key: value}}``; an agent overrides only what it names.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from types import MappingProxyType
from typing import Any

from dunetrace.detectors.declaration import Bounds, Detector, Thresholds
from dunetrace.detectors.registry import BY_NAME
from dunetrace.errors import SettingError
from dunetrace.spelling import edits, nearest

_FLAGS: dict[str, bool] = {"enabled": True, "shadow": False}


@dataclass(frozen=True, slots=True)
class Section:
    """What one agent's detector goes by."""

    enabled: bool
    shadow: bool
    thresholds: Thresholds


AgentLimits = Mapping[str, Section]
"""Every detector's Section under its name."""


@dataclass(frozen=True, slots=True)
class Limits:
    """The checked document. `agents` are the sections' names, so that one for an agent never seen can be warned of."""

    default: AgentLimits
    by_agent: Mapping[str, AgentLimits]

    def for_agent(self, agent_id: str) -> AgentLimits:
        return self.by_agent.get(agent_id, self.default)

    @property
    def agents(self) -> tuple[str, ...]:
        return tuple(self.by_agent)


def check(document: object) -> Limits:
    """The limits a document asks for; raises SettingError, which names the fault and the nearest thing allowed."""
    top = _mapping(document, "detectors.yml", "`default` and agents")
    for name in top:
        _check_top_name(name, top[name])
    written = {name: _mapping(body, name, "detectors") for name, body in top.items()}
    default = _agent(written.get("default", {}), {}, "default")
    by_agent = {
        name: _agent(body, written.get("default", {}), name) for name, body in written.items() if name != "default"
    }
    return Limits(default, MappingProxyType(by_agent))


def _check_top_name(name: object, body: object) -> None:
    if not isinstance(name, str) or not name:
        raise SettingError(f"detectors.yml: the agent's name {name!r} is not text; write it in quotes")
    if name != "default" and edits(name, "default") <= 1:
        raise SettingError(f"detectors.yml: {_shown(name)} is one letter away from `default`; write `default`")
    if name in BY_NAME and not (isinstance(body, Mapping) and body and set(body) <= set(BY_NAME)):
        raise SettingError(f"detectors.yml: the detector `{name}` belongs under `default:` or under an agent's name")


def _agent(written: Mapping[Any, Any], inherited: Mapping[Any, Any], place: str) -> AgentLimits:
    for name in written:
        if name not in BY_NAME:
            raise SettingError(f"detectors.yml: {place}: {_unknown('detector', name, BY_NAME)}")
    sections = {}
    for name, detector in BY_NAME.items():
        own = _mapping(written.get(name), f"{place}.{name}", "thresholds")
        checked = _values(detector, own, f"{place}.{name}")
        base = _mapping(inherited.get(name), f"default.{name}", "thresholds")
        sections[name] = _section(detector, {**base, **checked}, f"{place}.{name}")
    return MappingProxyType(sections)


def _values(detector: Detector[Any], written: Mapping[Any, Any], place: str) -> dict[str, Any]:
    allowed = {entry.name: entry for entry in fields(detector.thresholds)}
    for key, value in written.items():
        if key in _FLAGS:
            if not isinstance(value, bool):
                raise SettingError(f"detectors.yml: {place}.{key}: {_shown(value)} is not true or false")
        elif key in allowed:
            entry = allowed[key]
            _check_value(value, entry.metadata["bounds"], f"{place}.{key}", whole=isinstance(entry.default, int))
        else:
            raise SettingError(f"detectors.yml: {place}: {_unknown('key', key, (*allowed, *_FLAGS))}")
    return dict(written)


def _section(detector: Detector[Any], values: dict[str, Any], place: str) -> Section:
    flags = {key: values.pop(key, otherwise) for key, otherwise in _FLAGS.items()}
    for entry in fields(detector.thresholds):
        if isinstance(entry.default, float) and values.get(entry.name) is not None:
            values[entry.name] = float(values[entry.name])
    thresholds: Thresholds = detector.thresholds(**values)
    fault = thresholds.contradiction()
    if fault:
        raise SettingError(f"detectors.yml: {place}: {fault}")
    return Section(flags["enabled"], flags["shadow"], thresholds)


def _check_value(value: object, bounds: Bounds, place: str, *, whole: bool) -> None:
    wanted = "a whole number" if whole else "a number"
    limits = f"allowed is {wanted} of {bounds.unit} from {bounds.low:g} to {bounds.high:g}"
    if bounds.optional:
        if value is None:
            return
        limits += ", or null to switch it off"
    if isinstance(value, bool) or not isinstance(value, int if whole else (int, float)):
        raise SettingError(f"detectors.yml: {place}: {_shown(value)} is not {wanted}; {limits}")
    if isinstance(value, float) and not math.isfinite(value):
        raise SettingError(f"detectors.yml: {place}: {value} is not {wanted}; {limits}")
    if not bounds.low <= value <= bounds.high:
        bound = bounds.low if value < bounds.low else bounds.high
        raise SettingError(
            f"detectors.yml: {place}: {_shown(value)} is out of bounds; {limits}, the nearest is {bound:g}"
        )


def _mapping(value: object, place: str, of: str) -> Mapping[Any, Any]:
    """`value` as a mapping; what was left empty is an empty one."""
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise SettingError(f"detectors.yml: {place} must be a mapping of {of}, and is {_shown(value)}")
    return value


def _unknown(what: str, name: object, known: Iterable[str]) -> str:
    return f"unknown {what} {_shown(name)}; did you mean `{nearest(name, known)}`? Known: {', '.join(known)}"


def _shown(value: object) -> str:
    """A value from the file, quoted and on one line, cut where it is long."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


DEFAULT = check({})
