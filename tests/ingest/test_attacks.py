"""Attacks: each is refused or closed in bounded time, while a healthy client beside it is answered.

In `make test` the door runs in this process with shortened limits. The proof runs every attack against the whole server
with its own limits and measures the healthy client, which is a process of its own.
"""

from __future__ import annotations

import gzip
import json
import random
import statistics
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from typing import Any, NamedTuple

import pytest
import trio

from dunetrace.serving.connection import EngineLimits
from dunetrace.serving.ingest_app import IngestLimits
from tests.harness.server import Server
from tests.ingest.door_server import open_door
from tests.ingest.engine_server import Wire, connect, post, request
from tests.ingest.test_http1 import REFUSED
from tests.shared import CHECKOUT

SLACK_S = 5.0  # of a busy machine, beside a limit
P99_MS = 100.0
GET = request("/health")
JSON = "Content-Type: application/json"
HEAD = request("/v1/ingest", JSON, "Transfer-Encoding: chunked", method="POST")


class Target(NamedTuple):
    """The door under attack. `scale` 1 is the whole attack, less is a smaller one."""

    port: int
    limits: EngineLimits
    body_bytes: int
    scale: float


Attack = Callable[[Target], Awaitable[None]]


async def _refused(wire: Wire, *statuses: int) -> None:
    """The next answer is a refusal and the last."""
    said = await wire.answer()
    assert said.status in statuses
    assert said.headers["connection"] == "close"
    assert list(said.body) == ["detail"]
    await wire.ends(SLACK_S)


async def _until_cut_off(send: Callable[[], Awaitable[None]], within_s: float) -> None:
    with trio.fail_after(within_s + SLACK_S), suppress(trio.BrokenResourceError):
        while True:
            await send()


async def slow_headers(target: Target) -> None:
    async def drip() -> None:
        await wire.send(b"X: y\r\n")
        await trio.sleep(target.limits.head_s / 20)

    async with connect(target.port) as wire:
        await wire.send(GET[:-2])
        await _until_cut_off(drip, target.limits.head_s)


async def slow_body(target: Target) -> None:
    async with connect(target.port) as wire:
        await wire.send(request("/v1/ingest", JSON, "Content-Length: 500", method="POST", body=b"{"))
        with trio.fail_after(target.limits.body_s + SLACK_S):
            await _refused(wire, 408)


async def never_reading(target: Target) -> None:
    async with connect(target.port, receive_buffer_bytes=4_096) as wire:
        await _until_cut_off(lambda: wire.send(GET * 100), target.limits.answer_s)


async def oversized_body(target: Target) -> None:
    async with connect(target.port) as wire:
        await wire.send(request("/v1/ingest", JSON, f"Content-Length: {target.body_bytes + 1}", method="POST"))
        await _refused(wire, 413)


async def endless_chunks(target: Target) -> None:
    piece = b"10000\r\n" + b" " * 65_536 + b"\r\n"
    async with connect(target.port) as wire:
        await wire.send(HEAD)
        await _until_cut_off(lambda: wire.send(piece), target.limits.body_s + target.limits.linger_s)


async def endless_tiny_chunks(target: Target) -> None:
    piece = b"1\r\n \r\n" * 10_000
    async with connect(target.port) as wire:
        await wire.send(HEAD)
        with trio.move_on_after(min(3, target.limits.body_s)):  # it is a body as any other, only dear to send
            await _until_cut_off(lambda: wire.send(piece), target.limits.request_s)


async def gzip_bomb(target: Target) -> None:
    bomb = gzip.compress(b" " * (target.body_bytes + 1))
    async with connect(target.port) as wire:
        said = await wire.ask(post("/v1/ingest", bomb, JSON, "Content-Encoding: gzip"))
        assert said.status in (413, 503)  # 503: with others beside it, all bodies together are too much


