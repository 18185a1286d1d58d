"""The engine on real sockets: what one connection may do, how long it may take, and how it all ends."""

from __future__ import annotations

import os
import resource
import socket
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager
from dataclasses import replace

import pytest
import trio

from dunetrace.serving import engine
from dunetrace.serving.answers import OVERLOAD_HOLD_S
from dunetrace.serving.connection import LINGER_BYTES, SMALL_REST_BYTES, EngineLimits
from dunetrace.serving.engine import TURNED_AWAY
from tests.ingest.engine_server import Served, Wire, open_engine, post, request
from tests.ingest.test_http1 import REFUSED

GET = request("/x")
CHUNKED = request("/echo", "Transfer-Encoding: chunked", method="POST")
EXPECT = "Expect: 100-continue"
QUICK = EngineLimits(
    head_s=0.3, body_s=0.3, request_s=1.0, idle_s=0.3, answer_s=0.3, linger_s=0.3, grace_s=0.3, sweep_s=0.05
)


# -- one connection, many requests


async def test_a_connection_is_kept() -> None:
    async with open_engine() as served, served.connect() as wire:
        for number in range(3):
            said = await wire.ask(post("/echo", b"x" * number))
            assert (said.status, said.body["length"]) == (200, number)
            assert said.headers["content-type"] == "application/json"
            assert said.headers["date"].endswith("GMT")
            assert said.headers["connection"] == "keep-alive"


@pytest.mark.parametrize("data", [request("/x", "Connection: close"), request("/x", version="1.0")])
async def test_a_connection_is_closed_where_the_client_wants_that(data: bytes) -> None:
    async with open_engine() as served, served.connect() as wire:
        assert (await wire.ask(data)).headers["connection"] == "close"
        assert await wire.ends() == b""


async def test_http_1_0_may_keep_its_connection() -> None:
    async with open_engine() as served, served.connect() as wire:
        for _ in range(2):
            said = await wire.ask(request("/x", "Connection: keep-alive", version="1.0"))
            assert said.headers["connection"] == "keep-alive"


async def test_pipelined_requests_are_answered_in_their_order() -> None:
    async with open_engine() as served, served.connect() as wire:
        for number in range(100):
            await wire.send(post("/echo", b"y" * number))
        assert [(await wire.answer()).body["length"] for _ in range(100)] == list(range(100))
        chunks = CHUNKED + b"3\r\nabc\r\n0\r\n\r\n"
        await wire.send(GET + chunks + b"\r\n" + GET + chunks)
        assert [(await wire.answer()).content for _ in range(4)][::2] == [b'"ok"', b'"ok"']


async def test_pipelined_requests_leave_others_their_turn() -> None:
    """A client whose thousands of requests are all here is answered one by one, between those of another."""
    async with open_engine() as served, served.connect() as greedy, served.connect() as modest:
        await modest.ask(request("/modest"))
        await greedy.send(request("/greedy") * 500)
        await modest.ask(request("/modest"))
        assert served.paths.count("/greedy") < 500
        for _ in range(500):
            assert (await greedy.answer()).status == 200


async def test_a_request_cut_into_bytes_is_one_request() -> None:
    async with open_engine() as served, served.connect() as wire:
        for byte in post("/echo", b"hello"):
            await wire.send(bytes([byte]))
        assert (await wire.answer()).body == {"length": 5, "end": "hello"}


async def test_head_is_answered_without_a_body() -> None:
    async with open_engine() as served, served.connect() as wire:
        await wire.send(request("/x", method="HEAD"))
        assert (await wire.answer(is_head=True)).headers["content-length"] == "4"
        assert (await wire.ask(GET)).content == b'"ok"'


async def test_a_client_that_is_done_sending_is_still_answered() -> None:
    async with open_engine() as served, served.connect() as wire:
        await wire.send(GET)
        await wire.stream.send_eof()
        assert (await wire.answer()).status == 200
        assert await wire.ends() == b""


# -- bodies


async def test_a_chunked_body_in_many_pieces() -> None:
    async with open_engine() as served, served.connect() as wire:
        await wire.send(CHUNKED)
        for _ in range(50):
            await wire.send(b"4;x=y\r\nab")
            await wire.send(b"cd\r\n")
        said = await wire.ask(b"0\r\nTrailer: x\r\n\r\n")
        assert (said.body["length"], said.headers["connection"]) == (200, "keep-alive")


async def test_a_large_body_arrives_whole() -> None:
    async with open_engine() as served, served.connect() as wire:
        said = await wire.ask(post("/echo", b"x" * (3 << 20) + b"the end"))
        assert said.body == {"length": (3 << 20) + 7, "end": "x" * 13 + "the end"}
        assert (await wire.ask(GET)).status == 200
        assert served.budget.used_bytes == 0


