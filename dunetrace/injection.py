"""Does a text try to take an agent over? A table of labelled rules over the raw text, and how sure each of them is.

Called by the SDK before user input is hashed and by the privacy door where raw input arrives: the only two places that
ever see it. What leaves is labels and counts. Pure, and bounded: at most 32 KiB of text are looked at, and every rule
starts from a fixed phrase and reads a bounded stretch behind it, at a bounded number of places.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from itertools import islice
from typing import Any, NamedTuple

from dunetrace.disguises import unmasked
from dunetrace.injection_rules import FOREIGN, RULES, STRONG, Rule
from dunetrace.injection_rules import words as words_of

_HALF_CHARS = 16 * 1024  # of a longer text, this much of its head and of its tail is scanned
_MOST_CHARS = 2 * _HALF_CHARS
_MOST_TRIES = 12  # places, over all phrases of a rule
_MOST_PLACES = 4  # a phrase that occurs more often is tried at this many places from each end of the text
_MOST_LABELS = 5
_MOST_COUNTED = 8  # rules; a text that matches so many needs no further look
_SLICE_CHARS = 2048
_ENOUGH = 3  # weight at which a text is reported: one strong rule, or three weak ones


class InjectionScan(NamedTuple):
    """What was found in one text; lengths are in characters of the raw text."""

    matched_pattern_count: int
    matched_patterns: tuple[str, ...]
    input_length: int
    scan_truncated: bool
    scanned_chars: int

    def payload(self) -> dict[str, Any]:
        """The scan under the wire's names, the value of `injection_signal`."""
        return {
            "matched_pattern_count": self.matched_pattern_count,
            "matched_patterns": list(self.matched_patterns),
            "input_length": self.input_length,
            "scan_truncated": self.scan_truncated,
            "scanned_chars": self.scanned_chars,
        }


_PHRASES: dict[bytes, list[tuple[str, int]]] = {}  # by their first word, each with its rule's place
for _place, _one in enumerate(RULES):
    for (_word,), _phrase in _one.phrases:
        _PHRASES.setdefault(_word, []).append((_phrase, _place))
PATTERN_LABELS = frozenset(rule.label for rule in RULES)

_INVISIBLE = re.compile(
    "[\u00ad\u0300-\u036f\u180e\u200b-\u200f\u202a-\u202e\u2060-\u2064\ufe00-\ufe0f\ufeff\U000e0000-\U000e007f]+"
)
_SPELLINGS = (("’", "'"), ("‘", "'"), ("`", "'"), ("“", '"'), ("”", '"'), ("\\", ""), ("*", ""))


def scan(text: str) -> InjectionScan | None:
    """What the rules find in `text`, or None when that is too little to speak of."""
    truncated = len(text) > _MOST_CHARS
    read = f"{text[:_HALF_CHARS]} . {text[-_HALF_CHARS:]}" if truncated else text
    plain = _plain(read)
    if hidden := unmasked(read):
        plain = f"{plain} . {_plain(hidden)}"
    words = set(words_of(plain))
    weights: dict[str, int] = {}
    places = {place for word in words & _PHRASES.keys() for phrase, place in _PHRASES[word] if phrase in plain}
    for rule in (RULES[place] for place in sorted(places)):
        if rule.label not in weights and _matches(rule, plain, words):
            weights[rule.label] = rule.weight
            if len(weights) == _MOST_COUNTED:
                break
    if not plain.isascii():
        weights |= {label: STRONG for label, phrases in _FOREIGN.items() if any(phrase in plain for phrase in phrases)}
    if sum(weights.values()) < _ENOUGH:
        return None
    surest = sorted(weights, key=lambda label: -weights[label])
    return InjectionScan(
        matched_pattern_count=len(weights),
        matched_patterns=tuple(surest[:_MOST_LABELS]),
        input_length=len(text),
        scan_truncated=truncated,
        scanned_chars=min(len(text), _MOST_CHARS),
    )


def _plain(text: str) -> str:
    """Lower case without accents, invisible characters and runs of blanks: one spelling serves every rule."""
    if not text.isascii():
        text = _INVISIBLE.sub("", _decomposed(text))
    text = text.lower()
    for found, meant in _SPELLINGS:
        text = text.replace(found, meant)
    return " ".join(text.split())


def _decomposed(text: str) -> str:
    """`text` in NFKD, no longer than a scan's worth: there are characters that become eighteen."""
    parts: list[str] = []
    room = _MOST_CHARS + 3
    for start in range(0, len(text), _SLICE_CHARS):
        if room <= 0:
            break
        parts.append(unicodedata.normalize("NFKD", text[start : start + _SLICE_CHARS])[:room])
        room -= len(parts[-1])
    return "".join(parts)


_FOREIGN = {label: tuple(map(_plain, phrases)) for label, phrases in FOREIGN.items()}


def _matches(rule: Rule, text: str, words: set[bytes]) -> bool:
    present = (phrase for first, phrase in rule.phrases if words.issuperset(first))
    places = (place for phrase in present for place in _places(text, phrase))
    return any(rule.tail.match(text, place) for place in islice(places, _MOST_TRIES))


def _places(text: str, phrase: str) -> Iterator[int]:
    """Where `phrase` ends in `text`, starting a word: its first occurrences, then its last ones."""
    start = -1
    for _ in range(_MOST_PLACES):
        start = text.find(phrase, start + 1)
        if start < 0:
            return
        if start == 0 or not text[start - 1].isalnum():
            yield start + len(phrase)
    end = len(text)
    for _ in range(_MOST_PLACES):
        end = text.rfind(phrase, start + 1, end)
        if end < 0:
            return
        if not text[end - 1].isalnum():
            yield end + len(phrase)
