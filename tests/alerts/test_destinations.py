"""What the settings make of themselves: destinations, one warning, or one clear line."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from structlog.testing import capture_logs

from dunetrace.alerts import FORMS, destinations_from
from dunetrace.errors import SettingError
from dunetrace.signals import Severity

URL = "https://hooks.example.com/T0/very-secret-path"


@dataclass
class Given:
    """The webhook's settings first."""

    webhook_url: str | None = None
    webhook_secret: str | None = None
    slack_webhook_url: str | None = None
    slack_min_severity: str = "HIGH"
    alert_window_s: float = 3600.0


def test_nothing_configured_is_nothing_to_do() -> None:
    with capture_logs() as logs:
        assert destinations_from(Given()) == ()
        assert destinations_from(Given(webhook_url="", webhook_secret="x")) == ()
    assert logs == []


def test_the_webhook_gets_every_severity() -> None:
    with capture_logs() as logs:
        (destination,) = destinations_from(Given(URL, "s3cret"))
    assert (destination.name, destination.kind, destination.min_severity) == ("webhook", "webhook", Severity.LOW)
    assert destination.kind in FORMS
    assert logs == []


def test_slack_gets_what_is_severe_enough() -> None:
    (destination,) = destinations_from(Given(slack_webhook_url=URL))
    assert (destination.name, destination.kind, destination.min_severity) == ("slack", "slack", Severity.HIGH)
    (chatty,) = destinations_from(Given(slack_webhook_url=URL, slack_min_severity="LOW"))
    assert chatty.min_severity is Severity.LOW


def test_slack_beside_the_webhook() -> None:
    both = destinations_from(Given(URL, "s3cret", slack_webhook_url=URL))
    assert [destination.name for destination in both] == ["webhook", "slack"]
    assert "very-secret-path" not in repr(both)


def test_an_unsigned_webhook_is_one_warning() -> None:
    with capture_logs() as logs:
        destinations_from(Given(URL))
    assert [(line["event"], line["log_level"]) for line in logs] == [("destination.unsigned", "warning")]
    assert "secret-path" not in str(logs)


def test_neither_the_address_nor_the_secret_shows() -> None:
    (destination,) = destinations_from(Given(URL, "s3cret"))
    assert "very-secret-path" not in repr(destination) and "s3cret" not in repr(destination)


@pytest.mark.parametrize(
    "url",
    [
        "hooks.example.com/very-secret-path",
        "ftp://hooks.example.com/very-secret-path",
        "file:///very-secret-path",
        "https://",
        "https:///very-secret-path",
        "https://a b/very-secret-path",
        "https://host:0/very-secret-path",
        "https://host:99999/very-secret-path",
        "https://host:port/very-secret-path",
        "https://[::1/very-secret-path",
        "https://host/very-secret-path\n",
        "https://" + "a" * 70_000,
    ],
)
def test_an_address_that_cannot_be_used(url: str) -> None:
    with pytest.raises(SettingError, match="WEBHOOK_URL") as raised:
        destinations_from(Given(url, "s3cret"))
    assert "very-secret-path" not in str(raised.value) and "\n" not in str(raised.value)
    with pytest.raises(SettingError, match="SLACK_WEBHOOK_URL") as raised:
        destinations_from(Given(slack_webhook_url=url))
    assert "very-secret-path" not in str(raised.value) and "\n" not in str(raised.value)


def test_a_secret_that_cannot_be_used() -> None:
    with pytest.raises(SettingError, match="WEBHOOK_SECRET"):
        destinations_from(Given(URL, "whsec_%%%"))
