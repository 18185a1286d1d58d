"""Where alerts go, as the settings name it. Read once at the start by the supervisor."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Protocol

import httpx

from dunetrace.alerts.webhook import signing_keys
from dunetrace.deliveries import Subscription
from dunetrace.errors import SettingError
from dunetrace.signals import Severity
from dunetrace.telemetry import log


class AlertSettings(Protocol):
    """The settings this room reads."""

    @property
    def slack_webhook_url(self) -> str | None: ...
    @property
    def slack_min_severity(self) -> str: ...
    @property
    def alert_window_s(self) -> float: ...
    @property
    def webhook_url(self) -> str | None: ...
    @property
    def webhook_secret(self) -> str | None: ...


@dataclass(frozen=True, slots=True)
class Destination:
    """One place alerts go to. The URL may hold a token, so neither it nor the secret is ever shown."""

    name: str
    kind: str  # a key of `alerts.FORMS`
    url: str = field(repr=False)
    secret: str | None = field(default=None, repr=False)
    min_severity: Severity = Severity.LOW
    gather_s: float = 0.0

    @property
    def subscription(self) -> Subscription:
        """What the dispatcher needs to know of it."""
        return Subscription(self.name, self.kind, self.min_severity, gather_s=self.gather_s)


def destinations_from(settings: AlertSettings) -> tuple[Destination, ...]:
    """The destinations that are configured. SettingError when an address or a secret cannot be used."""
    return (*_webhook(settings), *_slack(settings))


def _webhook(settings: AlertSettings) -> Iterator[Destination]:
    if not settings.webhook_url:
        return
    check_url("WEBHOOK_URL", settings.webhook_url)
    if settings.webhook_secret:
        signing_keys(settings.webhook_secret)
    else:
        log.warning("destination.unsigned", destination="webhook", setting="WEBHOOK_SECRET")
    yield Destination("webhook", "webhook", settings.webhook_url, settings.webhook_secret or None)


def _slack(settings: AlertSettings) -> Iterator[Destination]:
    if not settings.slack_webhook_url:
        return
    check_url("SLACK_WEBHOOK_URL", settings.slack_webhook_url)
    yield Destination(
        "slack",
        "slack",
        settings.slack_webhook_url,
        min_severity=Severity(settings.slack_min_severity),
        gather_s=settings.alert_window_s,
    )


def check_url(setting: str, url: str) -> None:
    """SettingError, without the address in it, unless `url` is one that can be posted to."""
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL:
        raise SettingError(f"{setting}: not a URL; it looks like https://host/path") from None
    if parsed.scheme not in {"http", "https"}:
        raise SettingError(f"{setting}: must start with https:// or http://")
    if not parsed.host or "%" in parsed.host:
        raise SettingError(f"{setting}: names no valid host; it looks like https://host/path")
    if parsed.port is not None and not 0 < parsed.port < 65536:
        raise SettingError(f"{setting}: the port must be 1..65535")
