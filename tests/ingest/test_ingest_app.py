"""The answers of the door, over real sockets."""

from __future__ import annotations

import gzip
import json
import random
from typing import Any

import httpx
import pytest
import trio

from dunetrace.batches import Batch
from dunetrace.errors import QueueFullError, StoreUnavailableError
from dunetrace.serving import ingest_app
from dunetrace.serving.connection import EngineLimits
from dunetrace.serving.ingest_app import IngestLimits
from dunetrace.store.packing import unpack
from tests.ingest.door_server import Door, event, key, open_door

SMALL = IngestLimits(max_body_bytes=20_000, max_events=10)


def _body(*events: Any) -> bytes:
    return json.dumps({"agent_id": "agent", "events": list(events)}).encode()


def _is_json(answer: httpx.Response) -> bool:
    return answer.headers["content-type"] == "application/json" and answer.json() is not None


async def test_accepted_events_are_kept_before_the_answer() -> None:
    async with open_door() as door:
        answer = await door.send(event(), event(step_index=2, parent_run_id="parent"))
        assert answer.status_code == 202
        said = answer.json()
        assert (said["accepted"], set(said)) == (2, {"accepted", "batch_id", "queued_at"})
        first, second = door.promise.rows
        assert (first.customer_id, first.run_id, first.payload) == (
            "default",
            "run-1",
            {"model": "gpt-4o", "prompt_tokens": 150},
        )
        assert first.batch_id == second.batch_id == said["batch_id"]
        assert first.received_at.timestamp() == pytest.approx(said["queued_at"], abs=1e-5)
        assert (first.event_key, second.event_key) == (f"{first.batch_id}:0", f"{first.batch_id}:1")
        assert second.parent_run_id == "parent"
        assert door.app.counters.accepted_events == 2


async def test_the_good_ones_of_a_batch_are_kept_and_the_others_named() -> None:
    async with open_door() as door:
        answer = await door.send(event(step_index=-1), event(), "secret text", event(run_id=""))
        assert answer.status_code == 202
        assert answer.json()["accepted"] == 1
        assert answer.json()["rejected"] == [
            {"index": 0, "error": "step_index: must be >= 0"},
            {"index": 2, "error": "must be an object"},
            {"index": 3, "error": "run_id: must not be empty"},
        ]
        assert "secret" not in answer.text
        assert [row.event_key.rpartition(":")[2] for row in door.promise.rows] == ["1"]


async def test_nothing_acceptable_is_a_422_and_nothing_is_kept() -> None:
    async with open_door() as door:
        answer = await door.send(event(step_index=-1), event(timestamp="secret"))
        assert answer.status_code == 422
        assert answer.json()["detail"] == [
            {"loc": ["events", 0, "step_index"], "msg": "must be >= 0", "type": "greater_than_equal"},
            {"loc": ["events", 1, "timestamp"], "msg": "must be a number", "type": "float_type"},
        ]
        assert (await door.send()).status_code == 422
        assert door.promise.kept == []


@pytest.mark.parametrize(
    "body",
    [b"", b"not json", b'"text"', b"[" * 100_000, b"\xff\xfe\x00", b'{"agent_id":"a","events":[' + b"9" * 10_000],
)
async def test_what_is_not_a_batch_is_a_422_and_the_next_request_is_served(body: bytes) -> None:
    async with open_door() as door:
        answer = await door.post(body)
        assert answer.status_code == 422
        assert answer.json()["detail"][0]["loc"] == ["body"]
        assert (await door.send(event())).status_code == 202


async def test_text_that_postgres_refuses_is_replaced() -> None:
    async with open_door() as door:
        odd = event(
            run_id="a\x00b", payload={"model": "m\ud800", "prompt_tokens": float("nan")}, timestamp=float("inf")
        )
        answer = await door.post(json.dumps({"agent_id": "agent", "events": [odd]}).encode())
        assert answer.status_code == 202
        (row,) = door.promise.rows
        assert (row.run_id, row.payload) == ("a\ufffdb", {"model": "m\ufffd"})
        assert row.timestamp == pytest.approx(row.received_at.timestamp(), abs=1e-5)


