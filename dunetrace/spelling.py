"""Which allowed name a mistyped one is nearest to, for the errors of files that people write.

Used where detectors.yml and alerts.yml are checked.
"""

from __future__ import annotations

from collections.abc import Iterable


def nearest(written: object, known: Iterable[str]) -> str:
    """The one of `known` that takes the fewest edits to come to."""
    return min(known, key=lambda candidate: edits(str(written)[:64], candidate))


def edits(first: str, second: str) -> int:
    """How many letters must be added, dropped, changed or swapped with their neighbour to make one of the other."""
    rows = [list(range(len(second) + 1))]
    for i, letter in enumerate(first, start=1):
        row = [i]
        for j, other in enumerate(second, start=1):
            cost = min(rows[-1][j] + 1, row[-1] + 1, rows[-1][j - 1] + (letter != other))
            if i > 1 and j > 1 and letter == second[j - 2] and first[i - 2] == other:
                cost = min(cost, rows[-2][j - 2] + 1)
            row.append(cost)
        rows = [rows[-1], row]
    return rows[-1][-1]
