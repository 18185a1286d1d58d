"""Requests of `httpx`, `httpx2` and `requests` inside a run are tools named by their host."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any

import anyio
import httpx
import httpx2
import pytest
import requests

from dunetrace.hashing import Hasher, canonical
from dunetrace.sdk import instrument
from tests.sdk.instrument.asking import without_times
from tests.sdk.instrument.conftest import Recording
from tests.sdk.instrument.provider import Provider

LIBRARIES = (httpx, httpx2, requests)
every_library = pytest.mark.parametrize("library", LIBRARIES, ids=lambda library: library.__name__)
async_library = pytest.mark.parametrize("library", (httpx, httpx2), ids=lambda library: library.__name__)


def args_hash(method: str, url: str, body: str | None = None) -> str:
    return Hasher().text(canonical({"method": method, "url": url} | ({} if body is None else {"body": body})))


@every_library
def test_a_request_is_a_tool(library: Any, provider: Provider, recording: Recording) -> None:
    url = f"{provider.url}/parcels/7?key=k"
    with recording.run():
        assert library.get(url, headers={"authorization": "Bearer x"}).status_code == 200
    called, answered = recording.call("tool")
    assert called["tool_name"] == "127.0.0.1"
    assert called["args_hash"] == args_hash("GET", url)
    body = "/parcels/7?key=k"
    assert without_times(answered) == {
        "tool_name": "127.0.0.1", "success": True, "output_hash": Hasher().text(body), "output_length": len(body),
    }  # fmt: skip


@every_library
def test_bodies_tell_requests_apart(library: Any, provider: Provider, recording: Recording) -> None:
    """Else three different questions to one URL would look like a loop."""
    url = f"{provider.url}/search"
    with recording.run():
        library.post(url, data=b'{"q": 1}') if library is requests else library.post(url, content=b'{"q": 1}')
        library.post(url, json={"q": 2})
        library.post(url)
    hashes = [called["args_hash"] for called, _ in recording.calls("tool")]
    assert hashes[0] == args_hash("POST", url, '{"q": 1}')
    assert hashes[2] == args_hash("POST", url)
    assert len(set(hashes)) == 3


@every_library
@pytest.mark.parametrize("status", [204, 304, 400, 404, 500])
def test_success_is_a_status_below_400(library: Any, status: int, provider: Provider, recording: Recording) -> None:
    with recording.run():
        library.get(f"{provider.url}/status/{status}")
    _, answered = recording.call("tool")
    assert answered["success"] is (status < 400)
    assert answered.get("error_hash") == (None if status < 400 else Hasher().text(f"HTTP {status}"))


@every_library
def test_no_connection_is_a_failed_tool(library: Any, recording: Recording) -> None:
    error = requests.ConnectionError if library is requests else library.ConnectError
    with recording.run(), pytest.raises(error):
        library.get("http://127.0.0.1:9/")
    _, answered = recording.call("tool")
    assert answered["success"] is False
    assert answered["error_hash"]
    assert "output_length" not in answered


@every_library
@pytest.mark.parametrize("path", ["held", "reset"])
def test_no_answer_is_a_failed_tool(library: Any, path: str, provider: Provider, recording: Recording) -> None:
    error = requests.RequestException if library is requests else library.HTTPError
    with recording.run(), pytest.raises(error):
        library.get(f"{provider.url}/{path}", timeout=0.1)
    assert recording.call("tool")[1]["success"] is False


@every_library
def test_redirects_are_part_of_one_call(library: Any, provider: Provider, recording: Recording) -> None:
    url = f"{provider.url}/redirect/redirect/status/404"
    follow = {} if library is requests else {"follow_redirects": True}
    with recording.run():
        assert library.get(url, **follow).status_code == 404
    called, answered = recording.call("tool")
    assert called["args_hash"] == args_hash("GET", url)
    assert answered["success"] is False
    assert len(provider.asked) == 3


@every_library
def test_a_streamed_body_is_left_to_the_agent(library: Any, provider: Provider, recording: Recording) -> None:
    """Its length is the one the server announced, where it did."""
    with recording.run():
        if library is requests:
            for path in ("echo", "gzip"):
                with library.get(f"{provider.url}/{path}", stream=True) as response:
                    assert not response._content_consumed
                    assert recording.types()[-1] == "tool.responded"
                    assert response.content
        else:
            for path in ("echo", "gzip"):
                with library.stream("GET", f"{provider.url}/{path}") as response:
                    assert not response.is_stream_consumed
                    assert recording.types()[-1] == "tool.responded"
                    assert response.read()
    plain, coded = [answered for _, answered in recording.calls("tool")]
    assert plain["output_length"] == len("/echo")
    assert "output_length" not in coded
    assert "output_hash" not in plain


@every_library
def test_a_streamed_upload_is_not_consumed(library: Any, provider: Provider, recording: Recording) -> None:
    url, pieces = f"{provider.url}/upload", (piece for piece in (b"one ", b"two"))
    with recording.run():
        name = "data" if library is requests else "content"
        assert library.post(url, **{name: pieces}).content == b"one two"
    called, _ = recording.call("tool")
    assert called["args_hash"] == args_hash("POST", url)


@every_library
def test_bodies_in_any_bytes(library: Any, provider: Provider, recording: Recording) -> None:
    name = "data" if library is requests else "content"
    with recording.run():
        for body in (bytes(range(256)), b"x" * (1024 * 1024 + 1)):
            assert library.post(f"{provider.url}/echo", **{name: body}).content == body
    (_, odd), (_, large) = recording.calls("tool")
    assert odd["output_length"] == 256
    assert odd["output_hash"] == Hasher().text(bytes(range(256)).decode("latin-1"))
    assert large["output_length"] == 1024 * 1024 + 1
    assert "output_hash" not in large


@async_library
def test_async_requests(library: Any, provider: Provider, recording: Recording, run_async: Callable[..., Any]) -> None:
    async def agent() -> None:
        async with library.AsyncClient(base_url=provider.url) as client, recording.run():
            await client.get("/one")
            async with client.stream("GET", "/two") as response:
                assert not response.is_stream_consumed
                assert await response.aread() == b"/two"
            with anyio.move_on_after(0.1):
                await client.get("/held")

    run_async(agent)
    assert [answered["success"] for _, answered in recording.calls("tool")] == [True, True, False]


@async_library
def test_runs_side_by_side_do_not_mix(
    library: Any, provider: Provider, recording: Recording, run_async: Callable[..., Any]
) -> None:
    ids: dict[str, str] = {}

    async def agent() -> None:
        async with library.AsyncClient(base_url=provider.url) as client, anyio.create_task_group() as group:

            async def one(number: int) -> None:
                with recording.run() as run:
                    ids[run.run_id] = args_hash("GET", f"{provider.url}/{number}")
                    await client.get(f"/{number}")

            for number in range(20):
                group.start_soon(one, number)

    run_async(agent)
    called = {e["run_id"]: e["payload"]["args_hash"] for e in recording.events() if e["event_type"] == "tool.called"}
    assert called == ids


@every_library
def test_outside_of_a_run_nothing_is_recorded(library: Any, provider: Provider, recording: Recording) -> None:
    assert library.get(f"{provider.url}/one").content == b"/one"
    assert recording.events() == []


@every_library
def test_results_are_what_they_are_without(library: Any, provider: Provider, recording: Recording) -> None:
    with recording.run():
        watched = library.get(f"{provider.url}/one")
        instrument.remove()
        plain = library.get(f"{provider.url}/one")
    assert type(watched) is type(plain)
    assert vars(watched).keys() == vars(plain).keys()
    assert pickle.loads(pickle.dumps(watched)).content == plain.content


@every_library
def test_wrong_arguments_are_the_librarys_to_refuse(library: Any, provider: Provider, recording: Recording) -> None:
    kind = requests.Session if library is requests else library.Client
    with kind() as client, recording.run():
        for call in (
            client.send,
            lambda: client.send(1, 2),
            lambda: client.send(None),
            lambda: client.send(reqest=1),
            lambda: client.get(provider.url, bogus=1),
            lambda: client.get("nowhere://x/"),
        ):
            with pytest.raises(Exception) as with_it:
                call()
            instrument.remove()
            with pytest.raises(Exception) as without:
                call()
            instrument.install(None)
            assert type(with_it.value) is type(without.value)
            if "object at 0x" not in str(without.value):
                assert str(with_it.value) == str(without.value)
