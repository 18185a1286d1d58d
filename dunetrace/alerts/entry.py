"""One mapping of alerts.yml, read key by key. Used by `listing.py`.

A text may hold ``${NAME}``, which stands for a variable of the environment, so that secrets need not lie in the file.
Every fault is one line that names the place; a value is shown as it is written, and only when it is a plain word.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from dunetrace.errors import SettingError
from dunetrace.spelling import nearest

FILE = "alerts.yml"
LONGEST_GATHERING_S = 7 * 86_400
AGENT_CHARS = 256  # no agent's name is longer

_PLAIN = re.compile(r"[\w .*-]{1,30}")
_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
_DURATION = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,3})?) ?([smhd]?)")
_UNITS_S = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86_400}
_WORDS = {bool: "true or false", int: "a number", float: "a number", str: "text", list: "a list", dict: "a mapping"}


@dataclass(frozen=True, slots=True)
class Entry:
    """What is `written`, and where; `variables` are what ``${NAME}`` may stand for. Both may hold secrets."""

    written: Mapping[Any, Any] = field(repr=False)
    where: str
    variables: Mapping[str, str] = field(repr=False)

    @classmethod
    def of(cls, written: object, where: str, variables: Mapping[str, str]) -> Entry:
        """SettingError unless it is a mapping."""
        if not isinstance(written, Mapping):
            raise fault(where, f"must be a mapping (`key: value`), and is {what_it_is(written)}")
        return cls(written, where, variables)

    def place(self, key: str) -> str:
        return f"{FILE}: {self.where}: {key}"

    def fault(self, key: str, what: str) -> SettingError:
        return SettingError(f"{self.place(key)}: {what}")

    def refuse_unknown_keys(self, known: Collection[str]) -> None:
        for key in self.written:
            if key not in known:
                likely = f"did you mean `{nearest(key, known)}`? Known: {', '.join(known)}"
                raise fault(self.where, f"unknown key {shown(key)}; {likely}")

    def literal(self, key: str) -> str | None:
        """A text as it stands; None where there is none."""
        return self._text(key, self.written.get(key))

    def text(self, key: str) -> str | None:
        """A text with its variables filled in; None where there is none."""
        written = self.literal(key)
        return None if written is None else self._filled(key, written)

    def patterns(self, key: str) -> tuple[str, ...]:
        """A list of agents' names or patterns of them; empty where there is none."""
        written = self.written.get(key)
        if written is None:
            return ()
        if not isinstance(written, list):
            raise self.fault(key, f"must be a list, as in [checkout, 'support-*'], and is {what_it_is(written)}")
        if not written:
            raise self.fault(key, "is an empty list; leave it out to be told of all agents")
        found = tuple(self._filled(key, self._text(key, item) or "") for item in written)
        if not all(0 < len(pattern) <= AGENT_CHARS for pattern in found):
            raise self.fault(key, f"a name or a pattern has 1 to {AGENT_CHARS} characters")
        return found

    def one_of(self, key: str, known: Collection[str], found: str | None) -> str | None:
        """Which of `known` was `found` under the key, in whatever case; None where none is written."""
        if found is None:
            return None
        names = {name.lower(): name for name in known}
        asked = found.strip().lower()
        if asked not in names:
            allowed = f"{', '.join(known)}; the nearest is {names[nearest(asked, names)]}"
            raise self.fault(key, f"{shown(self.written[key])} is not one of {allowed}")
        return names[asked]

    def flag(self, key: str, *, default: bool) -> bool:
        value = self.written.get(key)
        if value is None:
            return default
        if not isinstance(value, bool):
            raise self.fault(key, f"{shown(value)} is not true or false")
        return value

    def duration_s(self, key: str, default_s: float) -> float:
        """Seconds, from a number, a text with a unit, or `off`, which YAML reads as false."""
        value = self.written.get(key)
        if value is None:
            return default_s
        if value is False:
            return 0.0
        number = _seconds(self._filled(key, value)) if isinstance(value, str) else value
        if isinstance(number, bool) or not isinstance(number, int | float) or not number >= 0:
            raise self.fault(key, f"{shown(value)} is not a duration; write 90, 90s, 15m, 2h, 1d or off")
        if number > LONGEST_GATHERING_S:
            raise self.fault(key, f"{shown(value)} is too long; the longest is 7d")
        return float(number)

    def _text(self, key: str, value: object) -> str | None:
        if value is not None and not isinstance(value, str):
            raise self.fault(key, f"is {what_it_is(value)} and not text; write it in quotes")
        return value

    def _filled(self, key: str, written: str) -> str:
        def value_of(found: re.Match[str]) -> str:
            value = self.variables.get(found[1])
            if not value:
                raise self.fault(key, f"${{{found[1]}}} is not set; set it in the environment or in .env")
            return value

        if written.count("${") != len(_VARIABLE.findall(written)):
            raise self.fault(key, "after ${ must stand the name of a variable and }, as in ${SLACK_URL}")
        return _VARIABLE.sub(value_of, written)


def fault(where: str, what: str) -> SettingError:
    """A SettingError about a place as a whole."""
    return SettingError(f"{FILE}: {where}: {what}")


def is_plain(text: str) -> bool:
    """Whether it may be shown: a word or two, no address and no key."""
    return _PLAIN.fullmatch(text) is not None


def shown(value: object) -> str:
    """A value as a fault may show it."""
    if isinstance(value, str):
        return repr(value) if is_plain(value) else f"a text of {len(value)} characters"
    if isinstance(value, bool) or (isinstance(value, int | float) and abs(value) < 1e9):
        return repr(value)
    return what_it_is(value)


def what_it_is(value: object) -> str:
    """The kind of a value, in words."""
    if value is None:
        return "empty"
    return _WORDS.get(type(value), f"a {type(value).__name__}")


def _seconds(text: str) -> float | None:
    text = text.strip().lower()
    if text == "off":
        return 0.0
    found = _DURATION.fullmatch(text)
    return float(found[1]) * _UNITS_S[found[2]] if found else None
