"""Who holds how much of a queue, so that one key that floods the door leaves room for the others."""

from __future__ import annotations

from collections import Counter

from dunetrace.errors import QueueFullError


class Shares:
    """At most `limit` queued, and of one owner at most an even share of it, with one share always left over.

    What is counted is the queue's choice, events or bytes: an amount. While no more than `free` of it is taken in all,
    shares bind nobody, so that who is alone has nearly all of it.
    """

    def __init__(self, limit: int, *, free: int = 0) -> None:
        self._limit, self._free = limit, free
        self._held: Counter[str] = Counter()
        self.total = 0

    def check(self) -> None:
        """Raises QueueFullError when nobody gets in."""
        if self.total >= self._limit:
            raise QueueFullError

    def take(self, owner: str, amount: int) -> None:
        """Raises QueueFullError when it would be too many. An owner who holds none may go over its share once."""
        held = self._held[owner]
        if self.total and self.total + amount > self._limit:
            raise QueueFullError
        if held and self.total + amount > self._free and held + amount > self._limit // (len(self._held) + 1):
            raise QueueFullError("Too much of this key is queued; try again")
        self._held[owner] = held + amount
        self.total += amount

    def give_back(self, owner: str, amount: int) -> None:
        """It left the queue."""
        self.total -= amount
        self._held[owner] -= amount
        if self._held[owner] <= 0:
            del self._held[owner]
