"""The load's clients against a small server of h11, which takes no request that is not HTTP and counts for itself."""

from __future__ import annotations

import json
import math
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import h11
import pytest
import trio

from bench.clients import Clients, Load, ManyRuns, Result
from dunetrace.serving.wire import decode
from tests.shared import CHECKOUT

Request = tuple[str, bytes]  # its Idempotency-Key and its body
STALL_S = 0.5


@dataclass
class Door:
    """What a request is answered is for `status` to say: it gets the number of times this key has come."""

    status: Callable[[int], int] = lambda _times: 202
    stall_s: float = 0.0  # before the first answer, for all
    closes: bool = False  # after each answer
    piece_bytes: int | None = None  # in which answers come
    early: bool = False  # answers once it has seen the head, and reads the body after that
    url: str = ""
    came: list[Request] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    _stalled: trio.Event | None = None

    @property
    def bodies(self) -> list[dict[str, Any]]:
        return [json.loads(body) for _, body in self.came]

    async def serve(self, stream: trio.SocketStream) -> None:
        conn = h11.Connection(h11.SERVER)
        while await self._exchange(stream, conn):
            conn.start_next_cycle()

    async def _exchange(self, stream: trio.SocketStream, conn: h11.Connection) -> bool:
        """One request and its answer. False when there are no more."""
        request = await _next(stream, conn)
        if not isinstance(request, h11.Request):
            return False
        assert (request.method, request.target) == (b"POST", b"/v1/ingest")
        headers = {name.decode(): value.decode() for name, value in request.headers}
        body = b""
        while not self.early and isinstance(data := await _next(stream, conn), h11.Data):
            body += data.data
        self.headers.append(headers)
        self.came.append((headers["idempotency-key"], body))
        await self._stall()
        status = self.status(Counter(key for key, _ in self.came)[headers["idempotency-key"]])
        answer = json.dumps({"accepted": len(json.loads(body)["events"])} if body and status == 202 else {}).encode()
        head = [("Content-Length", str(len(answer))), *([("Connection", "close")] if self.closes else [])]
        data = conn.send(h11.Response(status_code=status, headers=head)) + conn.send(h11.Data(data=answer))
        data += conn.send(h11.EndOfMessage())
        size = self.piece_bytes or len(data)
        for at in range(0, len(data), size):
            await stream.send_all(data[at : at + size])
            await trio.lowlevel.checkpoint()
        if self.early:
            with suppress(h11.RemoteProtocolError, trio.BrokenResourceError):
                while not isinstance(await _next(stream, conn), h11.EndOfMessage):
                    pass
        return conn.our_state is conn.their_state is h11.DONE

    async def _stall(self) -> None:
        if self._stalled is not None:
            await self._stalled.wait()
            return
        self._stalled = trio.Event()
        await trio.sleep(self.stall_s)
        self._stalled.set()


async def _next(stream: trio.SocketStream, conn: h11.Connection) -> Any:
    while (event := conn.next_event()) is h11.NEED_DATA:
        conn.receive_data(await stream.receive_some())
    return event


@asynccontextmanager
async def opened(door: Door) -> AsyncIterator[Door]:
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(partial(trio.serve_listeners, door.serve, [listener]))
        door.url = f"http://127.0.0.1:{listener.socket.getsockname()[1]}"
        yield door
        nursery.cancel_scope.cancel()


async def drive(door: Door, **options: Any) -> Result:
    load = Load(door.url, **{"connections": 4, "batch": 10, "seconds": 0.3, **options})
    return await trio.to_thread.run_sync(lambda: Clients(load, ManyRuns(load)).run())


@pytest.mark.parametrize("batch", [1, 10, 100])
async def test_what_is_sent_is_http_and_counted_right(batch: int) -> None:
    async with opened(Door()) as door:
        result = await drive(door, batch=batch, key="dt_key")
    assert result.requests == len(door.came) > 10
    assert result.statuses == {"202": result.requests}
    assert result.accepted_events == sum(len(body["events"]) for body in door.bodies) == result.requests * batch
    assert (result.errors, result.unanswered) == (0, 0)
    assert 0 < result.p50_ms <= result.p99_ms <= result.max_ms
    assert {headers["authorization"] for headers in door.headers} == {"Bearer dt_key"}


