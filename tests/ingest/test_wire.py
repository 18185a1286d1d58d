from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dunetrace.serving import wire
from dunetrace.serving.answers import RefusedError
from dunetrace.serving.wire import SentBatch, decode
from tests.ingest.door_server import event


def _body(*events: Any, **top: Any) -> bytes:
    return json.dumps({"agent_id": "agent", "events": list(events), **top}).encode()


def _sent(body: bytes) -> SentBatch:
    return decode(body, 100)


def _refusal(body: bytes) -> RefusedError:
    with pytest.raises(RefusedError) as refused:
        _sent(body)
    return refused.value


def test_a_well_formed_batch_needs_no_second_look(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "_tolerant", lambda *_: pytest.fail("the tolerant decoder was asked"))
    batch = _sent(_body(event(), event(step_index=2), api_key="k", dropped_events=3, trace_id=None))
    assert (batch.api_key, batch.agent_id, batch.dropped_events, batch.malformed) == ("k", "agent", 3, [])
    assert [(position, sent.step_index) for position, sent in batch.events] == [(0, 1), (1, 2)]


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({"step_index": -1}, "step_index: must be >= 0"),
        ({"step_index": 2**31}, "step_index: must be <= 2147483647"),
        ({"step_index": 10**400}, "step_index: must be an integer"),
        ({"step_index": True}, "step_index: must be an integer"),
        ({"step_index": 3.0}, "step_index: must be an integer"),
        ({"step_index": "1"}, "step_index: must be an integer"),
        ({"step_index": None}, "step_index: must be an integer"),
        ({"timestamp": -0.5}, "timestamp: must be >= 0"),
        ({"timestamp": 4102444800}, "timestamp: must be < 4102444800"),
        ({"timestamp": "now"}, "timestamp: must be a number"),
        ({"timestamp": True}, "timestamp: must be a number"),
        ({"event_type": ""}, "event_type: must not be empty"),
        ({"event_type": "x" * 65}, "event_type: must be at most 64 characters"),
        ({"run_id": 7}, "run_id: must be a string"),
        ({"run_id": "x" * 257}, "run_id: must be at most 256 characters"),
        ({"agent_version": ""}, "agent_version: must not be empty"),
        ({"payload": [1]}, "payload: must be an object"),
        ({"parent_run_id": 5}, "parent_run_id: must be a string"),
        ({"event_id": "x" * 257}, "event_id: must be at most 256 characters"),
    ],
)
def test_one_malformed_event_costs_only_itself(fields: dict[str, Any], error: str) -> None:
    batch = _sent(_body(event(run_id="a"), event(**fields), event(run_id="b")))
    assert [(position, sent.run_id) for position, sent in batch.events] == [(0, "a"), (2, "b")]
    assert [(fault.position, fault.error) for fault in batch.malformed] == [(1, error)]


@pytest.mark.parametrize("field", ["event_type", "run_id", "agent_id", "agent_version", "step_index"])
def test_missing_fields_are_named(field: str) -> None:
    lacking = event()
    del lacking[field]
    fault = _sent(_body(lacking)).malformed[0]
    assert fault.error == f"{field}: is required"
    assert fault.detail == {"loc": ["events", 0, field], "msg": "is required", "type": "missing"}


@pytest.mark.parametrize("item", [None, 5, "text", [], [{}]])
def test_an_event_is_an_object(item: Any) -> None:
    fault = _sent(_body(event(), item)).malformed[0]
    assert (fault.error, fault.detail["loc"]) == ("must be an object", ["events", 1])


def test_the_tolerant_decoder_reads_what_python_writes() -> None:
    raw = _body(event(run_id="\ud800x\x00", timestamp=float("nan"), payload={"prompt_tokens": float("inf"), "m": 1}))
    assert b"NaN" in raw and b"Infinity" in raw and b"\\u0000" in raw and b"\\ud800" in raw
    ((_, sent),) = _sent(raw).events
    assert (sent.run_id, sent.timestamp, sent.payload) == ("\ufffdx\ufffd", None, {"prompt_tokens": None, "m": 1})


def test_numbers_out_of_range_are_null() -> None:
    raw = _body(event(payload={"a": 0, "b": 0, "c": 0})).replace(
        b'{"a": 0, "b": 0, "c": 0}', b'{"a": 1e999, "b": ' + b"9" * 5000 + b', "c": -1e999}'
    )
    ((_, sent),) = _sent(raw).events
    assert sent.payload == {"a": None, "b": None, "c": None}


def test_a_nul_is_cleaned_though_the_strict_decoder_would_take_it() -> None:
    ((_, sent),) = _sent(_body(event(agent_id="a\x00b", event_id="\x00"))).events
    assert (sent.agent_id, sent.event_id) == ("a\ufffdb", "\ufffd")


@pytest.mark.parametrize(
    ("body", "loc"),
    [
        (b"", ["body"]),
        (b"{", ["body"]),
        (b"\xff\xfe", ["body"]),
        (b"[" * 100_000 + b"]" * 100_000, ["body"]),
        (b'{"agent_id":"a","events":[' + b'{"payload":' * 50_000 + b"1" + b"}" * 50_000 + b"]}", ["body"]),
        (b"5", ["body"]),
        (b"[]", ["body"]),
        (b'{"events": []}', ["agent_id"]),
        (b'{"agent_id": "", "events": [{}]}', ["agent_id"]),
        (b'{"agent_id": 5, "events": [{}]}', ["agent_id"]),
        (b'{"agent_id": "a"}', ["events"]),
        (b'{"agent_id": "a", "events": {}}', ["events"]),
        (b'{"agent_id": "a", "events": []}', ["events"]),
    ],
)
def test_what_is_no_batch_at_all_is_a_422(body: bytes, loc: list[str]) -> None:
    refused = _refusal(body)
    assert refused.status == 422
    assert isinstance(refused.detail, list)
    assert refused.detail[0]["loc"] == loc


def test_too_many_events_are_a_413_to_both_decoders() -> None:
    assert _refusal(_body(*[event()] * 101)).status == 413
    assert _refusal(_body(*[None] * 101)).status == 413
    assert len(_sent(_body(*[event()] * 100)).events) == 100


def test_wrong_types_beside_the_events_are_ignored() -> None:
    batch = _sent(_body(event(), api_key=5, dropped_events="many"))
    assert (batch.api_key, batch.dropped_events, len(batch.events)) == ("", 0, 1)


_values = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(), max_size=5)
) | st.sampled_from(["x" * 256, "x" * 257, "é" * 256, 2**31 - 1, 2**31, 4102444799.5, [], {}, {"a": [1, None]}])
_events = st.dictionaries(st.sampled_from([*event(), "event_id", "conversation_id"]), _values, max_size=3).map(
    lambda fields: event(**fields)
)


@settings(max_examples=300, deadline=None)
@given(events=st.lists(_events, min_size=1, max_size=3), ascii_only=st.booleans())
def test_both_decoders_agree(events: list[dict[str, Any]], ascii_only: bool) -> None:
    """The strict decoder takes nothing that the tolerant one faults, and makes the same of what both take."""
    text = json.dumps({"agent_id": "agent", "events": events}, ensure_ascii=ascii_only)
    body = text.encode("utf-8", "surrogatepass")
    whole, tolerant = decode(body, 100), wire._tolerant(wire.tolerant_json(body), 100)
    assert msgspec.to_builtins(whole.events) == msgspec.to_builtins(tolerant.events)
    assert whole.malformed == tolerant.malformed
    if tolerant.malformed:
        with pytest.raises(msgspec.MsgspecError):
            wire._strictly(body, 100)
