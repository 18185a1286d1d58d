from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import pytest

from dunetrace.detectors.declaration import Evidence, FixWords, Thresholds, Words, confidence
from dunetrace.detectors.tool_loop import DETECTOR


@dataclass(frozen=True, slots=True)
class Undeclared(Thresholds):
    threshold: int = 3


def _with(**changes: Any) -> dict[str, Words]:
    return {"equal": replace(DETECTOR.words["equal"], **changes)}


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"doc": None}, "docstring"),
        ({"doc": "Too short."}, "docstring"),
        ({"thresholds": dict}, "derived from Thresholds"),
        ({"thresholds": Undeclared}, "threshold threshold must be made by limit"),
        ({"evidence": Thresholds}, "derived from Evidence"),
        ({"evidence": Evidence}, "no field"),
        ({"words": {}}, "words are missing"),
        ({"words": _with(title="{prompt}")}, "prompt"),
        ({"words": _with(what=" ")}, "empty"),
        ({"words": _with(fixes=())}, "1 to 3 fixes"),
        ({"words": _with(fixes=(FixWords("d", "python", "print({secret:literal})"),))}, "secret"),
    ],
)
def test_a_missing_part_is_an_error(changes: dict[str, Any], fault: str) -> None:
    with pytest.raises(TypeError, match=f"detector TOOL_LOOP: .*{fault}"):
        replace(DETECTOR, **changes)


def test_a_part_cannot_be_left_out() -> None:
    with pytest.raises(TypeError):
        type(DETECTOR)(doc=DETECTOR.doc, failure_type=DETECTOR.failure_type)  # type: ignore[call-arg]


def test_a_kind_without_words_of_its_own_gets_the_first() -> None:
    assert DETECTOR.words_for({"kind": "of another release"}) is DETECTOR.words["equal"]


def test_confidence_grows_from_its_floor_and_stays_below_its_ceiling() -> None:
    values = [confidence(margin, 0.6) for margin in (0.5, 1, 1.5, 2, 10, 1e9, float("inf"))]
    assert values == sorted(values)
    assert (values[0], values[1], values[-1]) == (0.6, 0.6, 0.99)