async def test_continue_is_said_when_the_body_is_wanted_and_not_before() -> None:
    async with open_engine() as served, served.connect() as wire:
        await wire.send(request("/echo", "Content-Length: 5", EXPECT, method="POST"))
        assert await wire.line() == b"HTTP/1.1 100 Continue\r\n\r\n"
        assert (await wire.ask(b"hello")).body["length"] == 5
        assert (await wire.ask(post("/echo", b"hello", EXPECT))).status == 200  # it is here already
        assert (await wire.ask(post("/echo", b"", EXPECT))).status == 200  # there is none


async def test_who_waits_for_continue_in_vain_is_answered_at_once() -> None:
    async with open_engine() as served, served.connect() as wire:
        said = await wire.ask(request("/x", "Content-Length: 5", EXPECT, method="POST"))
        assert (said.status, said.headers["connection"]) == (200, "close")
        assert await wire.ends() == b""


async def test_a_small_rest_nobody_reads_costs_no_connection() -> None:
    async with open_engine() as served, served.connect() as wire:
        body = b"x" * SMALL_REST_BYTES
        head = request("/x", f"Content-Length: {len(body)}", method="POST")
        assert (await wire.ask(head)).headers["connection"] == "keep-alive"  # before any of it has come
        await wire.send(body)
        assert (await wire.ask(head + body)).status == 200
        unread = CHUNKED.replace(b"/echo", b"/x") + b"5\r\nhello\r\n0\r\n\r\n"
        assert (await wire.ask(unread)).headers["connection"] == "keep-alive"
        assert (await wire.ask(GET)).status == 200


@pytest.mark.parametrize("sent", [b"", b"x" * (4 << 20)])
async def test_a_large_rest_nobody_reads_is_dropped_after_the_answer(sent: bytes) -> None:
    async with open_engine() as served, served.connect() as wire:
        await wire.send(request("/x", f"Content-Length: {8 << 20}", method="POST") + sent)
        said = await wire.answer()
        assert (said.status, said.headers["connection"]) == (200, "close")
        assert await wire.ends() == b""


async def test_a_chunked_rest_of_unknown_length_ends_the_connection() -> None:
    async with open_engine() as served, served.connect() as wire:
        said = await wire.ask(CHUNKED.replace(b"/echo", b"/x") + b"5\r\nhel")
        assert said.headers["connection"] == "close"
        await wire.send(b"lo\r\n0\r\n\r\n" + GET)
        assert await wire.ends() == b""
        assert served.paths == ["/x"]


async def test_too_large_is_said_to_a_client_that_never_stops() -> None:
    """What it sends after its answer is dropped, within bounds; then the connection goes."""
    async with open_engine() as served, served.connect() as wire:
        chunk = b"10000\r\n" + b"x" * 65_536 + b"\r\n"
        sent_bytes = 0
        await wire.send(CHUNKED)
        with pytest.raises(trio.BrokenResourceError), trio.fail_after(20):
            while True:
                await wire.send(chunk)
                sent_bytes += len(chunk)
        assert sent_bytes < LINGER_BYTES + (40 << 20)  # and what the kernel's buffers hold
        assert served.budget.used_bytes == 0


# -- refusals


@pytest.mark.parametrize("shape", REFUSED)
async def test_what_is_not_http_is_refused_in_json_and_closed(shape: str) -> None:
    data, status = REFUSED[shape]
    async with open_engine(replace(QUICK, head_s=5)) as served, served.connect() as wire:
        said = await wire.ask(data.replace(b"POST / ", b"POST /echo "))
        assert (said.status, list(said.body), said.headers["connection"]) == (status, ["detail"], "close")
        assert data[:10].decode("latin-1") not in said.content.decode()
        await wire.ends()
        async with served.connect() as other:
            assert (await other.ask(GET)).status == 200


@pytest.mark.parametrize("path", ["/boom", "/booms"])
async def test_a_fault_of_the_handler_is_a_500_and_ends_only_its_connection(
    path: str, capfd: pytest.CaptureFixture[str]
) -> None:
    async with open_engine() as served, served.connect() as other, served.connect() as wire:
        await other.ask(GET)
        said = await wire.ask(request(path))
        assert (said.status, said.body, said.headers["connection"]) == (500, {"detail": "Internal error"}, "close")
        assert await wire.ends() == b""
        assert (await other.ask(GET)).status == 200
    logged = "".join(capfd.readouterr())
    assert "ingest.failed" in logged
    assert "RuntimeError" in logged
    assert "secret" not in logged