async def test_unknown_event_types_are_kept_without_their_payload() -> None:
    async with open_door() as door:
        assert (await door.send(event(event_type="made.up", payload={"text": "secret"}))).status_code == 202
        assert door.promise.rows[0].payload == {}
        assert door.app.counters.dropped_keys == 1


async def test_gzip_plain_and_chunked_bodies_are_the_same() -> None:
    async with open_door() as door:
        body = _body(event())
        two_members = gzip.compress(body[:50]) + gzip.compress(body[50:])
        assert (await door.post(gzip.compress(body), Content_Encoding="gzip")).status_code == 202
        assert (await door.post(two_members, Content_Encoding="GZIP")).status_code == 202

        async def pieces() -> Any:
            for start in range(0, len(body), 40):
                await trio.lowlevel.checkpoint()
                yield body[start : start + 40]

        headers = {"Content-Type": "application/json; charset=utf-8"}
        answer = await door.client.post("/v1/ingest", content=pieces(), headers=headers)
        assert answer.status_code == 202
        assert len(door.promise.rows) == 3
        assert len({row.run_id for row in door.promise.rows}) == 1


@pytest.mark.parametrize(
    "broken", [b"not gzip", gzip.compress(_body(event()), mtime=0)[:-12], b"", gzip.compress(b"{}", mtime=0) + b"tail"]
)
async def test_broken_gzip_is_a_422(broken: bytes) -> None:
    async with open_door() as door:
        answer = await door.post(broken, Content_Encoding="gzip")
        assert (answer.status_code, answer.json()["detail"][0]["type"]) == (422, "gzip_invalid")


async def test_too_much_is_a_413_however_it_comes() -> None:
    async with open_door(limits=SMALL) as door:
        large = _body(event(payload={"model": "x" * 30_000}))

        async def pieces() -> Any:
            for _ in range(100):
                await trio.lowlevel.checkpoint()
                yield b" " * 1_000

        assert (await door.post(large)).status_code == 413
        assert (await door.post(gzip.compress(large), Content_Encoding="gzip")).status_code == 413
        headers = {"Content-Type": "application/json"}
        chunked = await door.client.post("/v1/ingest", content=pieces(), headers=headers)
        assert chunked.status_code == 413
        assert _is_json(chunked)
        assert (await door.send(*[event()] * 11)).status_code == 413
        assert (await door.send(*[event()] * 10)).status_code == 202
        assert door.app._bodies.used_bytes == 0


async def test_who_is_refused_before_the_body_was_read_still_gets_the_answer() -> None:
    """The rest of the body is read and thrown away: closing on a client that still sends would reset its connection."""
    async with open_door("prod") as door:
        large = b" " * (8 << 20)
        assert (await door.post(large, Authorization="Bearer bad")).status_code == 401
        assert (await door.post(large, Content_Type="text/plain")).status_code == 415
        assert (await door.client.post("/v1/nowhere", content=large)).status_code == 404


async def test_a_gzip_bomb_stops_at_the_limit() -> None:
    async with open_door() as door:
        bomb = gzip.compress(b"0" * (65 << 20))
        assert (await door.post(bomb, Content_Encoding="gzip")).status_code == 413


async def test_bodies_in_hand_share_one_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ingest_app, "BODIES_IN_HAND_BYTES", 1_000)
    async with open_door() as door:
        answer = await door.send(*[event()] * 10)
        assert answer.status_code == 503
        assert int(answer.headers["retry-after"]) >= 1
        assert (await door.send(event())).status_code == 202


async def test_requests_in_hand_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ingest_app, "MAX_REQUESTS_IN_HAND", 0)
    async with open_door() as door:
        answer = await door.send(event())
        assert (answer.status_code, "retry-after" in answer.headers) == (503, True)


@pytest.mark.parametrize("count", [1_500, 22_000])
async def test_a_whole_ring_in_one_body_is_kept(count: int) -> None:
    """Bodies above 256 KiB and above 4 MiB take other ways through the door; what comes out is the same."""
    async with open_door() as door:
        body = _body(*(event(step_index=number) for number in range(count)))
        assert len(body) > (ingest_app.THREAD_BODIES_BYTES if count == 22_000 else ingest_app.THREAD_BODY_BYTES)
        answers = []

        async def post() -> None:
            answers.append(await door.post(body))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(post)
            nursery.start_soon(post)
        assert [answer.json()["accepted"] for answer in answers] == [count, count]
        for batch in door.promise.kept:
            assert [row.step_index for row in unpack(batch.rows)] == list(range(count))


