"""How the injection scan does on attacks, ordinary texts and traps. Used by `tests.quality` and by a test."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable
from hashlib import sha256
from typing import Any, NamedTuple

from dunetrace.injection import scan
from tests.shared import shared


class Text(NamedTuple):
    """One text with its label. `tuned_on`: the patterns were chosen on it, not reported."""

    text: str
    kind: str
    channel: str
    tuned_on: bool

    @property
    def found(self) -> bool:
        return scan(self.text) is not None


def texts() -> list[Text]:
    with gzip.open(shared("data/injection.jsonl.gz"), "rt", encoding="utf-8") as lines:
        return [_text(json.loads(line)) for line in lines]


def _text(row: dict[str, Any]) -> Text:
    kind = "attack" if row["label"] else "trap" if row["kind"].startswith("trap") else "ordinary"
    in_first_half = sha256(row["text"].encode("utf-8", "replace")).digest()[0] < 128
    tuned_on = in_first_half or row["source"].startswith("pyrit")
    return Text(row["text"], kind, row["channel"], tuned_on)


def share_found(chosen: Iterable[Text]) -> tuple[int, int]:
    """(found, of how many)."""
    found = [text.found for text in chosen]
    return sum(found), len(found)


def table() -> str:
    """Shares found by kind, of the texts the patterns were chosen on and of those they are reported on, as Markdown."""
    all_texts = texts()
    lines = ["| texts | asked | chosen on | reported on |", "|---|---|---|---|"]
    for kind, words, asked in (
        ("attack", "attacks found", "≥ 90 %"),
        ("ordinary", "ordinary texts taken for attacks", "≤ 0.3 %"),
        ("trap", "traps taken for attacks", "≤ 5 %"),
    ):
        cells = []
        for tuned_on in (True, False):
            found, of = share_found(text for text in all_texts if (text.kind, text.tuned_on) == (kind, tuned_on))
            cells.append(f"{found} of {of}: {found / of:.1%}")
        lines.append(f"| {words} | {asked} | {cells[0]} | {cells[1]} |")
    return "\n".join(lines)