async def test_a_body_that_breaks_off_in_the_handler_is_no_fault(capfd: pytest.CaptureFixture[str]) -> None:
    async with open_engine() as served:
        async with served.connect() as wire:
            await wire.send(request("/echo", "Content-Length: 50", method="POST", body=b"x"))
        async with served.connect() as wire:
            await wire.send(CHUNKED + b"5\r\n")
            said = await wire.ask(b"hello world")
            assert said.status == 400
            await wire.ends()
    assert "ingest.failed" not in "".join(capfd.readouterr())


# -- time


async def _is_late(wire: Wire, status: int) -> None:
    with trio.fail_after(5):
        said = await wire.answer()
    assert (said.status, said.headers["connection"]) == (status, "close")
    await wire.ends()


async def test_a_head_has_its_time() -> None:
    async with open_engine(QUICK) as served, served.connect() as wire:
        await wire.ask(GET)
        await wire.send(GET[:-2])
        await _is_late(wire, 408)


async def test_a_dripping_head_has_no_more() -> None:
    async with open_engine(replace(QUICK, sweep_s=0.05)) as served, served.connect() as wire:
        with pytest.raises(trio.BrokenResourceError), trio.fail_after(5):
            while True:
                await wire.send(b"a")
                await trio.sleep(0.05)


async def test_a_body_must_keep_coming() -> None:
    async with open_engine(QUICK) as served, served.connect() as wire:
        await wire.send(request("/echo", "Content-Length: 5", method="POST") + b"he")
        await _is_late(wire, 408)


async def test_a_dripping_body_has_the_time_of_a_whole_request() -> None:
    async with open_engine(QUICK) as served, served.connect() as wire:
        await wire.send(CHUNKED)
        began = trio.current_time()
        with pytest.raises(trio.BrokenResourceError), trio.fail_after(8):
            while True:
                await wire.send(b"1\r\nx\r\n")
                await trio.sleep(0.05)
        assert trio.current_time() - began >= QUICK.request_s


async def test_a_rest_that_does_not_come_ends_the_connection() -> None:
    async with open_engine(QUICK) as served, served.connect() as wire:
        assert (await wire.ask(request("/x", "Content-Length: 5", method="POST"))).headers["connection"] == "keep-alive"
        assert await wire.ends() == b""


async def test_a_handler_that_hangs_is_a_503() -> None:
    async with open_engine(QUICK) as served, served.connect() as wire:
        await wire.send(request("/wait"))
        await _is_late(wire, 503)


async def test_an_idle_connection_is_closed_without_a_word() -> None:
    async with open_engine(QUICK) as served, served.connect() as fresh, served.connect() as used:
        await used.ask(GET)
        assert await fresh.ends() == b""
        assert await used.ends() == b""


async def test_a_client_that_never_reads_is_cut_off() -> None:
    async with open_engine(QUICK) as served, served.connect(receive_buffer_bytes=4_096) as wire:
        with pytest.raises(trio.BrokenResourceError), trio.fail_after(10):
            while True:
                await wire.send(request("/big"))
        assert len(served.paths) < 50


# -- how many


async def _connected(stack: AsyncExitStack, served: Served, count: int) -> list[Wire]:
    """Connections that were served once, and idle since, in this order."""
    wires = []
    for _ in range(count):
        wire = await stack.enter_async_context(served.connect())
        assert (await wire.ask(GET)).status == 200
        wires.append(wire)
    return wires


async def test_the_longest_idle_makes_room_for_a_new_one() -> None:
    async with open_engine(EngineLimits(connections=3)) as served, AsyncExitStack() as stack:
        first, second, third = await _connected(stack, served, 3)
        await first.ask(GET)
        fourth, fifth = await _connected(stack, served, 2)
        assert await second.ends() == b""
        assert await third.ends() == b""
        for wire in (first, fourth, fifth):
            assert (await wire.ask(GET)).status == 200


async def test_unfinished_heads_make_room_too() -> None:
    async with open_engine(EngineLimits(connections=2)) as served, AsyncExitStack() as stack:
        slow = [await stack.enter_async_context(served.connect()) for _ in range(2)]
        for wire in slow:
            await wire.send(b"GET / HT")
        for _ in range(2):
            await _connected(stack, served, 1)
        for wire in slow:
            await wire.ends()


async def test_who_finds_all_of_them_busy_is_told_so_after_a_while() -> None:
    async with open_engine(EngineLimits(connections=1)) as served, served.connect() as busy:
        await busy.send(request("/wait"))
        await served.started.wait()
        for _ in range(2):
            began = trio.current_time()
            async with served.connect() as wire:
                said = await wire.answer()
                assert (said.status, said.headers["retry-after"], said.headers["connection"]) == (503, "1", "close")
                assert await wire.ends() == b""
            assert trio.current_time() - began >= OVERLOAD_HOLD_S
        served.release.set()
        assert (await busy.answer()).status == 200
        assert (await busy.ask(GET)).status == 200


