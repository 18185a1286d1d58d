"""Random and mutated requests, at the parser core and over sockets: refused or answered, never a fault of ours."""

from __future__ import annotations

import os
import re
from collections import Counter
from pathlib import Path
from typing import Any

import h11
import pytest
import trio

from dunetrace.batches import Batch
from dunetrace.serving.http1 import MAX_HEAD_BYTES
from dunetrace.serving.ingest_app import IngestLimits
from tests.ingest.door_server import open_door
from tests.ingest.engine_server import connect
from tests.ingest.http1_reading import Found, read
from tests.ingest.mutations import Mutator

SEED = 20_261
MAX_GROWTH_BYTES = 12 << 20  # of the whole process, after a tenth of the requests
REFUSALS = {400, 413, 414, 417, 431, 501, 505}
CLIENTS = 16

small = pytest.param(1, id="small")
proof = pytest.param(50, id="proof", marks=pytest.mark.prove)


def _resident_bytes() -> int:
    """Of this process. 0 where the system doesn't say."""
    statm = Path("/proc/self/statm")
    return int(statm.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") if statm.exists() else 0


def _by_h11(data: bytes) -> tuple[bytes, bytes, bytes] | None:
    """Method, target and body of the first request as h11 reads it; None when it refuses or waits for more."""
    reader = h11.Connection(h11.SERVER)
    reader.receive_data(data)
    line, body = (b"", b""), b""
    try:
        while True:
            match reader.next_event():
                case h11.Request(method=method, target=target):
                    line = (method, target)
                case h11.Data(data=piece):
                    body += piece
                case h11.EndOfMessage():
                    return (*line, body)
                case _:
                    return None
    except h11.RemoteProtocolError:
        return None


def _check_against_h11(data: bytes, found: Found) -> bool:
    """What we take for the first request is the same to a reader of other people's making, or none to it."""
    theirs = _by_h11(data.lstrip(b"\r\n"))
    if theirs is None or not found.requests:
        return False
    head, body = found.requests[0]
    method, target, their_body = theirs
    assert (head.method.encode(), body) == (method, bytes(their_body)), data
    assert not target.startswith(b"/") or target.decode() == head.target, data
    return True


@pytest.mark.parametrize("times", [small, proof])
def test_the_core_raises_nothing_but_protocol_errors(times: int) -> None:
    count = 20_000 * times
    mutator = Mutator(SEED)
    statuses: Counter[int | None] = Counter()
    whole = compared = settled_bytes = 0
    for number in range(count):
        pieces = mutator.pieces()
        found = read(pieces, most_held_bytes=MAX_HEAD_BYTES)
        statuses[found.error] += 1
        whole += len(found.requests)
        if number % 10 == 0:
            data = b"".join(pieces)
            assert read([data]) == found, data
            compared += _check_against_h11(data, found)
        if number == count // 10:
            settled_bytes = _resident_bytes()
    print(f"{count} streams, {whole} whole requests, {compared} compared with h11, {dict(statuses)}")
    assert statuses.keys() <= REFUSALS | {None}
    assert REFUSALS - {413, 414, 431} <= statuses.keys()
    assert whole > count / 10
    assert compared > count / 200
    assert _resident_bytes() - settled_bytes < MAX_GROWTH_BYTES


@pytest.mark.parametrize("times", [small, proof])
async def test_over_sockets_there_is_never_a_500_and_nothing_is_left(
    times: int, capfd: pytest.CaptureFixture[str]
) -> None:
    count = 1_000 * times
    mutator = Mutator(SEED + 1)
    statuses: Counter[int] = Counter()
    left = 0

    async def forget(_batch: Batch) -> None:
        await trio.lowlevel.checkpoint()

    async def client(port: int) -> None:
        nonlocal left
        while left > 0:
            left -= 1
            statuses.update(await _told(port, mutator.pieces()))

    async with open_door(limits=IngestLimits(rate_limit_rpm=0)) as door:
        door.promise.keep = forget  # type: ignore[method-assign]
        await _told(door.port, [b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"])
        before = await _in_use(door.app)
        for some in (count // 10, count - count // 10):
            settled_bytes, left = _resident_bytes(), some
            async with trio.open_nursery() as nursery:
                for _ in range(CLIENTS):
                    nursery.start_soon(client, door.port)
        assert await _in_use(door.app) == before
        assert _resident_bytes() - settled_bytes < MAX_GROWTH_BYTES
    logged = "".join(capfd.readouterr())
    with capfd.disabled():
        print(f"{count} connections, answers: {dict(statuses)}")
    assert statuses.keys() <= REFUSALS | {200, 202, 403, 404, 405, 415, 422}
    assert {200, 202, 400, 422} <= statuses.keys()
    assert "failed" not in logged


async def _told(port: int, pieces: list[bytes]) -> list[int]:
    """The statuses of all answers to these pieces, sent on one connection whose sending end is closed after them."""
    async with connect(port) as wire:
        try:
            for piece in pieces:
                await wire.send(piece)
            await wire.stream.send_eof()
        except (trio.BrokenResourceError, OSError):
            pass  # refused before it was whole
        said = await wire.ends(30)
    return [int(status) for status in re.findall(rb"HTTP/1\.1 (?!100)(\d{3}) ", said)]


async def _in_use(app: Any) -> tuple[int, int, int, int]:
    """Descriptors, tasks, bytes of bodies and requests in hand, once the loop has come to rest."""
    await trio.testing.wait_all_tasks_blocked(0.05)
    tasks = trio.lowlevel.current_statistics().tasks_living
    return len(list(Path("/dev/fd").iterdir())), tasks, app._bodies.used_bytes, app._in_hand
