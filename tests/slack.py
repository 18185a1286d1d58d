"""Slack's own reading of a message: `slack_sdk`'s models, and what they leave to the server.

document = slack.accept(body)   # NotAcceptedError, as Slack would answer 400 `invalid_payload`
slack.texts(document)           # every text a person would see
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterator
from typing import Any

from slack_sdk.errors import SlackObjectFormationError
from slack_sdk.models.attachments import BlockAttachment
from slack_sdk.models.blocks import Block

MOST_BLOCKS, TEXT_CHARS, HEADER_CHARS = 50, 3000, 150
ENTITY = re.compile(r"&(amp|lt|gt);")
BROADCAST = re.compile(r"[@＠](channel|here|everyone)", re.IGNORECASE)
WORD_JOINER = "\N{WORD JOINER}"


class NotAcceptedError(AssertionError):
    """Slack would answer 400."""


def accept(body: bytes) -> dict[str, Any]:
    """The message, if Slack would take it."""
    try:
        document = json.loads(body.decode("utf-8", "strict"))
    except ValueError as error:
        raise NotAcceptedError(f"not JSON: {error}") from None
    if set(document) != {"text", "attachments"} or not document["text"].strip():
        raise NotAcceptedError(f"not a message: {sorted(document)}")
    for attachment in document["attachments"]:
        _accept(attachment)
    return dict(document)


def texts(document: dict[str, Any]) -> Iterator[str]:
    """Every text in it, the fallback's too."""
    yield document["text"]
    for block in document["attachments"][0]["blocks"]:
        yield from _texts(block)


def assert_only_says_what_it_says(document: dict[str, Any]) -> None:
    """No mention, no link, no stray entity, no unseen character in any text of it."""
    for text in texts(document):
        assert "<" not in text and ">" not in text, text
        assert "&" not in ENTITY.sub("", text), text
        assert not BROADCAST.search(text), text
        unseen = {c for c in text if unicodedata.category(c) in {"Cc", "Cf", "Cs", "Zl", "Zp"}}
        assert unseen <= {"\n", WORD_JOINER}, ascii(text)


def _accept(attachment: dict[str, Any]) -> None:
    blocks = attachment["blocks"]
    try:
        parsed = Block.parse_all(blocks)
        understood = BlockAttachment(blocks=parsed, color=attachment["color"]).to_dict()
    except (SlackObjectFormationError, TypeError, KeyError) as error:
        raise NotAcceptedError(str(error)) from None
    if understood["blocks"] != blocks:
        raise NotAcceptedError(f"not understood as it was meant: {understood['blocks']}")
    if not 0 < len(blocks) <= MOST_BLOCKS or not re.fullmatch(r"#[0-9A-F]{6}", attachment["color"]):
        raise NotAcceptedError("too many blocks, or no colour")
    for block in blocks:
        limit = HEADER_CHARS if block["type"] == "header" else TEXT_CHARS
        for text in _texts(block):
            if not 0 < len(text.encode("utf-16-le")) // 2 <= limit:
                raise NotAcceptedError(f"{block['type']}: a text of {len(text)} characters")


def _texts(block: Any) -> Iterator[str]:
    if isinstance(block, dict):
        if isinstance(block.get("text"), str):
            yield block["text"]
        for value in block.values():
            yield from _texts(value)
    elif isinstance(block, list):
        for item in block:
            yield from _texts(item)