@pytest.mark.parametrize(
    "headers",
    [
        {"Content-Type": "text/plain"},
        {"Content-Type": "application/jsonx"},
        {"Content-Type": "application/json", "Content-Encoding": "br"},
        {"Content-Type": "application/json", "Content-Encoding": "gzip, gzip"},
    ],
)
async def test_other_types_and_encodings_are_a_415(headers: dict[str, str]) -> None:
    async with open_door() as door:
        answer = await door.client.post("/v1/ingest", content=_body(event()), headers=headers)
        assert answer.status_code == 415
        assert _is_json(answer)
        bare = await door.client.post("/v1/ingest", content=_body(event()))
        assert bare.status_code == 415


async def test_a_full_queue_and_an_absent_postgres_are_a_503_that_says_when() -> None:
    async with open_door() as door:
        for error in (QueueFullError(), StoreUnavailableError("timeout")):
            door.promise.error = error
            started = trio.current_time()
            answer = await door.send(event())
            assert answer.status_code == 503
            assert int(answer.headers["retry-after"]) >= 1
            assert trio.current_time() - started >= ingest_app.OVERLOAD_HOLD_S
        door.promise.error = None
        assert (await door.send(event())).status_code == 202


async def _never(_batch: Batch) -> None:
    await trio.sleep_forever()


async def test_a_promise_that_is_never_kept_is_a_503(monkeypatch: pytest.MonkeyPatch) -> None:
    async with open_door(engine_limits=EngineLimits(sweep_s=0.02)) as door:
        monkeypatch.setattr(ingest_app, "PROMISE_TIMEOUT_S", 0.05)
        monkeypatch.setattr(door.promise, "keep", _never)
        answer = await door.send(event())
        assert (answer.status_code, answer.headers["retry-after"], answer.headers["connection"]) == (503, "1", "close")


async def test_a_fault_of_ours_is_a_500_without_its_message(capfd: pytest.CaptureFixture[str]) -> None:
    async with open_door() as door:
        door.promise.error = RuntimeError("secret")
        answer = await door.send(event())
        assert (answer.status_code, answer.json()) == (500, {"detail": "Internal error"})
        said = capfd.readouterr()
        assert "secret" not in said.out + said.err
        assert "ingest.failed" in said.out + said.err


# -- keys


async def test_in_prod_a_key_is_asked_for_in_header_or_body() -> None:
    async with open_door("prod") as door:
        header = key(door.keys, "good")
        assert (await door.send(event(), headers=header)).status_code == 202
        assert (await door.send(event(), api_key="good")).status_code == 202
        assert {row.customer_id for row in door.promise.rows} == {"acme"}
        for refused in (
            await door.send(event()),
            await door.send(event(), api_key="bad"),
            await door.send(event(), api_key="good", headers={"Authorization": "Bearer bad"}),
        ):
            assert (refused.status_code, refused.json()) == (401, {"detail": "Invalid or inactive API key"})
        reader = key(door.keys, "reader", scopes="read")
        assert (await door.send(event(), headers=reader)).status_code == 403
        assert len(door.promise.rows) == 2


async def test_a_key_of_one_agent_writes_for_that_agent_only() -> None:
    async with open_door("prod") as door:
        header = key(door.keys, "mine", agent="agent")
        answer = await door.send(event(), event(agent_id="foreign"), event(step_index=-1), headers=header)
        assert answer.status_code == 202
        assert [one["index"] for one in answer.json()["rejected"]] == [1, 2]
        assert "foreign" not in answer.text
        assert [row.agent_id for row in door.promise.rows] == ["agent"]
        none = await door.send(event(agent_id="foreign"), headers=header)
        assert none.status_code == 403
        assert (await door.send(event(step_index=-1), headers=header)).status_code == 422
        assert len(door.promise.kept) == 1


