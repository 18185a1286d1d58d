"""Thresholds given to the SDK, checked as those of detectors.yml are. Called by `guard` and by the OTel exporter."""

from __future__ import annotations

from dunetrace.detectors.thresholds import DEFAULT, AgentLimits, check
from dunetrace.errors import SettingError
from dunetrace.sdk import lifecycle


def checked(limits: object, whose: str) -> AgentLimits:
    """The limits that the ``default`` section `limits` asks for; the defaults where it is None or, said once, wrong."""
    try:
        return DEFAULT.default if limits is None else check({"default": limits}).default
    except Exception as error:  # a SettingError, or what a stranger's own methods do
        fault = str(error).removeprefix("detectors.yml: ") if isinstance(error, SettingError) else "unreadable"
        lifecycle.warn_once(f"limits {fault}", f"limits: {fault}; {whose} goes by its defaults")
        return DEFAULT.default
