from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

import pytest

from dunetrace import events_page
from dunetrace.events import (
    EVENT_TYPES,
    INJECTION_KEYS,
    Kind,
    event_day,
    id_key,
    normalise_finish_reason,
    position_key,
    storable,
)
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


def test_an_event_id_and_its_timestamp_are_the_identity() -> None:
    first = id_key("e1", 1.5)
    assert first == id_key("e1", 1.5) == "3085ad7b0ce77af0c8a56c1cdd6c69c4"  # for good: it is stored
    assert len({first, id_key("e2", 1.5), id_key("e1", 1.25), id_key("e1", None)}) == 4


def test_whole_seconds_are_the_same_time_as_int_and_as_float() -> None:
    assert id_key("e1", 5) == id_key("e1", 5.0)


def test_under_an_idempotency_key_body_and_position_are_the_identity() -> None:
    body = b"s" * 32
    first = position_key("k", body, 3)
    assert first == position_key("k", body, 3)
    assert len({first, position_key("l", body, 3), position_key("k", body, 4), position_key("k", b"x", 3)}) == 4


def test_parts_of_an_identity_do_not_run_together() -> None:
    assert position_key("k:1", b"", 2) != position_key("k", b"", 12)
    assert id_key("a1", 2.0) != id_key("a", 12.0)


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
