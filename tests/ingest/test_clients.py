"""Clients of other people's making talk to the door: curl, wrk, h11, http.client; httpx does in the other tests."""

from __future__ import annotations

import gzip
import http.client
import json
import re
import shutil
from pathlib import Path
from typing import Any

import h11
import pytest
import trio

from dunetrace.serving.ingest_app import IngestLimits
from tests.ingest.door_server import Door, event, open_door

BODY = json.dumps({"agent_id": "agent", "events": [event()]}).encode()
JSON = {"Content-Type": "application/json"}


def _url(door: Door, path: str = "/v1/ingest") -> str:
    return f"http://127.0.0.1:{door.port}{path}"


async def _curl(*arguments: str, given: bytes = b"") -> str:
    """What curl printed: the answers, then one line with the status of the last and how many connections were made."""
    if not shutil.which("curl"):
        pytest.skip("curl is not installed")
    command = ["curl", "-sS", "--noproxy", "*", "-m", "20", "-w", "\n%{http_code} %{num_connects}", *arguments]
    return (await trio.run_process(command, stdin=given, capture_stdout=True)).stdout.decode()


@pytest.mark.parametrize(
    "options",
    [
        [],
        ["-H", "Transfer-Encoding: chunked"],
        ["-H", "Expect: 100-continue"],
        ["-H", "Expect: 100-continue", "-H", "Transfer-Encoding: chunked"],
        ["--http1.0"],
        ["--tcp-nodelay", "-H", "Connection: close"],
    ],
)
async def test_curl_posts(options: list[str]) -> None:
    async with open_door() as door:
        said = await _curl("-H", "Content-Type: application/json", *options, "--data-binary", "@-", _url(door),
                           given=BODY)  # fmt: skip
        assert said.endswith("\n202 1")
        assert json.loads(said.splitlines()[0])["accepted"] == 1
        assert len(door.promise.rows) == 1


async def test_curl_posts_gzip_of_many_megabytes_and_is_refused_politely(tmp_path: Path) -> None:
    large = tmp_path / "large"
    large.write_bytes(b" " * (5 << 20) + BODY)  # curl asks for 100 Continue by itself from a megabyte on
    zipped = tmp_path / "zipped"
    zipped.write_bytes(gzip.compress(large.read_bytes()))
    async with open_door() as door:
        plain = ["-H", "Content-Type: application/json", "--data-binary", f"@{large}"]
        assert (await _curl(*plain, _url(door))).endswith("\n202 1")
        packed = ["-H", "Content-Type: application/json", "-H", "Content-Encoding: gzip", "--data-binary", f"@{zipped}"]
        assert (await _curl(*packed, _url(door))).endswith("\n202 1")
        assert (await _curl("--data-binary", f"@{large}", _url(door))).endswith("\n415 1")
        assert (await _curl("-H", "Expect:", "--data-binary", f"@{large}", _url(door))).endswith("\n415 1")
        assert (await _curl(*plain, "-H", "Transfer-Encoding: chunked", _url(door, "/nowhere"))).endswith("\n404 1")


async def test_curl_keeps_its_connection_and_may_ask_for_heads_only() -> None:
    async with open_door() as door:
        said = await _curl(_url(door, "/health"), "-w", "\n%{http_code} %{num_connects}", _url(door, "/health"))
        assert said.endswith("\n200 0")
        assert "content-length: " in await _curl("-I", _url(door, "/health"))


async def test_wrk_finds_no_error(tmp_path: Path) -> None:
    if not shutil.which("wrk"):
        pytest.skip("wrk is not installed")
    script = tmp_path / "post.lua"
    script.write_text(
        f"wrk.method = 'POST'\nwrk.body = '{BODY.decode()}'\nwrk.headers['Content-Type'] = 'application/json'\n"
    )
    async with open_door(limits=IngestLimits(rate_limit_rpm=0)) as door:
        told = await trio.run_process(
            ["wrk", "-t1", "-c16", "-d1s", "-s", str(script), _url(door)], capture_stdout=True
        )  # fmt: skip
        said = told.stdout.decode()
        assert "Non-2xx" not in said
        assert "Socket errors" not in said
        found = re.search(r"(\d+) requests in", said)
        assert found is not None
        assert 0 < int(found[1]) <= len(door.promise.kept)


async def test_h11_reads_every_answer() -> None:
    async with open_door() as door, await trio.open_tcp_stream("127.0.0.1", door.port) as stream:
        client = h11.Connection(h11.CLIENT)

        async def ask(method: str, path: str, body: bytes, **fields: str) -> tuple[int, bytes]:
            headers = [("Host", "localhost"), *((name.replace("_", "-"), value) for name, value in fields.items())]
            await stream.send_all(client.send(h11.Request(method=method, target=path, headers=headers)) or b"")
            for start in range(0, len(body), 100):
                await stream.send_all(client.send(h11.Data(data=body[start : start + 100])) or b"")
            await stream.send_all(client.send(h11.EndOfMessage()) or b"")
            status, content = 0, b""
            while True:
                said: Any = client.next_event()
                match said:
                    case h11.NEED_DATA:
                        client.receive_data(await stream.receive_some(65_536))
                    case h11.Response():
                        status = said.status_code
                    case h11.Data():
                        content += said.data
                    case h11.EndOfMessage():
                        client.start_next_cycle()
                        return status, content

        posted = {"Content_Type": "application/json", "Transfer_Encoding": "chunked"}
        for _ in range(3):
            assert (await ask("POST", "/v1/ingest", BODY, **posted))[0] == 202
            assert (await ask("GET", "/health", b""))[0] == 200
            assert await ask("HEAD", "/health", b"") == (200, b"")
            assert (await ask("GET", "/nowhere", b""))[0] == 404
            assert (await ask("POST", "/v1/ingest", BODY, Content_Length=str(len(BODY))))[0] == 415
            assert (await ask("POST", "/v1/ingest", b"", Content_Type="application/json"))[0] == 422


async def test_http_client_posts_on_one_connection() -> None:
    """Python's own, which our SDK posts with."""
    async with open_door() as door:

        def post() -> list[int]:
            client = http.client.HTTPConnection("127.0.0.1", door.port, timeout=20)
            statuses = []
            for body in (BODY, iter([BODY[:50], BODY[50:]]), b"nonsense", BODY):
                client.request("POST", "/v1/ingest", body, JSON, encode_chunked=not isinstance(body, bytes))
                answer = client.getresponse()
                answer.read()
                statuses.append(answer.status)
            client.close()
            return statuses

        assert await trio.to_thread.run_sync(post) == [202, 202, 422, 202]
