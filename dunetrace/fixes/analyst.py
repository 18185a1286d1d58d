"""A model's reading of one signal: asked, checked, asked once more where the answer cannot be used, and accounted for.

Called by `desk.py`. One log line tells what it cost; what was asked and answered is in none.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import msgspec

from dunetrace.fixes.models import ask
from dunetrace.fixes.question import Diagnosis, Question
from dunetrace.fixes.services import ServiceError

if TYPE_CHECKING:
    from dunetrace.fixes.models import Answer
    from dunetrace.fixes.services import ModelAccess
    from dunetrace.outgoing.client import Client


class Reading(NamedTuple):
    """What the model found, and the tokens of all that was asked for it."""

    diagnosis: Diagnosis
    input_tokens: int
    output_tokens: int


async def diagnose(client: Client, access: ModelAccess, question: Question) -> Reading:
    """Raises ServiceError when the model fails, or twice answers something that cannot be used."""
    first = await ask(client, access, question)
    found = _read(first)
    if isinstance(found, Diagnosis):
        return Reading(found, first.input_tokens, first.output_tokens)
    second = await ask(client, access, question.again(found))
    found = _read(second)
    if isinstance(found, Diagnosis):
        sent, written = first.input_tokens + second.input_tokens, first.output_tokens + second.output_tokens
        return Reading(found, sent, written)
    raise ServiceError(f"{access.provider} twice gave an answer that cannot be used: {found}")


def _read(answer: Answer) -> Diagnosis | str:
    """The diagnosis, or what is wrong with it."""
    if answer.is_cut:
        return "it was longer than it may be"
    if not answer.text:
        return "it was empty"
    try:
        diagnosis = msgspec.json.decode(answer.text, type=Diagnosis)
    except msgspec.ValidationError as error:
        return f"it was not of the form asked for ({error})"  # names fields, types and limits, never a value
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return "it was not JSON"
    if not diagnosis.root_cause.strip() or not diagnosis.fix_content.strip():
        return "one of its texts was blank"
    return diagnosis