async def gzip_of_many_members(target: Target) -> None:
    members = gzip.compress(b"", mtime=0) * (min(target.body_bytes, 4 << 20) // 20 - 1)
    async with connect(target.port) as wire:
        said = await wire.ask(post("/v1/ingest", members, JSON, "Content-Encoding: gzip"))
        assert said.status in (422, 503)


async def idle_connections(target: Target) -> None:
    async def idle() -> None:
        async with connect(target.port) as wire:
            opened.append(wire)
            assert await wire.ends(target.limits.head_s + SLACK_S + count / 500) == b""

    opened: list[Wire] = []
    count = int(5_000 * target.scale)
    async with trio.open_nursery() as nursery:
        for _ in range(count):
            nursery.start_soon(idle)
            await trio.lowlevel.checkpoint()
    assert len(opened) == count


async def pipelined_garbage(target: Target) -> None:
    noise = random.Random(target.port).randbytes(2_000)
    async with connect(target.port) as wire:
        await wire.send(GET * 20 + b"\0" + noise)
        for _ in range(20):
            assert (await wire.answer()).status == 200
        await _refused(wire, 400)


async def ten_thousand_requests_at_once(target: Target) -> None:
    """As many as go through in a second or so, all sent before the first answer is read."""
    async with connect(target.port) as wire:
        count = int(10_000 * target.scale)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(wire.send, GET * count)
            for _ in range(count):
                assert (await wire.answer()).status == 200


def malformed(shape: str) -> Attack:
    """A shape of the grammar's table, with a second request hidden behind it that nobody may answer."""
    data, status = REFUSED[shape]
    data = data.replace(b"POST / ", b"POST /v1/ingest ").replace(b"Host: a", f"Host: localhost\r\n{JSON}".encode())

    async def attack(target: Target) -> None:
        async with connect(target.port) as wire:
            await wire.send(data + GET)
            await _refused(wire, status)

    return attack


# name → the attack, and how many do it side by side again and again
ATTACKS: dict[str, tuple[Attack, int]] = {
    "slow headers": (slow_headers, 200),
    "slow body": (slow_body, 200),
    "never-reading client": (never_reading, 20),
    "oversized body": (oversized_body, 10),
    "never-ending chunked body": (endless_chunks, 4),
    "body of one-byte chunks": (endless_tiny_chunks, 4),
    "gzip bomb": (gzip_bomb, 4),
    "gzip of many members": (gzip_of_many_members, 2),
    "5,000 idle connections": (idle_connections, 1),
    "pipelined garbage": (pipelined_garbage, 10),
    "10,000 pipelined requests": (ten_thousand_requests_at_once, 4),
    "bad chunk size": (malformed("a size that is no number"), 4),
    "chunk size with 0x": (malformed("a size with 0x"), 4),
    "Content-Length and Transfer-Encoding": (malformed("length and coding"), 4),
    "two Content-Length": (malformed("two lengths"), 4),
    "two equal Content-Length": (malformed("two equal lengths"), 4),
    "obs-fold": (malformed("a folded coding"), 4),
    "bare LF": (malformed("a bare LF after a field"), 4),
}


async def _attack(target: Target, name: str, at_least_s: float) -> None:
    """The attack by all its attackers, again and again for a while."""
    attack, attackers = ATTACKS[name]
    until = trio.current_time() + at_least_s

    async def attacker() -> None:
        while True:
            await attack(target)
            if trio.current_time() >= until:
                break

    async with trio.open_nursery() as nursery:
        for _ in range(max(1, int(attackers * target.scale))):
            nursery.start_soon(attacker)


@asynccontextmanager
async def _healthy_client(port: int) -> AsyncIterator[dict[str, Any]]:
    """A healthy client for the length of the block, after which the mapping holds what it saw."""
    seen: dict[str, Any] = {}
    command = [sys.executable, "-m", "tests.ingest.healthy", str(port)]
    process = await trio.lowlevel.open_process(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=CHECKOUT
    )  # fmt: skip
    assert process.stdin is not None
    assert process.stdout is not None
    async with process.stdin, process.stdout:
        try:
            said = await process.stdout.receive_some(100)
            assert said.startswith(b"answered")
            yield seen
            await process.stdin.aclose()
            said = b"".join([piece async for piece in process.stdout])
        finally:
            process.kill()  # it has ended, unless something failed here
            with trio.CancelScope(shield=True):
                await process.wait()
    seen.update(json.loads(said.splitlines()[-1]))


async def _beside_a_healthy_client(target: Target, name: str, at_least_s: float) -> list[float]:
    """The waits of the healthy client, in milliseconds."""
    async with _healthy_client(target.port) as seen:
        await _attack(target, name, at_least_s)
    assert set(seen["statuses"]) == {"202"}
    async with connect(target.port) as wire:
        assert (await wire.ask(GET)).status == 200
    waits_ms: list[float] = seen["waits_ms"]
    return waits_ms


@pytest.mark.parametrize("name", ATTACKS)
async def test_refused_in_bounded_time_and_others_are_answered(name: str) -> None:
    limits = EngineLimits(
        head_s=0.5, body_s=0.5, request_s=2.0, idle_s=5.0, answer_s=0.5, linger_s=0.5, sweep_s=0.05
    )  # fmt: skip
    async with open_door(limits=IngestLimits(1 << 20, rate_limit_rpm=0), engine_limits=limits) as door:
        await _beside_a_healthy_client(Target(door.port, limits, 1 << 20, 0.1), name, 0)
        assert door.app._bodies.used_bytes == 0
        assert door.app._in_hand <= 1  # of a body that is still on its way


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with Server(tmp_path_factory.mktemp("attacked"), env={"DUNETRACE_RATE_LIMIT_RPM": "0"}) as running:
        yield running


@pytest.mark.prove
@pytest.mark.parametrize("name", ATTACKS)
async def test_a_healthy_client_beside_an_attack_hardly_waits(name: str, server: Server) -> None:
    port = int(server.ingest_url.rpartition(":")[2])
    waits_ms = await _beside_a_healthy_client(Target(port, EngineLimits(), 64 << 20, 1), name, 5)
    cuts = statistics.quantiles(waits_ms, n=100)
    print(f"{name:40} p50 {cuts[49]:6.1f} ms  p99 {cuts[98]:6.1f} ms  max {max(waits_ms):6.1f} ms  of {len(waits_ms)}")
    assert cuts[98] <= P99_MS
