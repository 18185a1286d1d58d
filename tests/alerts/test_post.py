"""One attempt against a real server in every mood: the outcome, its bounds, and what is never sent or said."""

from __future__ import annotations

import base64
import ssl
import subprocess
from pathlib import Path
from typing import Any

import pytest
import trio

from dunetrace.alerts import post as post_module
from dunetrace.alerts.post import open_post
from dunetrace.alerts.webhook import Message
from dunetrace.deliveries import Outcome, Verdict, outcome_of
from tests.receiver import Mode, Receiver

MESSAGE = Message(b'{"n":1}', {"Content-Type": "application/json"})


async def _send(url: str, **options: Any) -> Outcome:
    async with open_post(**{"allow_private": True, **options}) as post:
        with trio.fail_after(5):
            return await post.send(url, MESSAGE)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(post_module, "ATTEMPT_TIMEOUT_S", 0.3)


@pytest.mark.parametrize(
    ("mode", "outcome"),
    [
        (Mode.OK, outcome_of(200)),
        (Mode.RATE_LIMITED, outcome_of(429, 1.0)),
        (Mode.UNAVAILABLE, outcome_of(503, 1.0)),
        (Mode.ERROR, outcome_of(500)),
        (Mode.TIMEOUT, outcome_of(408)),
        (Mode.BAD_REQUEST, outcome_of(400)),
        (Mode.GONE, outcome_of(410)),
        (Mode.REDIRECT, outcome_of(302)),
        (Mode.HUGE_BODY, outcome_of(200)),
        (Mode.STUCK_BODY, outcome_of(200)),
        (Mode.RESET, Outcome(Verdict.FAILED, error="ReadError")),
        (Mode.GARBAGE, Outcome(Verdict.FAILED, error="RemoteProtocolError")),
    ],
)
async def test_every_mood(receiver: Receiver, mode: Mode, outcome: Outcome) -> None:
    receiver.mode = mode
    assert await _send(receiver.url) == outcome
    assert [request.body for request in receiver.requests] == [MESSAGE.body]


@pytest.mark.parametrize("mode", [Mode.HANG, Mode.TRICKLE])
async def test_an_attempt_ends_in_time(receiver: Receiver, mode: Mode, impatient: None) -> None:
    receiver.mode = mode
    assert await _send(receiver.url) == Outcome(Verdict.FAILED, error="TooSlowError")


async def test_nobody_listens() -> None:
    with Receiver() as receiver:
        url = receiver.url
    assert await _send(url) == Outcome(Verdict.FAILED, error="ConnectError")


async def test_an_internal_address_is_refused_for_good(receiver: Receiver) -> None:
    outcome = await _send(receiver.url, allow_private=False)
    assert outcome == Outcome(Verdict.REFUSED, error="InternalAddressError")
    assert receiver.requests == []


async def test_a_redirect_is_not_followed(receiver: Receiver) -> None:
    receiver.mode = Mode.REDIRECT
    receiver.redirect_to = receiver.url
    await _send(receiver.url)
    assert len(receiver.requests) == 1


async def test_what_is_sent(receiver: Receiver) -> None:
    url = receiver.url.replace("127.0.0.1", "user:p%40ss@localhost") + "/a%20b?token=1"
    assert await _send(url) == outcome_of(200)
    (request,) = receiver.requests
    assert request.path == receiver.path + "/a%20b?token=1"
    assert request.headers == {
        "host": f"localhost:{receiver.port}",
        "user-agent": "Dunetrace",
        "content-length": "7",
        "content-type": "application/json",
        "authorization": "Basic " + base64.b64encode(b"user:p@ss").decode(),
    }


async def test_the_environments_proxy_is_not_used(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    assert await _send(receiver.url) == outcome_of(200)


async def test_a_connection_is_used_again_and_survives_its_loss(receiver: Receiver) -> None:
    async with open_post(allow_private=True) as post:
        for _ in range(3):
            assert await post.send(receiver.url, MESSAGE) == outcome_of(200)
        receiver.script(Mode.RESET)
        assert (await post.send(receiver.url, MESSAGE)).verdict is Verdict.FAILED
        assert await post.send(receiver.url, MESSAGE) == outcome_of(200)


async def test_a_cancelled_attempt_leaves_the_pool_usable(receiver: Receiver) -> None:
    async with open_post(allow_private=True) as post:
        for mode in (Mode.HANG, Mode.TRICKLE, Mode.HUGE_BODY, Mode.STUCK_BODY) * 5:
            receiver.script(mode)
            with trio.move_on_after(0.02):
                await post.send(receiver.url, MESSAGE)
        # A request cancelled before it arrived has left its manners in the script.
        receiver.choose = lambda _body: Mode.OK
        with trio.fail_after(9):
            assert await post.send(receiver.url, MESSAGE) == outcome_of(200)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A self-signed certificate for `localhost` alone, with its key, in one file."""
    made = tmp_path_factory.mktemp("tls") / "localhost.pem"
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=localhost"
    subprocess.run(
        [*command.split(), "-addext", "subjectAltName=DNS:localhost", "-keyout", made, "-out", made],
        check=True,
        capture_output=True,
    )
    return made


async def test_tls_is_checked_against_the_name_not_the_address(certificate: Path) -> None:
    served = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    served.load_cert_chain(certificate)
    trusting = ssl.create_default_context(cafile=str(certificate))
    with Receiver(tls=served) as receiver:
        named = receiver.url.replace("127.0.0.1", "localhost")
        assert await _send(named, tls=trusting) == outcome_of(200)
        assert await _send(receiver.url, tls=trusting) == Outcome(Verdict.FAILED, error="ConnectError")
        assert await _send(named) == Outcome(Verdict.FAILED, error="ConnectError")
        assert len(receiver.requests) == 1


async def test_nothing_is_logged(receiver: Receiver, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    await _send(receiver.url + "?token=secret")
    assert not [record for record in caplog.records if record.name.startswith(("httpx", "httpcore"))]