async def test_the_rate_limit_is_a_keys_own_and_says_when() -> None:
    async with open_door("prod", IngestLimits(rate_limit_rpm=2)) as door:
        first, second = key(door.keys, "one"), key(door.keys, "two")
        assert [(await door.send(event(), headers=first)).status_code for _ in range(3)] == [202, 202, 429]
        answer = await door.send(event(), headers=first)
        assert int(answer.headers["retry-after"]) >= 1
        assert (await door.send(event(), headers=second)).status_code == 202


async def test_dev_mode_is_for_this_machine_only() -> None:
    async with open_door() as door:
        for headers in ({"Host": "dunetrace.example.com"}, {"X-Forwarded-For": "1.2.3.4"}, {"Via": "1.1 x"}):
            answer = await door.send(event(), headers=headers)
            assert answer.status_code == 403
            assert "AUTH_MODE" in answer.json()["detail"]
        assert door.promise.kept == []
        assert (await door.send(event(), headers={"Host": "localhost:8001"})).status_code == 202


# -- identity


async def test_the_same_batch_under_one_idempotency_key_has_the_same_identities() -> None:
    async with open_door() as door:
        once = {"Idempotency-Key": "k1"}
        sent = [event(), event(step_index=2)]
        for headers in (once, once, {"Idempotency-Key": "k2"}, {}, {}):
            assert (await door.send(*sent, headers=headers, dropped_events=3)).status_code == 202
        keys = [tuple(row.event_key for row in unpack(batch.rows)) for batch in door.promise.kept]
        assert keys[0] == keys[1]
        assert len(set(keys)) == 4
        assert {batch.customer_id for batch in door.promise.kept} == {"default"}
        losses = [batch.loss for batch in door.promise.kept if batch.loss]
        assert {(loss.agent_id, loss.dropped) for loss in losses} == {("agent", 3)}
        assert losses[0].loss_key == losses[1].loss_key != losses[2].loss_key
        body = _body(*sent)
        for content, encoding in ((body, "identity"), (gzip.compress(body), "gzip")):
            await door.post(content, Idempotency_Key="k3", Content_Encoding=encoding)
        plain, zipped = door.promise.kept[-2:]
        assert [row.event_key for row in unpack(plain.rows)] == [row.event_key for row in unpack(zipped.rows)]


async def test_an_idempotency_key_is_bounded() -> None:
    async with open_door() as door:
        assert (await door.send(event(), headers={"Idempotency-Key": "x" * 256})).status_code == 422
        assert (await door.send(event(), headers={"Idempotency-Key": "x" * 255})).status_code == 202


async def test_event_ids_make_an_identity_across_batches() -> None:
    async with open_door() as door:
        await door.send(event(event_id="e1"))
        await door.send(event(), event(event_id="e1"))
        first, _, again = door.promise.rows
        assert (first.event_key, first.day) == (again.event_key, again.day)
        assert "e1" not in first.event_key


async def test_a_conversation_is_kept_as_a_hash_only() -> None:
    async with open_door() as door:
        await door.send(event(conversation_id="thread of bob"), event(conversation_id=5), event(conversation_id=None))
        first, *others = door.promise.rows
        assert len(first.payload["conversation_hash"]) == 64
        assert all("conversation_hash" not in row.payload for row in others)
        assert "bob" not in repr(door.promise.rows)


# -- the other routes


async def test_health_is_what_it_is_told() -> None:
    async with open_door("prod") as door:
        answer = await door.client.get("/health")
        assert (answer.status_code, answer.json()["actors"]) == (200, {"ingest": {"state": "running", "restarts": 0}})


async def test_what_published_clients_ask_beside_events() -> None:
    async with open_door("prod") as door:
        header = key(door.keys, "good")
        answer = await door.client.get("/v1/policies", params={"agent_id": "a", "api_key": "good"})
        assert (answer.status_code, answer.json()) == (200, {"policies": []})
        answer = await door.client.get(
            "/v1/detector-config", params={"agent_id": "a", "agent_version": "v"}, headers=header
        )
        said = answer.json()
        assert said.pop("generated_at") > 1_700_000_000
        assert said == {
            "schema_version": 1,
            "agent_id": "a",
            "agent_version": "v",
            "ttl_s": 60,
            "detectors": {},
            "packs": [],
            "baselines": None,
        }
        assert (await door.client.get("/v1/policies")).status_code == 401
        assert (await door.client.get("/v1/policies", params={"api_key": "bad"})).status_code == 401


