"""Wake-up hints between actors: a bell a name, rung by whoever made work, heard by whoever does it.

A hint may be lost, a row may not: every loop also looks by itself at its interval. The supervisor owns the channels and
lends each attempt a clone, so that a crash breaks nobody else.
"""

from __future__ import annotations

from collections.abc import Iterable

import trio

from dunetrace.actors.base import hint

CAPACITY = 1  # a hint says "look", and one is as good as many


class Bell:
    """Named hint channels of this process; what is rung here is passed on to other processes by `actors.wakeups`."""

    def __init__(self, names: Iterable[str]) -> None:
        self._channels = {name: trio.open_memory_channel[None](CAPACITY) for name in names}
        self._rung: set[str] = set()
        self.rung = trio.Event()

    def ring(self, name: str) -> None:
        """Wake whoever listens to `name`, here and in other processes."""
        self.ring_here(name)
        self._rung.add(name)
        self.rung.set()

    def ring_here(self, name: str) -> None:
        """Wake whoever listens to `name` in this process; a name nobody here listens to is ignored."""
        if name in self._channels:
            hint(self._channels[name][0])

    def take_rung(self) -> list[str]:
        """The names rung since the last call."""
        names, self._rung = sorted(self._rung), set()
        self.rung = trio.Event()
        return names

    def listen(self, name: str) -> trio.MemoryReceiveChannel[None]:
        """A clone of the receiving end."""
        return self._channels[name][1].clone()

    def sender(self, name: str) -> trio.MemorySendChannel[None]:
        """A clone of the sending end."""
        return self._channels[name][0].clone()
