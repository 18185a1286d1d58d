"""Writes docs/events.md from the tables: ``python -m dunetrace.events_page > docs/events.md``."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping

from dunetrace.events import EVENT_TYPES, FINISH_REASONS, INJECTION_KEYS, RAW_KEYS, Kind

_INTRO = """\
# Events

Written by `python -m dunetrace.events_page` from the tables in `dunetrace/events.py`; edit those.

An event is stored with the keys listed here and no others. Whatever else a client sends is dropped and counted, and so
is a known key with a value of another kind; neither is a reason to refuse the event. Null is the same as absent. An
event of a type that isn't listed is stored with an empty payload.
"""


def page() -> str:
    """The whole page, in Markdown."""
    sections = [_INTRO, "## Payloads\n"]
    sections += [f"### {event_type}\n\n{_keys(keys)}" for event_type, keys in EVENT_TYPES.items()]
    sections += ["## Injection signal\n", _keys(INJECTION_KEYS)]
    sections += ["## Kinds\n", _table(("kind", "what it may be"), ((str(k), k.docs) for k in Kind if k != Kind.RAW))]
    sections += ["## Content that published clients send\n", _RAW_INTRO, _table(_RAW_HEAD, _raw_rows())]
    sections += ["## Finish reasons\n", _table(("stored", "sent"), _finish_rows())]
    return "\n".join(sections)


_RAW_INTRO = """\
Hashed before anything is queued, logged or stored. A length the client sent wins over the one counted here. The shape
is the digest of the same text with ids, times and temporary paths masked.
"""
_RAW_HEAD = ("sent", "digest", "length in characters", "shape", "before it is hashed")


def _keys(keys: Mapping[str, Kind]) -> str:
    return _table(("key", "kind"), ((f"`{key}`", str(kind)) for key, kind in keys.items() if kind != Kind.RAW))


def _raw_rows() -> Iterable[tuple[str, ...]]:
    for name, rule in RAW_KEYS.items():
        first = ["scanned for injection"] * rule.scanned + ["JSON is sorted and made compact"] * rule.canonical
        shape = f"`{rule.shape_key}`" if rule.shape_key else ""
        yield f"`{name}`", f"`{rule.hash_key}`", f"`{rule.length_key}`", shape, ", ".join(first)


def _finish_rows() -> Iterable[tuple[str, str]]:
    for reason in dict.fromkeys(FINISH_REASONS.values()):
        sent = ", ".join(f"`{spelling}`" for spelling, meaning in FINISH_REASONS.items() if meaning == reason)
        yield f"`{reason}`", sent
    yield "`other`", "anything else"


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


if __name__ == "__main__":
    sys.stdout.write(page())
