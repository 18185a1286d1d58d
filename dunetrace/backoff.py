"""How long to wait before trying again. The one schedule, for the supervisor, parked runs, the SDK and deliveries.

Pure: the caller brings the randomness, so that a test can bring its own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import random

# Beyond this many doublings every cap in use has long been reached; 2.0 ** 1024 would overflow.
_MOST_DOUBLINGS = 64


def delay_s(attempt: int, *, base_s: float, cap_s: float, rng: random.Random) -> float:
    """Seconds to wait after failed attempt number `attempt` (1, 2, 3, …; anything lower counts as 1).

    The wait doubles from `base_s` up to `cap_s` and is then scaled by a random 0.5..1.0, so that many clients that
    failed together do not come back together. The result lies in 0..`cap_s`.
    """
    doublings = min(max(attempt, 1) - 1, _MOST_DOUBLINGS)
    return float(min(cap_s, base_s * 2.0**doublings) * rng.uniform(0.5, 1.0))
