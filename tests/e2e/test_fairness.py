"""One key floods the door and never waits; another, quiet one is served all the same."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import trio

from dunetrace.serving.answers import OVERLOAD_HOLD_S
from dunetrace.serving.auth import key_hash
from tests.e2e.crashing import until
from tests.harness.server import Server
from tests.harness.world import execute

NOISY, QUIET = "dt_noisy_key", "dt_quiet_key"
FLOODING = 64  # connections, each with the next batch as soon as it is answered
FLOOD_EVENTS = 100
QUIET_EVERY_S = 0.1
ENV = {"AUTH_MODE": "prod", "DUNETRACE_RATE_LIMIT_RPM": "0"}


@dataclass
class Answered:
    """By status, and how long each answer took."""

    statuses: Counter[int] = field(default_factory=Counter)
    took_s: list[float] = field(default_factory=list)
    refused_s: list[float] = field(default_factory=list)
    without_retry_after: int = 0

    def note(self, status: int, retry_after: bool, took_s: float) -> None:
        self.statuses[status] += 1
        self.took_s.append(took_s)
        if status in (429, 503):
            self.without_retry_after += not retry_after
        if status == 503:
            self.refused_s.append(took_s)

    def percentile_ms(self, share: float) -> float:
        return 1_000 * sorted(self.took_s)[int(share * (len(self.took_s) - 1))]


def request(key: str, run_id: str, events: int) -> bytes:
    """A whole request. Sent twice it is two batches, because nothing in it says that they are one."""
    batch = [
        {"event_type": "llm.called", "run_id": run_id, "agent_id": "a", "agent_version": "v", "step_index": n,
         "timestamp": time.time(), "payload": {"model": "m", "prompt_tokens": n}}
        for n in range(events)
    ]  # fmt: skip
    body = json.dumps({"agent_id": "a", "events": batch}).encode()
    head = (
        f"POST /v1/ingest HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {key}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[trio.SocketStream]:
    host, _, port = url.removeprefix("http://").partition(":")
    async with await trio.open_tcp_stream(host, int(port)) as stream:
        yield stream


async def post(stream: trio.SocketStream, sent: bytes, answered: Answered) -> None:
    """The least a client can do, so that its own work is not what is measured."""
    began = trio.current_time()
    await stream.send_all(sent)
    said = bytes(await stream.receive_some())  # an answer is one segment
    answered.note(int(said[9:12]), b"\r\nretry-after: " in said, trio.current_time() - began)


async def flood(url: str, answered: Answered, number: int) -> None:
    sent = request(NOISY, f"noisy-{number}", FLOOD_EVENTS)
    async with connected(url) as stream:
        while True:
            await post(stream, sent, answered)


async def beside_a_flood(server: Server, seconds: float) -> tuple[Answered, Answered]:
    """What the noisy key and the quiet one were answered: the quiet one is never refused."""
    noisy, quiet = Answered(), Answered()
    one = request(QUIET, "quiet", 1)
    async with connected(server.ingest_url) as stream, trio.open_nursery() as nursery:
        for number in range(FLOODING):
            nursery.start_soon(flood, server.ingest_url, noisy, number)
        with trio.fail_after(30):
            while sum(noisy.statuses.values()) < FLOODING:
                await trio.sleep(0.01)
        end = trio.current_time() + seconds
        while trio.current_time() < end:
            next_at = trio.current_time() + QUIET_EVERY_S
            await post(stream, one, quiet)
            await trio.sleep_until(next_at)
        nursery.cancel_scope.cancel()
    print(
        f"noisy {dict(noisy.statuses)}, quiet {dict(quiet.statuses)}: p50 {quiet.percentile_ms(0.5):.0f} ms, "
        f"p99 {quiet.percentile_ms(0.99):.0f} ms, longest {max(quiet.took_s) * 1_000:.0f} ms"
    )
    assert set(quiet.statuses) == {202}
    assert set(noisy.statuses) <= {202, 503}
    assert noisy.without_retry_after == 0
    assert all(took_s >= OVERLOAD_HOLD_S for took_s in noisy.refused_s)
    return noisy, quiet


def permit(url: str, *keys: str) -> None:
    values = ", ".join(f"('{key_hash(key)}', '{{ingest,read}}')" for key in keys)
    execute(url, f"INSERT INTO api_keys (key_hash, scopes) VALUES {values}")


async def test_a_flood_of_one_key_leaves_another_served(database: str, tmp_path: Path) -> None:
    await trio.to_thread.run_sync(permit, database, NOISY, QUIET)
    with Server(tmp_path, database_url=database, env=ENV) as server:
        await beside_a_flood(server, 5.0)
        await until(server.has_stored_all, timeout_s=60)


@pytest.mark.prove
@pytest.mark.alone
async def test_the_quiet_one_is_answered_soon(database: str, tmp_path: Path) -> None:
    await trio.to_thread.run_sync(permit, database, NOISY, QUIET)
    with Server(tmp_path, database_url=database, env=ENV) as server:
        noisy, quiet = await beside_a_flood(server, 20.0)
    assert noisy.statuses[503] > 0
    assert quiet.percentile_ms(0.99) <= 250


async def test_each_key_has_a_rate_limit_of_its_own(database: str, tmp_path: Path) -> None:
    await trio.to_thread.run_sync(permit, database, NOISY, QUIET)
    env = {**ENV, "DUNETRACE_RATE_LIMIT_RPM": "20"}
    with Server(tmp_path, database_url=database, env=env) as server:
        noisy, quiet = Answered(), Answered()
        async with connected(server.ingest_url) as stream:
            for _ in range(30):
                await post(stream, request(NOISY, "noisy", 1), noisy)
            await post(stream, request(QUIET, "quiet", 1), quiet)
    assert noisy.statuses == {202: 20, 429: 10}
    assert noisy.without_retry_after == 0
    assert quiet.statuses == {202: 1}
