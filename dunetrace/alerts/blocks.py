"""Slack's Block Kit, piece by piece: text that says only what it says, within Slack's limits.

Names in an alert come from other people's agents. Whatever they hold is shown literally: no mention, no link, no
entity, no unseen character, nothing that turns the line around. Used by `slack.py` and `digest.py`.
"""

from __future__ import annotations

import json
import re
import unicodedata
from typing import TYPE_CHECKING, Any

from dunetrace.alerts.webhook import Message
from dunetrace.explain.wording import UNSEEN, shown_name

if TYPE_CHECKING:
    from collections.abc import Sequence

# Slack's own, in UTF-16 units as JavaScript counts; https://docs.slack.dev/reference/block-kit/blocks
HEADER_CHARS, URL_CHARS, CONTEXT_ELEMENTS = 150, 3000, 10
# Ours: short enough to be read; a title, a paragraph and code fit into one section (3000), and so do twenty names.
NAME_CHARS, PROSE_CHARS, CODE_CHARS, FALLBACK_CHARS = 120, 1200, 1500, 300

_ENTITIES = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}
_WORD_JOINER = "\N{WORD JOINER}"  # unseen, and no name begins with it, so what follows an @ is no longer a mention
_MENTION = re.compile(r"@(?=\S)")
_BROADCAST = re.compile(r"@(?=channel|here|everyone)", re.IGNORECASE)

Block = dict[str, Any]


def prose(text: str, limit: int = PROSE_CHARS) -> str:
    """`text` to be put into a message, cut with an ellipsis at `limit`. There is no link syntax without a bare ``<``,
    so a ``|`` in it is only a ``|``.
    """
    return _cut(_MENTION.sub(f"@{_WORD_JOINER}", _seen(text)), limit)


def name(text: str) -> str:
    """Somebody's name for something, on one line and in code type."""
    return f"`{prose(shown_name(text), NAME_CHARS)}`"


def code(text: str, limit: int = CODE_CHARS) -> str:
    """`text` as a block of code that can be copied: a decorator's @ stays as it is, a mention of all does not."""
    return f"```\n{_cut(_BROADCAST.sub(f'@{_WORD_JOINER}', _seen(text).replace('```', chr(39) * 3)), limit)}\n```"


def header(text: str) -> Block:
    """A heading; plain text, in which backticks would only be seen."""
    return {"type": "header", "text": {"type": "plain_text", "text": prose(text.replace("`", ""), HEADER_CHARS)}}


def section(title: str, *parts: str) -> Block:
    """A titled paragraph, a line each; `parts` are prose, names and code already."""
    return line("\n".join([f"*{title}*", *parts]))


def line(text: str) -> Block:
    """A paragraph without a title; `text` is prose already."""
    return {"type": "section", "text": _mrkdwn(text)}


def context(items: Sequence[str]) -> Block:
    """Small print: at most ten items."""
    return {"type": "context", "elements": [_mrkdwn(item) for item in items[:CONTEXT_ELEMENTS]]}


def button(label: str, url: str | None) -> list[Block]:
    """A link, or nothing where there is no address or one longer than Slack takes."""
    if url is None or len(url) > URL_CHARS:
        return []
    text = {"type": "plain_text", "text": label}
    return [{"type": "actions", "elements": [{"type": "button", "text": text, "url": url}]}]


def message(fallback: str, colour: str, blocks: list[Block]) -> Message:
    """What is POSTed. `fallback` is what a notification shows; `colour` is the bar beside the blocks."""
    document = {"text": prose(fallback, FALLBACK_CHARS), "attachments": [{"color": colour, "blocks": blocks}]}
    body = json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()
    return Message(body, {"Content-Type": "application/json; charset=utf-8"})


def _mrkdwn(text: str) -> Block:
    # verbatim: else Slack makes links of its own of what looks like an address or a channel.
    return {"type": "mrkdwn", "text": text, "verbatim": True}


def _seen(text: str) -> str:
    return "".join(" " if unicodedata.category(c) in UNSEEN and c != "\n" else c for c in text)


def _cut(text: str, limit: int) -> str:
    """`text` with its entities, at most `limit` UTF-16 units, never ending within an entity."""
    pieces = [_ENTITIES.get(c, c) for c in text]
    length, kept = 0, len(pieces)
    for index, piece in enumerate(pieces):
        if length < limit:
            kept = index  # an ellipsis still fits before this piece
        length += _units(piece)
        if length > limit:
            return "".join(pieces[:kept]) + "…"
    return "".join(pieces)


def _units(piece: str) -> int:
    return len(piece) + (piece > "\uffff")
