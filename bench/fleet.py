"""The events of a healthy fleet: runs of about 22 events of which two in a hundred fail, each sent in a few pieces.

What the benches of detection and of the whole feed. Made once as a short reel of units, which is then played again and
again under new run ids: making events afresh would cost more than judging them. ``python -m bench.fleet`` is
`bench.clients` with these events, in requests that cut across runs.
"""

from __future__ import annotations

import json
import random
import re
import time
from collections.abc import Callable, Iterator
from itertools import chain, repeat
from typing import NamedTuple

from bench.clients import Load, Requests, send
from tests.harness.shapes import Event, Script, errored, healthy, injected, looping, many_steps, unending

AGENTS = 20
PIECES = (2, 3, 4)  # a client ships five times a second, and a run takes a while
REEL_UNITS = 40
REEL_UNIT = 2_000
_AT, _BEGUN_NOW, _BEGUN_BEFORE = b"@at@", b"@now@", b"@bfr@"  # what is put into a body
_MARK = 6  # leading characters of a run id that tell the plays of the reel apart

# Long runs are other agents' runs, or they would all be longer than usual. 13, 84 and fewer events: 22 on average.
_SHAPES: tuple[tuple[Callable[[Script], None], str, int], ...] = (
    (healthy, "fleet", 840), (many_steps, "fleet-long", 130), (looping, "fleet", 10), (errored, "fleet", 8),
    (injected, "fleet", 2), (unending, "fleet", 10),
)  # fmt: skip


class Part(NamedTuple):
    """One event in its unit; `late` when its run began in the play of the reel before this one."""

    event: Event
    late: bool


class Reel:
    """Units of about `unit` events. Endless: every run that is begun is ended in one of the units that follow."""

    def __init__(self, unit: int, seed: int = 0) -> None:
        rng = random.Random(seed)
        self.units: list[list[Part]] = [[] for _ in range(REEL_UNITS)]
        for number in range(REEL_UNITS):
            begun = 0
            while begun < unit:
                events = _run(rng)
                begun += len(events)
                self._lay(rng, events, number)

    def _lay(self, rng: random.Random, events: list[Event], number: int) -> None:
        """A run's events in pieces, the first in unit `number`, the others each a few units later."""
        pieces = rng.choice(PIECES)
        size = -(-len(events) // pieces)
        place = number
        for start in range(0, len(events), size):
            self.units[place % REEL_UNITS] += [Part(event, place >= REEL_UNITS) for event in events[start:][:size]]
            place += rng.randint(1, 4)

    def play(self) -> Iterator[list[Event]]:
        """Unit after unit without end, each event a new one; its `timestamp` is for the sender to say."""
        play = 0
        while True:
            for unit in self.units:
                yield [_marked(part.event, play - part.late) for part in unit if play or not part.late]
            play += 1


class FleetRequests(Requests):
    """The reel cut into requests. Run ids and times are put into bodies made before."""

    def __init__(self, load: Load) -> None:
        super().__init__(load)
        parts = [part for unit in Reel(REEL_UNIT, load.seed).units for part in unit]
        first = [part for part in parts if not part.late]
        self._plays = chain([_templates(first, load.batch)], repeat(_templates(parts, load.batch)))
        self._bodies = self._play()

    def body(self) -> bytes:
        return next(self._bodies).replace(_AT, b"%.3f" % time.time())

    def _play(self) -> Iterator[bytes]:
        for play, templates in enumerate(self._plays, start=1):
            now, before = (b"%0*x" % (_MARK, begun) for begun in (play, play - 1))
            yield from (body.replace(_BEGUN_NOW, now).replace(_BEGUN_BEFORE, before) for body in templates)


def _templates(parts: list[Part], batch: int) -> list[bytes]:
    return [_template(parts[at : at + batch]) for at in range(0, len(parts), batch)]


def _template(parts: list[Part]) -> bytes:
    """The body of one request, its events some microseconds apart."""
    events = []
    for place, (event, late) in enumerate(parts):
        run_id = (_BEGUN_BEFORE if late else _BEGUN_NOW).decode() + event["run_id"][_MARK:]
        events.append({**event, "run_id": run_id, "timestamp": f"{_AT.decode()}{place:03}"})
    body = json.dumps({"agent_id": "fleet", "events": events}).encode()
    return re.sub(b'"(%s\\d{3})"' % _AT, rb"\1", body)


def _run(rng: random.Random) -> list[Event]:
    shape, agent, _ = rng.choices(_SHAPES, [weight for *_, weight in _SHAPES])[0]
    script = Script(rng, f"{agent}-{rng.randrange(AGENTS)}", 0.0)
    shape(script)
    return script.events


def _marked(event: Event, play: int) -> Event:
    return {**event, "run_id": f"{play:0{_MARK}x}{event['run_id'][_MARK:]}"}


if __name__ == "__main__":
    send(FleetRequests)