async def test_a_deploy_is_marked_without_its_meta() -> None:
    async with open_door("prod") as door:
        sent = {"api_key": "good", "agent_id": "agent", "version": "v1.4.2", "meta": {"env": "production"}}
        key(door.keys, "good", agent="agent")
        answer = await door.client.post("/v1/deploy", json=sent)
        assert (answer.status_code, answer.json()) == (
            202,
            {"id": 1, "agent_id": "agent", "version": "v1.4.2", "deployed_at": 1_795_316_700.5},
        )
        assert door.marks == [("acme", "agent", "v1.4.2")]
        assert (await door.client.post("/v1/deploy", json={**sent, "agent_id": "other"})).status_code == 403
        assert (await door.client.post("/v1/deploy", json={**sent, "version": ""})).status_code == 422
        assert (await door.client.post("/v1/deploy", json={**sent, "version": 5})).status_code == 422
        assert (await door.client.post("/v1/deploy", json={**sent, "api_key": ""})).status_code == 401
        assert (await door.client.post("/v1/deploy", json=[sent])).status_code == 422
        assert (await door.client.post("/v1/deploy", data=sent)).status_code == 415
        assert len(door.marks) == 1


@pytest.mark.parametrize("path", ["/v1/orgs/packs", "/v1/orgs/x/y", "/v1/approvals", "/v1/approvals/5"])
@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_what_is_not_offered_says_so(path: str, method: str) -> None:
    async with open_door("prod") as door:
        answer = await door.client.request(method, path)
        assert answer.status_code == 404
        assert "not offered" in answer.json()["detail"]


@pytest.mark.parametrize(
    "path", ["/", "/v1/ingest/", "/v1%2Fingest", "/V1/ingest", "/v1/traces", "/%00", "/v1/ingest%00"]
)
async def test_other_paths_are_a_404(path: str) -> None:
    async with open_door() as door:
        answer = await door.client.post(path, json={})
        assert (answer.status_code, answer.json()) == (404, {"detail": "Not found"})


async def test_methods() -> None:
    async with open_door() as door:
        for method, path in (
            ("GET", "/v1/ingest"),
            ("DELETE", "/v1/ingest"),
            ("POST", "/health"),
            ("PUT", "/v1/deploy"),
        ):
            answer = await door.client.request(method, path)
            assert answer.status_code == 405
            assert _is_json(answer)
            assert "OPTIONS" in answer.headers["allow"]
        head = await door.client.head("/health")
        assert (head.status_code, head.content, head.headers["content-type"]) == (200, b"", "application/json")
        options = await door.client.options("/v1/ingest")
        assert (options.status_code, options.headers["allow"]) == (200, "OPTIONS, POST")
        assert "access-control-allow-origin" not in options.headers


async def test_random_bodies_never_break_the_door() -> None:
    async with open_door() as door:
        whole = _body(event(payload={"model": "é😀"}), event(event_id="e"))
        chance = random.Random(7)
        for _ in range(150):
            damaged = bytearray(whole)
            for _ in range(chance.randint(1, 4)):
                damaged[chance.randrange(len(damaged))] = chance.randrange(256)
            answer = await door.post(bytes(damaged))
            assert answer.status_code in (202, 422)
            assert _is_json(answer)


async def test_a_client_that_leaves_in_the_middle_harms_nobody() -> None:
    async with open_door() as door:
        for cut in (b"POST /v1/ingest HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
                    b"Content-Length: 5000\r\n\r\n{", b"POST /v1/ing", b"\x16\x03\x01garbage\r\n\r\n"):  # fmt: skip
            async with await trio.open_tcp_stream("127.0.0.1", door.port) as stream:
                await stream.send_all(cut)
        assert (await door.send(event())).status_code == 202
        await _until_empty(door)


async def _until_empty(door: Door) -> None:
    with trio.fail_after(5):
        while door.app._bodies.used_bytes or door.app._in_hand:
            await door.client.get("/health")  # each answer lets the loop get on
