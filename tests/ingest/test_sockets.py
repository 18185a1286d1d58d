from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable
from functools import partial

import httpx
import pytest
import trio

from dunetrace.errors import StartError
from dunetrace.serving.answers import Answer
from dunetrace.serving.engine import serve
from dunetrace.serving.requests import Request
from dunetrace.serving.sockets import address_of, listen
from tests.ingest.door_server import event, open_door

SETTING = "DUNETRACE_INGEST_BIND"


async def _hello(_request: Request) -> Answer:
    await trio.lowlevel.checkpoint()
    return Answer(200, "hello")


def test_a_taken_port_names_the_setting_and_the_way_out() -> None:
    with listen("127.0.0.1:0", SETTING) as taken:
        bind = address_of(taken)
        with pytest.raises(StartError, match=rf"^{SETTING}={bind}: the port is taken .* another port$"):
            listen(bind, SETTING)


@pytest.mark.parametrize("bind", ["nonsense", "127.0.0.1:http9", "127.0.0.1:99999", "203.0.113.7:0"])
def test_other_binds_that_cannot_be_are_one_line(bind: str) -> None:
    with pytest.raises(StartError, match=rf"^{SETTING}={bind}: ") as error:
        listen(bind, SETTING)
    assert "\n" not in str(error.value)


def test_ipv6_addresses_can_be_put_into_a_url() -> None:
    try:
        sock = listen("[::1]:0", SETTING)
    except StartError:
        pytest.skip("this machine has no IPv6")
    with sock:
        assert address_of(sock).startswith("[::1]:")


def test_the_listening_socket_cuts_off_clients_that_stop_reading() -> None:
    if not hasattr(socket, "TCP_USER_TIMEOUT"):
        pytest.skip("Linux only")
    with listen("127.0.0.1:0", SETTING) as sock:
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) > 0


async def test_a_second_attempt_serves_on_the_same_socket() -> None:
    with listen("127.0.0.1:0", SETTING) as sock:
        url = f"http://{address_of(sock)}"
        for _ in range(2):
            shutdown = trio.Event()
            async with trio.open_nursery() as nursery:
                await nursery.start(_attempt(sock, shutdown))
                async with httpx.AsyncClient(trust_env=False) as client:
                    assert (await client.get(url)).json() == "hello"
                shutdown.set()


async def test_a_request_between_two_attempts_waits_for_the_next() -> None:
    with listen("127.0.0.1:0", SETTING) as sock:
        url = f"http://{address_of(sock)}"
        async with trio.open_nursery() as nursery:
            await nursery.start(_attempt(sock, trio.Event()))
            nursery.cancel_scope.cancel()  # as a crash beside it would
        answers: list[str] = []

        async def ask() -> None:
            async with httpx.AsyncClient(trust_env=False) as client:
                answers.append((await client.get(url)).json())

        shutdown = trio.Event()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask)
            await trio.testing.wait_all_tasks_blocked()
            await nursery.start(_attempt(sock, shutdown))
            with trio.fail_after(5):
                while not answers:
                    await trio.testing.wait_all_tasks_blocked(0.01)
            shutdown.set()
        assert answers == ["hello"]


async def test_what_is_under_way_at_a_stop_is_finished() -> None:
    async with open_door() as door:
        started, release = trio.Event(), trio.Event()
        keep = door.promise.keep

        async def slow(batch: object) -> None:
            started.set()
            await release.wait()
            await keep(batch)  # type: ignore[arg-type]

        door.promise.keep = slow  # type: ignore[method-assign]
        answers: list[int] = []

        async def send() -> None:
            answers.append((await door.send(event())).status_code)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(send)
            await started.wait()
            door.shutdown.set()
            await trio.testing.wait_all_tasks_blocked()
            release.set()
        assert answers == [202]


async def test_idle_and_half_sent_connections_do_not_hold_up_a_stop() -> None:
    with trio.fail_after(8):
        async with open_door() as door:
            streams = [await trio.open_tcp_stream("127.0.0.1", door.port) for _ in range(3)]
            await streams[1].send_all(b"POST /v1/ingest HTTP/1.1\r\nHost: localhost\r\nContent-Le")
            await streams[2].send_all(
                b"POST /v1/ingest HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
                b"Content-Length: 50\r\n\r\n{"
            )
            assert (await door.send(event())).status_code == 202
        for stream in streams:
            await stream.aclose()


def _attempt(sock: socket.socket, shutdown: trio.Event) -> Callable[..., Awaitable[None]]:
    return partial(serve, _hello, sock, shutdown)
