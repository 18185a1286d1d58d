"""A request whose answer is wanted, against a real server in every mood: what is tried again, and what is said."""

from __future__ import annotations

from typing import Any

import pytest
import trio

from dunetrace.outgoing import client as client_module
from dunetrace.outgoing.client import TRIES, OutgoingError, Reply, Request, open_client
from tests.receiver import Mode, Receiver


@pytest.fixture
def receiver(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(client_module, "TRY_BASE_S", 0.01)
    with Receiver() as running:
        running.retry_after = "0"
        yield running


async def ask(url: str, *, allow_private: bool = True, **fields: Any) -> Reply:
    wanted = {"method": "GET", "headers": {"X-Key": "k"}, "timeout_s": 5.0, "limit_bytes": 1 << 20, **fields}
    async with open_client(allow_private=allow_private) as client:
        with trio.fail_after(8):
            return await client.ask(Request(url=url, **wanted))


@pytest.mark.parametrize("mode", [Mode.RATE_LIMITED, Mode.UNAVAILABLE, Mode.ERROR, Mode.TIMEOUT, Mode.RESET])
async def test_what_may_pass_is_tried_again(receiver: Receiver, mode: Mode) -> None:
    receiver.script(mode, mode)
    reply = await ask(receiver.url)
    assert (reply.status, len(receiver.requests)) == (200, TRIES)


@pytest.mark.parametrize("mode", [Mode.RATE_LIMITED, Mode.ERROR, Mode.RESET])
async def test_what_may_not_be_sent_twice_is_not(receiver: Receiver, mode: Mode) -> None:
    receiver.mode = mode
    if mode is Mode.RESET:
        with pytest.raises(OutgoingError, match="broke off the connection"):
            await ask(receiver.url, method="POST", body=b"{}", safe=False)
    else:
        assert (await ask(receiver.url, method="POST", body=b"{}", safe=False)).status >= 400
    assert len(receiver.requests) == 1


@pytest.mark.parametrize(
    ("mode", "status", "tries"),
    [
        (Mode.ERROR, 500, TRIES),
        (Mode.RATE_LIMITED, 429, TRIES),
        (Mode.NOT_FOUND, 404, 1),
        (Mode.GONE, 410, 1),
        (Mode.REDIRECT, 302, 1),
    ],
)
async def test_the_last_answer_is_the_answer(receiver: Receiver, mode: Mode, status: int, tries: int) -> None:
    receiver.mode = mode
    assert ((await ask(receiver.url)).status, len(receiver.requests)) == (status, tries)


async def test_a_long_wait_is_not_sat_out(receiver: Receiver) -> None:
    receiver.mode, receiver.retry_after = Mode.RATE_LIMITED, "3600"
    reply = await ask(receiver.url)
    assert (reply.status, reply.retry_after_s, len(receiver.requests)) == (429, 3600.0, 1)


async def test_a_short_wait_is_kept(receiver: Receiver) -> None:
    receiver.retry_after = "1"
    receiver.script(Mode.RATE_LIMITED)
    await ask(receiver.url)
    first, second = receiver.requests
    assert second.monotonic - first.monotonic >= 1


@pytest.mark.parametrize("mode", [Mode.HANG, Mode.TRICKLE, Mode.STUCK_BODY])
async def test_a_try_ends_in_time(receiver: Receiver, mode: Mode) -> None:
    receiver.mode = mode
    with pytest.raises(OutgoingError, match=r"did not answer within 0\.3 seconds"):
        await ask(receiver.url, timeout_s=0.3)
    assert len(receiver.requests) == 1


async def test_an_answer_without_an_end_is_dropped(receiver: Receiver) -> None:
    receiver.mode = Mode.HUGE_BODY
    with pytest.raises(OutgoingError, match="sent more than 1 MiB"):
        await ask(receiver.url)


async def test_an_internal_address_is_refused_with_the_way_out(receiver: Receiver) -> None:
    with pytest.raises(OutgoingError, match="DUNETRACE_ALLOW_PRIVATE_DESTINATIONS"):
        await ask(receiver.url, allow_private=False)
    assert receiver.requests == []


async def test_nobody_listens() -> None:
    with Receiver() as receiver:
        url = receiver.url
    with pytest.raises(OutgoingError, match="cannot be reached"):
        await ask(url)


async def test_what_is_sent(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    await ask(f"{receiver.url}/a%2Fb?c=d%26e", method="POST", body=b"{}")
    (request,) = receiver.requests
    assert (request.path, request.body) == (f"{receiver.path}/a%2Fb?c=d%26e", b"{}")
    assert request.headers == {
        "host": f"127.0.0.1:{receiver.port}", "user-agent": "Dunetrace", "accept": "application/json",
        "accept-encoding": "identity", "content-type": "application/json", "content-length": "2", "x-key": "k",
    }  # fmt: skip


async def test_a_client_goes_on_after_any_mood(receiver: Receiver) -> None:
    async with open_client(allow_private=True) as client:
        request = Request("GET", receiver.url, {}, 0.2, 1 << 20)
        for mode in (Mode.HUGE_BODY, Mode.STUCK_BODY, Mode.HANG, Mode.GARBAGE) * 2:
            receiver.script(*[mode] * (TRIES if mode is Mode.GARBAGE else 1))
            with pytest.raises(OutgoingError):
                await client.ask(request)
        assert (await client.ask(request)).status == 200
