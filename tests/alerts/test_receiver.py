"""The receiver itself: that what it records and how it misbehaves is what the other tests rely on."""

from __future__ import annotations

import http.client
import json
from uuid import uuid4

import pytest

from dunetrace.alerts import FORMS
from tests.receiver import Mode, Receiver


def _post(receiver: Receiver, body: bytes = b"{}", path: str | None = None) -> http.client.HTTPResponse:
    connection = http.client.HTTPConnection("127.0.0.1", receiver.port, timeout=1.0)
    try:
        connection.request("POST", path or receiver.path, body, {"X-Test": "1"})
        response = connection.getresponse()
        response.read(10)
    finally:
        connection.close()
    return response


def test_it_records_what_arrived() -> None:
    with Receiver() as receiver:
        assert _post(receiver, json.dumps({"n": 1}).encode()).status == 200
        (received,) = receiver.wait_for(1)
    assert received.document == {"n": 1} and received.path == receiver.path and received.headers["x-test"] == "1"


@pytest.mark.parametrize(
    ("mode", "status"),
    [
        (Mode.SLOW, 200),
        (Mode.RATE_LIMITED, 429),
        (Mode.UNAVAILABLE, 503),
        (Mode.ERROR, 500),
        (Mode.BAD_REQUEST, 400),
        (Mode.GONE, 410),
        (Mode.TIMEOUT, 408),
        (Mode.REDIRECT, 302),
        (Mode.HUGE_BODY, 200),
    ],
)
def test_its_statuses(mode: Mode, status: int) -> None:
    with Receiver() as receiver:
        receiver.slow_s = 0.01
        receiver.script(mode)
        response = _post(receiver)
        assert response.status == status
        if status in {429, 503}:
            assert response.headers["Retry-After"] == "1"
        assert _post(receiver).status == 200
        assert [received.mode for received in receiver.requests] == [mode, Mode.OK]


@pytest.mark.parametrize("mode", [Mode.HANG, Mode.RESET, Mode.GARBAGE, Mode.CUT, Mode.BROKEN_BODY])
def test_its_silences(mode: Mode) -> None:
    with Receiver() as receiver:
        receiver.mode = mode
        with pytest.raises((OSError, http.client.HTTPException)):
            _post(receiver)
        assert len(receiver.requests) == 1


def test_a_stray_client_is_not_recorded() -> None:
    with Receiver() as receiver:
        assert _post(receiver, path="/v1/ingest").status == 404
        assert receiver.requests == []


def test_waiting_for_what_does_not_come() -> None:
    with Receiver() as receiver, pytest.raises(TimeoutError):
        receiver.wait_for(1, timeout_s=0.01)


def test_it_plays_slack() -> None:
    good = FORMS["slack"].test_message(uuid4(), None, 0.0).body
    with Receiver(slack=True) as receiver:
        assert _post(receiver, good).status == 200
        assert _post(receiver, b'{"text": "no blocks"}').status == 400
        receiver.mode = Mode.NOT_FOUND
        assert _post(receiver, good).status == 404
        assert [request.mode for request in receiver.wait_for(3)] == [Mode.OK, Mode.BAD_REQUEST, Mode.NOT_FOUND]