async def test_a_retried_request_is_the_same_and_any_other_is_its_own() -> None:
    async with opened(Door(status=lambda times: 503 if times < 3 else 202)) as door:
        result = await drive(door, retry=True)
    by_key: dict[str, set[bytes]] = {}
    for key, body in door.came:
        by_key.setdefault(key, set()).add(body)
    assert all(len(bodies) == 1 for bodies in by_key.values())
    assert all(len(key) >= 32 for key in by_key)
    runs = [{event["run_id"] for event in json.loads(body)["events"]} for (body,) in by_key.values()]
    assert sum(map(len, runs)) == len(set.union(*runs))
    assert result.accepted_events == result.statuses["202"] * 10
    assert result.statuses["503"] >= 2 * result.statuses["202"] > 0
    assert {headers["content-type"] for headers in door.headers} == {"application/json"}


async def test_without_retry_a_refused_request_is_over() -> None:
    async with opened(Door(status=lambda _times: 503)) as door:
        result = await drive(door)
    assert len({key for key, _ in door.came}) == len(door.came) == result.statuses["503"]
    assert result.accepted_events == 0


async def test_two_loads_never_send_the_same() -> None:
    async with opened(Door()) as door:
        for _ in range(2):
            await drive(door, seconds=0.1)
    assert len({key for key, _ in door.came}) == len(door.came)
    assert len({body["events"][0]["run_id"] for body in door.bodies}) == len(door.came)


async def test_the_door_refuses_no_event() -> None:
    async with opened(Door()) as door:
        await drive(door, batch=100)
    for _, body in door.came:
        sent = decode(body, 50_000)
        assert (len(sent.events), len(sent.malformed)) == (100, 0)


async def test_a_stall_counts_for_all_that_was_due_in_it() -> None:
    async with opened(Door(stall_s=STALL_S)) as door:
        result = await drive(door, rate=200, seconds=0.8, connections=2)
    assert result.requests == len(door.came) == 160  # also those that were late
    assert result.max_ms >= STALL_S * 1000
    assert result.p50_ms > 50  # 100 of 160 were due in the stall; the two on the wire alone would make no median


async def test_requests_that_got_no_answer_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bench.clients.LAST_ANSWERS_S", 0.2)
    async with opened(Door(stall_s=math.inf)) as door:
        result = await drive(door, rate=100, seconds=0.2, connections=2)
    assert (result.requests, result.unanswered) == (0, 20)
    assert result.p50_ms >= 200


@pytest.mark.parametrize("door", [Door(closes=True), Door(piece_bytes=1)], ids=["closing", "in pieces"])
async def test_answers_of_every_kind_are_read(door: Door) -> None:
    async with opened(door):
        result = await drive(door, connections=2)
    assert result.requests == len(door.came) > 1
    assert result.accepted_events == 10 * result.requests
    assert (result.errors, result.unanswered) == (0, 0)


async def test_an_answer_before_the_body_ends_the_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    """A body larger than the kernel takes: the rest of it must not be read as the next request."""
    monkeypatch.setattr("bench.clients.TEMPLATES", 1)
    async with opened(Door(status=lambda _times: 503, early=True)) as door:
        result = await drive(door, connections=1, batch=40_000, seconds=0.5)
    assert result.requests == len(door.came) > 1
    assert (result.errors, result.unanswered) == (0, 0)


async def test_the_command_prints_one_line_of_json() -> None:
    async with opened(Door()) as door:
        flags = ("--connections=2", "--batch=10", "--seconds=0.2", "--rate=100", "--retry", "--agents=3", "--key=k")
        done = await trio.run_process(
            [sys.executable, "-m", "bench.clients", f"--url={door.url}", *flags], capture_stdout=True, cwd=CHECKOUT
        )
    result = Result(**json.loads(done.stdout))
    assert result.requests == len(door.came) == 20
    assert {event["agent_id"].removesuffix("-child") for body in door.bodies for event in body["events"]} <= {
        "bench-1", "bench-2", "bench-3",
    }  # fmt: skip
