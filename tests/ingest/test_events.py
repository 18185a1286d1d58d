from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest

from dunetrace import events_page
from dunetrace.events import EVENT_TYPES, INJECTION_KEYS, Kind, event_day, event_key, normalise_finish_reason, storable
from tests.shared import CHECKOUT

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC).timestamp()
DAY_S = 86_400


@pytest.mark.parametrize(
    ("sent", "stored"),
    [
        *((text, "length") for text in ("length", "max_tokens", "MAX_TOKENS", "model_length")),
        *((text, "tool_calls") for text in ("tool_use", "tool_calls", "function_call")),
        *((text, "stop") for text in ("end_turn", "stop", "STOP", "stop_sequence")),
        *((text, "content_filter") for text in ("content_filter", "SAFETY", "refusal")),
        ("", "other"),
        ("Stop", "other"),
        (None, None),
    ],
)
def test_finish_reasons(sent: str | None, stored: str | None) -> None:
    assert normalise_finish_reason(sent) == stored


def test_storable_replaces_what_postgres_refuses() -> None:
    assert storable("a\x00b\ud800c\udfffd 😀") == "a\ufffdb\ufffdc\ufffdd 😀"
    assert storable("plain") == "plain"


def _key(event_id: str | None = None, timestamp: float | None = 1.5, **changed: Any) -> str:
    return event_key(
        event_id,
        timestamp,
        **{"idempotency_key": None, "body_sha256": b"s" * 32, "batch_id": "batch", "position": 3, **changed},
    )


def test_an_event_id_and_its_timestamp_are_the_identity_whatever_carried_them() -> None:
    same = {
        _key("e1"),
        _key("e1", batch_id="other", position=9),
        _key("e1", idempotency_key="k", body_sha256=b"t" * 32),
    }
    assert len(same) == 1
    assert len(same | {_key("e2"), _key("e1", 1.25), _key("e1", None)}) == 4
    assert len(same.pop()) == 32


def test_whole_seconds_are_the_same_time_as_int_and_as_float() -> None:
    assert _key("e1", 5) == _key("e1", 5.0)


def test_under_an_idempotency_key_body_and_position_are_the_identity() -> None:
    first = _key(idempotency_key="k")
    assert first == _key(idempotency_key="k", batch_id="other")
    others = {
        _key(idempotency_key="l"),
        _key(idempotency_key="k", position=4),
        _key(idempotency_key="k", body_sha256=b"x"),
    }
    assert len(others | {first}) == 4


def test_parts_of_an_identity_do_not_run_together() -> None:
    assert _key(idempotency_key="k:1", position=2) != _key(idempotency_key="k", position=12)
    assert _key("a1", 2.0) != _key("a", 12.0)


def test_without_either_the_position_in_the_batch_is_the_identity() -> None:
    assert _key() == "batch:3"


@pytest.mark.parametrize(
    ("timestamp", "day"),
    [
        (NOON, date(2026, 11, 22)),
        (NOON + 12 * 3600 - 0.001, date(2026, 11, 22)),
        (NOON + 12 * 3600, date(2026, 11, 23)),
        (NOON + 30 * DAY_S, date(2026, 11, 23)),
        (NOON - 7 * DAY_S, date(2026, 11, 15)),
        (NOON - 8 * DAY_S, date(2026, 11, 15)),
        (0, date(2026, 11, 15)),
    ],
)
def test_the_day_is_the_events_own_within_what_the_server_allows(timestamp: float, day: date) -> None:
    assert date(1970, 1, 1) + timedelta(days=event_day(timestamp, NOON)) == day


def test_every_key_of_the_wire_is_declared() -> None:
    assert {"input_hash", "model", "tools", "injection_signal", "task_hash", "sdk"} <= EVENT_TYPES["run.started"].keys()
    assert {"input_hash", "input_length", "injection_signal"} <= EVENT_TYPES["user.message"].keys()
    assert EVENT_TYPES["tool.called"]["args_shape_hash"] == Kind.DIGEST
    assert {"error_type", "error_hash", "step_index", "dropped_events"} <= EVENT_TYPES["run.errored"].keys()
    assert INJECTION_KEYS["matched_patterns"] == Kind.RULE_LABELS


def test_the_page_is_current() -> None:
    written = (CHECKOUT / "docs" / "events.md").read_text("utf-8")
    assert written == events_page.page(), "run: python -m dunetrace.events_page > docs/events.md"