async def _turned_away(stack: AsyncExitStack, served: Served, count: int) -> list[Wire]:
    """Connections made while one request has all the room there is."""
    busy = await stack.enter_async_context(served.connect())
    await busy.send(request("/wait"))
    await served.started.wait()
    return [await stack.enter_async_context(served.connect()) for _ in range(count)]


async def test_only_so_many_are_held_before_they_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "OVERLOAD_HOLD_S", 3600)
    async with open_engine(EngineLimits(connections=1)) as served, AsyncExitStack() as stack:
        wires = await _turned_away(stack, served, TURNED_AWAY + 10)
        for wire in wires[TURNED_AWAY:]:
            with trio.fail_after(5):
                assert (await wire.answer()).status == 503
        with trio.move_on_after(0.1) as waited:
            await wires[0].answer()
        assert waited.cancelled_caught
        served.shutdown.set()
        for wire in wires[:TURNED_AWAY]:  # none of them is held for the rest of the stop
            with trio.fail_after(5):
                assert (await wire.answer()).status == 503
        served.release.set()


async def test_who_is_held_gives_way_when_no_descriptors_are_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "OVERLOAD_HOLD_S", 3600)
    async with open_engine(EngineLimits(connections=1)) as served, AsyncExitStack() as stack:
        held, gone = await _turned_away(stack, served, 2)
        await gone.stream.aclose()
        late = stack.enter_context(trio.socket.socket())
        with _no_descriptors_left():
            await late.connect(("127.0.0.1", served.port))
            with trio.fail_after(5):
                assert (await held.answer()).status == 503
        served.release.set()


@contextmanager
def _no_descriptors_left() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    free = os.dup(0)
    os.close(free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (free, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def test_no_descriptors_left_closes_an_idle_connection() -> None:
    async with open_engine() as served, AsyncExitStack() as stack:
        (idle,) = await _connected(stack, served, 1)
        late = stack.enter_context(trio.socket.socket())
        with _no_descriptors_left():
            await late.connect(("127.0.0.1", served.port))
            await late.send(GET)
            with trio.fail_after(5):
                assert (await late.recv(1_000)).startswith(b"HTTP/1.1 200")
        assert await idle.ends() == b""


# -- the end


async def test_a_stop_closes_idle_connections_and_lets_busy_ones_finish() -> None:
    async with open_engine() as served, served.connect() as idle, served.connect() as half, served.connect() as busy:
        await idle.ask(GET)
        await half.send(GET[:-2])
        await busy.send(request("/wait") + GET)
        await served.started.wait()
        served.shutdown.set()
        assert await idle.ends(1) == b""
        assert await half.ends(1) == b""
        served.release.set()
        said = await busy.answer()
        assert (said.status, said.headers["connection"]) == (200, "close")
        await busy.ends()
        assert served.paths == ["/x", "/wait"]


async def test_a_stop_is_bounded_whatever_clients_do() -> None:
    with trio.fail_after(5):
        async with AsyncExitStack() as stack:
            async with open_engine(replace(QUICK, answer_s=60, body_s=60, request_s=60, linger_s=60)) as served:
                deaf = await stack.enter_async_context(served.connect(receive_buffer_bytes=4_096))
                half = await stack.enter_async_context(served.connect())
                refused = await stack.enter_async_context(served.connect())
                hangs = await stack.enter_async_context(served.connect())
                await deaf.send(request("/big") * 20)
                await half.send(request("/echo", "Content-Length: 5", method="POST"))
                assert (await refused.ask(b"nonsense\r\n\r\n")).status == 400
                await hangs.send(request("/wait"))
                await served.started.wait()


async def test_nothing_is_accepted_after_a_stop() -> None:
    async with open_engine() as served, served.connect() as busy:
        await busy.send(request("/wait"))
        await served.started.wait()
        served.shutdown.set()
        await trio.testing.wait_all_tasks_blocked()
        async with served.connect() as late:  # it waits in the kernel for the next attempt
            await late.send(GET)
            with trio.move_on_after(0.2) as waited:
                await late.answer()
            assert waited.cancelled_caught
        served.release.set()
        assert (await busy.answer()).status == 200


async def test_a_client_that_resets_its_connection_harms_nobody() -> None:
    async with open_engine() as served:
        for data in (b"", GET, GET[:-2], request("/big"), CHUNKED + b"5\r\nhe", request("/x") * 50):
            async with served.connect() as wire:
                await wire.send(data)
                linger = b"\x01\0\0\0\0\0\0\0"  # on, for no time: close() resets
                wire.stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        async with served.connect() as wire:
            assert (await wire.ask(GET)).status == 200
