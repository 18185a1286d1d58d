"""What an attacker may try, each as a client that checks that it is refused or closed in bounded time.

``python -m tests.ingest.attacks NAME PORT SECONDS`` attacks a server that runs with its own limits.
"""

from __future__ import annotations

import gzip
import random
import sys
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import NamedTuple

import trio

from dunetrace.serving.connection import EngineLimits
from tests.ingest.engine_server import Wire, connect, post, request
from tests.ingest.test_http1 import REFUSED

SLACK_S = 5.0  # of a busy machine, beside a limit
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


async def nothing(_target: Target) -> None:
    """To compare with."""
    await trio.sleep(0.1)


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
        await _until_cut_off(lambda: wire.send(piece), target.limits.body_s + target.limits.linger_s)


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
    "no attack": (nothing, 1),
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


async def attack(target: Target, name: str, at_least_s: float) -> None:
    """The attack by all its attackers, again and again for a while. Fails where one isn't refused in bounded time."""
    once, attackers = ATTACKS[name]
    until = trio.current_time() + at_least_s

    async def attacker() -> None:
        while True:
            await once(target)
            if trio.current_time() >= until:
                break

    async with trio.open_nursery() as nursery:
        for _ in range(max(1, int(attackers * target.scale))):
            nursery.start_soon(attacker)


if __name__ == "__main__":
    _, _name, _port, _seconds = sys.argv
    trio.run(attack, Target(int(_port), EngineLimits(), 64 << 20, 1), _name, float(_seconds))
