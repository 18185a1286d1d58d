"""Three receivers under load, one away for a while and one that never answers: neither costs another an alert.

Small here, with the alert side's actors alone in this process; at length and with everything, also with the server
killed on the way, by `make prove`. How soon the healthy one is told is measured by `python -m bench.alerts`.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest
import trio
from structlog.testing import capture_logs

from bench.alerts import HANGING, HEALTHY, NAMES, RETURNING, Figures, measure, tenths
from dunetrace import deliveries
from dunetrace.actors.destination import FEW, DestinationActor
from dunetrace.actors.dispatcher import Dispatcher
from dunetrace.bell import Bell
from tests.alerts.ground import Ground, webhook
from tests.receiver import Mode, Receiver

SIGNALS, EVERY_S, AWAY_S = 300, 0.01, 1.5
ROOM_MIB = 16.0  # what memory may wander without growing


async def test_a_hundred_signals_a_second(ground: Ground, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deliveries, "ROUND_WAITS_S", (AWAY_S,))
    with ExitStack() as stack:
        stack.enter_context(capture_logs())  # a thousand lines on the console are time too
        receivers = {name: stack.enter_context(Receiver()) for name in NAMES}
        receivers[HANGING].mode = Mode.HANG
        destinations = [replace(webhook(receivers[name].url), name=name) for name in NAMES]
        bell = Bell(["dispatcher", *NAMES])
        dispatcher = Dispatcher(destinations, bell.listen("dispatcher"), {name: bell.sender(name) for name in NAMES})
        await dispatcher.run_once(ground.ctx)
        async with trio.open_nursery() as nursery:
            for actor in (dispatcher, *(DestinationActor(each, bell.listen(each.name)) for each in destinations)):
                await nursery.start(actor.run, ground.ctx)
            with receivers[RETURNING].refusing():
                await _find(ground, bell, range(SIGNALS // 2))
            await _find(ground, bell, range(SIGNALS // 2, SIGNALS))
            for name in (HEALTHY, RETURNING):
                await trio.to_thread.run_sync(receivers[name].wait_for, SIGNALS, 60.0)
            nursery.cancel_scope.cancel()
        told = {name: [request.document for request in receivers[name].requests] for name in NAMES}
    for name in (HEALTHY, RETURNING):
        assert len(told[name]) == len({document["delivery_id"] for document in told[name]}) == SIGNALS
    assert len(told[HANGING]) <= 3 * FEW  # what was attempted at first


async def _find(ground: Ground, bell: Bell, numbers: range) -> None:
    """Signals as a poller writes them, at an even pace."""

    async def find(n: int) -> None:
        await ground.add_signal(f"run {n}", agent_id=f"agent {n % 20}")
        bell.ring("dispatcher")

    async with trio.open_nursery() as nursery:
        for n in numbers:
            nursery.start_soon(find, n)
            await trio.sleep(EVERY_S)


@pytest.mark.prove
def test_ten_thousand_signals(tmp_path: Path) -> None:
    figures = measure(tmp_path, signals=10_000, rate=100.0, away_s=60.0)
    _assert_all_told(figures)
    memory = tenths(figures.memory_mib)
    assert max(memory[-3:]) <= max(memory[1:4]) + ROOM_MIB
    for name in (HEALTHY, RETURNING):
        assert len(figures.arrivals[name]) == figures.ids(name)


@pytest.mark.prove
def test_ten_thousand_signals_and_ten_kills(tmp_path: Path) -> None:
    figures = measure(tmp_path, signals=10_000, rate=100.0, away_s=60.0, kills=10)
    assert figures.kills == 10
    _assert_all_told(figures)


def _assert_all_told(figures: Figures) -> None:
    """Each signal arrived where it should, and whatever came again came under the same id."""
    assert figures.violations == []
    assert len(figures.found) >= figures.signals
    for name in (HEALTHY, RETURNING):
        assert figures.told(name) == figures.found
        assert figures.ids(name) == len(figures.found)
