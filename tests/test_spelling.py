"""The nearest allowed name, as an error suggests it."""

from __future__ import annotations

from dunetrace.spelling import edits, nearest


def test_edits_count_additions_drops_changes_and_swaps() -> None:
    pairs = [
        ("", "abc"),
        ("abc", "abc"),
        ("acb", "abc"),
        ("ab", "abc"),
        ("abcd", "abc"),
        ("axc", "abc"),
        ("xyz", "abc"),
    ]
    assert [edits(*pair) for pair in pairs] == [3, 0, 1, 1, 1, 1, 3]


def test_the_nearest_takes_the_fewest_edits() -> None:
    assert nearest("sevrity", ("name", "min_severity", "severity")) == "severity"
    assert nearest(True, ("true", "false")) == "true"
    assert nearest("x" * 100_000, ("short",)) == "short"
