"""What a destination's actor has claimed and not finished yet, and how much more it may claim.

Claiming many at once is what makes claiming cheap, and a claim that waits for a lane is what makes it unsafe: its lease
runs. So there are claims in waiting only while attempts are quick. As soon as one is not, those that wait are given
back, and from then on no more is claimed than lanes are free: nothing ever waits for longer than one attempt takes.

Most lanes are idle until the last attempt was a success: a receiver that is away or overloaded is asked by few.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from dunetrace.store.writes.deliveries import Claim

if TYPE_CHECKING:
    from collections.abc import Sequence

MOST = 50  # deliveries in hand
QUICK_S = 0.1  # an attempt: what waits then has its turn within about a second


class Hand:
    """One attempt's of a destination actor. `few` and `lanes` are the attempts it makes side by side: the latter while
    the receiver takes what it is sent.
    """

    def __init__(self, few: int, lanes: int) -> None:
        self._few, self._lanes = few, lanes
        self._put, self.claims = trio.open_memory_channel[Claim](MOST)  # `claims`: what the lanes take from
        self._unfinished = 0
        self._is_smooth = False
        self.is_quick = False
        self.more_is_due = False  # than there was room for

    @property
    def room(self) -> int:
        """How many may be claimed now. None while enough wait: a few at a time would be as dear as one by one."""
        if self.is_quick:
            return MOST - self._unfinished if self._unfinished < 2 * self._lanes else 0
        return max(0, (self._lanes if self._is_smooth else self._few) - self._unfinished)

    def put(self, claims: Sequence[Claim]) -> None:
        """Lay claims before the lanes; not more than there was room for."""
        for claim in claims:
            self._put.send_nowait(claim)
        self._unfinished += len(claims)

    def attempted(self, took_s: float, *, smoothly: bool) -> None:
        """What a lane took was attempted; `smoothly`: with success, and more may follow at once."""
        self._is_smooth = smoothly
        self.is_quick = smoothly and took_s < QUICK_S

    def finished(self) -> None:
        """A lane is done with what it took."""
        self._unfinished -= 1

    def take_back(self) -> list[Claim]:
        """What no lane has taken up."""
        waiting: list[Claim] = []
        while self.claims.statistics().current_buffer_used:
            waiting.append(self.claims.receive_nowait())
        self._unfinished -= len(waiting)
        return waiting

    def close(self) -> None:
        """Nothing more will come: the lanes end with what they have."""
        self._put.close()
