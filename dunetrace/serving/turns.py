"""Whose body is decoded next, so that a flood leaves the event loop to others and one sender leaves the door to others.

Decoding is work of the loop. Without a bound, hundreds of bodies that arrived together would be decoded in one go, and
neither the writer nor a quiet sender would get a word in meanwhile.
"""

from __future__ import annotations

from collections import OrderedDict, deque

import trio


class Turns:
    """At most `capacity_bytes` of bodies between decoding and promise; who waits is served one flow after the other."""

    def __init__(self, capacity_bytes: int) -> None:
        self._capacity_bytes = capacity_bytes
        self._used_bytes = 0
        self._waiting: OrderedDict[str, deque[tuple[int, trio.lowlevel.Task]]] = OrderedDict()

    async def take(self, flow: str, size_bytes: int) -> None:
        """Wait for a turn; a body larger than everything gets one alone. `flow` is whose turn it is: a key, a host.

        No checkpoint when there is room.
        """
        if not self._waiting and self._fits(size_bytes):
            self._used_bytes += size_bytes
            return
        entry = (size_bytes, trio.lowlevel.current_task())
        self._waiting.setdefault(flow, deque()).append(entry)

        def abort(_raise_cancel: object) -> trio.lowlevel.Abort:
            waiting = self._waiting[flow]
            waiting.remove(entry)
            if not waiting:
                del self._waiting[flow]
            self._serve()  # it may have been the one that was too large for the room there is
            return trio.lowlevel.Abort.SUCCEEDED

        await trio.lowlevel.wait_task_rescheduled(abort)

    def give_back(self, size_bytes: int) -> None:
        """The turn is over."""
        self._used_bytes -= size_bytes
        self._serve()

    def _fits(self, size_bytes: int) -> bool:
        return not self._used_bytes or self._used_bytes + size_bytes <= self._capacity_bytes

    def _serve(self) -> None:
        while self._waiting:
            flow, waiting = next(iter(self._waiting.items()))
            size_bytes, task = waiting[0]
            if not self._fits(size_bytes):
                return
            waiting.popleft()
            if waiting:
                self._waiting.move_to_end(flow)
            else:
                del self._waiting[flow]
            self._used_bytes += size_bytes
            trio.lowlevel.reschedule(task)
