"""Every setting of the server, read once, here, from the environment and a `.env` file beside the process.

A bad value ends the start with one line that names the setting, its fault and what is allowed. `SETTINGS` is also what
docs/configuration.md is checked against.
"""

from __future__ import annotations

import ipaddress
import math
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import platformdirs
from dotenv import dotenv_values

from dunetrace import documents, prices
from dunetrace.alerts import listing
from dunetrace.alerts.destinations import FROM_SETTINGS, Destination
from dunetrace.detectors import thresholds
from dunetrace.errors import SettingError
from dunetrace.signals import Severity


class Bind(NamedTuple):
    """Where a port listens. Port 0 is any free one."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def is_loopback(self) -> bool:
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False


class Setting(NamedTuple):
    """One setting: its name in the environment, the field of `Settings`, its default as text, and what it is for."""

    name: str
    field: str
    default: str | None
    parse: Callable[[str], Any]
    what: str


@dataclass(frozen=True)
class Settings:
    """What the server was told. Durations are seconds, sizes bytes; secrets never show in a repr."""

    database_url: str | None = field(repr=False)
    data_dir: Path
    ingest_bind: Bind
    api_bind: Bind
    dashboard_bind: Bind
    auth_mode: str
    poll_interval_s: float
    alert_interval_s: float
    stall_timeout_s: float
    detectors_path: Path | None
    alerts_path: Path | None
    prices_path: Path | None
    fleet_alerts: bool
    fleet_error_rate: float
    slack_webhook_url: str | None = field(repr=False)
    slack_min_severity: str
    alert_window_s: float
    webhook_url: str | None = field(repr=False)
    webhook_secret: str | None = field(repr=False)
    dashboard_url: str | None
    allow_private_destinations: bool
    digest_enabled: bool
    digest_day: int
    digest_hour: int
    hash_key: bytes | None = field(repr=False)
    rate_limit_rpm: int
    max_body_bytes: int
    max_events: int
    promise: str
    during_outage: str
    journal_sync: bool
    journal_max_bytes: int
    cors_origins: tuple[str, ...]
    langfuse_host: str | None
    langfuse_public_key: str | None = field(repr=False)
    langfuse_secret_key: str | None = field(repr=False)
    anthropic_api_key: str | None = field(repr=False)
    openai_api_key: str | None = field(repr=False)
    anthropic_base_url: str | None
    openai_base_url: str | None
    explain_model: str | None
    log_level: str
    limits: thresholds.Limits = field(repr=False)
    listed: tuple[Destination, ...] = field(repr=False)
    prices: prices.Prices = field(repr=False)


def load(environ: Mapping[str, str] | None = None, directory: Path | None = None) -> Settings:
    """Read everything. Raises SettingError.

    `environ` defaults to the process's, `directory`, where `.env` and the YAML files may lie, to the working directory.
    """
    here = directory or Path.cwd()
    given = {**_dotenv(here / ".env"), **(os.environ if environ is None else environ)}
    _refuse_later(given)
    values: dict[str, Any] = {}
    for setting in SETTINGS:
        text = given.get(setting.name) or setting.default
        try:
            values[setting.field] = None if text is None else setting.parse(text)
        except ValueError as error:
            raise SettingError(f"{setting.name}: {error}") from None
    binds = [values["ingest_bind"], values["api_bind"], values["dashboard_bind"]]
    if values["during_outage"] == "spool" and values["promise"] != "journal":
        raise SettingError("DUNETRACE_INGEST_DURING_OUTAGE: spool needs DUNETRACE_PROMISE=journal")
    values["auth_mode"] = _auth_mode(values["auth_mode"], binds)
    detectors = documents.read("DETECTORS_CONFIG", values["detectors_path"], here / "detectors.yml")
    values["limits"] = thresholds.check(detectors)
    alerts = documents.read("ALERTS_CONFIG", values["alerts_path"], here / "alerts.yml")
    taken = {name: setting for name, setting in FROM_SETTINGS.items() if given.get(setting)}
    values["listed"] = listing.check(alerts, given, taken, values["alert_window_s"])
    values["prices"] = prices.check(documents.read("PRICES_CONFIG", values["prices_path"], here / "prices.yml"))
    return Settings(**values)


def _text(value: str) -> str:
    return value


def _path(value: str) -> Path:
    return Path(value).expanduser().absolute()


def _bind(value: str) -> Bind:
    host, _, port = value.rpartition(":")
    if not host or not port.isdecimal() or int(port) > 65_535:
        raise ValueError(f"{value!r} is not an address and a port; it looks like 127.0.0.1:8001, the port 0 to 65535")
    return Bind(host.strip("[]"), int(port))


def _number(low: float, high: float, of: str = "") -> Callable[[str], float]:
    def parse(value: str) -> float:
        try:
            number = float(value)
        except ValueError:
            number = math.nan
        if not low <= number <= high:
            raise ValueError(f"{value!r} is not a number{of} from {low:g} to {high:g}")
        return number

    return parse


def _seconds(low: float, high: float) -> Callable[[str], float]:
    return _number(low, high, " of seconds")


def _whole(low: int, high: int) -> Callable[[str], int]:
    def parse(value: str) -> int:
        if not value.strip().isdecimal() or not low <= int(value) <= high:
            raise ValueError(f"{value!r} is not a whole number from {low} to {high}")
        return int(value)

    return parse


def _one_of(*allowed: str) -> Callable[[str], str]:
    def parse(value: str) -> str:
        found = next((name for name in allowed if name.lower() == value.strip().lower()), None)
        if found is None:
            raise ValueError(f"{value!r} is not one of {', '.join(allowed)}")
        return found

    return parse


_FLAGS = {"1": "true", "0": "false", "on": "true", "off": "false"}


def _flag(value: str) -> bool:
    return _one_of("true", "false")(_FLAGS.get(value.strip().lower(), value)) == "true"


def _database_url(value: str) -> str:
    try:
        parts = urlsplit(value)
        _ = parts.port
    except ValueError:
        parts = urlsplit("")
    if parts.scheme not in ("postgresql", "postgres"):
        # The value may hold a password, so it isn't shown.
        raise ValueError("not a Postgres address; it looks like postgresql://user:password@host:5432/name")
    return value


def _http_url(value: str) -> str:
    try:
        parts = urlsplit(value)
        _ = parts.port
    except ValueError:
        parts = urlsplit("")
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("not an http(s) address; it looks like https://host/path")
    return value


def _header_text(value: str) -> str:
    if not value.isascii() or not value.isprintable() or value.strip() != value:
        # The value is a secret, so it isn't shown.
        raise ValueError("not a key: it holds something else than printable ASCII, or a space around it")
    return value


def _origins(value: str) -> tuple[str, ...]:
    origins = tuple(part.strip().rstrip("/") for part in value.split(",") if part.strip())
    for origin in origins:
        parts = urlsplit(origin)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.path or parts.query:
            raise ValueError(f"{origin!r} is not an origin; it looks like https://host:port (several: with commas)")
    return origins


def _key(value: str) -> bytes:
    return value.encode("utf-8", "replace")


_LOG_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR")
_DATA_DIR = "/var/lib/dunetrace" if os.geteuid() == 0 else platformdirs.user_data_dir("dunetrace", appauthor=False)

SETTINGS: tuple[Setting, ...] = (
    Setting("DATABASE_URL", "database_url", None, _database_url,
            "Postgres to use. Unset: an embedded Postgres under the data directory"),
    Setting("DUNETRACE_DATA_DIR", "data_dir", _DATA_DIR, _path, "where the embedded Postgres lives"),
    Setting("DUNETRACE_INGEST_BIND", "ingest_bind", "127.0.0.1:8001", _bind, "where agents send events"),
    Setting("DUNETRACE_API_BIND", "api_bind", "127.0.0.1:8002", _bind, "where the API listens"),
    Setting("DUNETRACE_DASHBOARD_BIND", "dashboard_bind", "127.0.0.1:3000", _bind, "where the page is served"),
    Setting("AUTH_MODE", "auth_mode", None, _one_of("dev", "prod"),
            "dev accepts any key on loopback, prod asks for keys. Unset: dev while every bind is loopback, else prod"),
    Setting("DUNETRACE_POLL_INTERVAL", "poll_interval_s", "5", _seconds(0.05, 3600),
            "how often the poller looks by itself, in seconds"),
    Setting("DUNETRACE_ALERT_INTERVAL", "alert_interval_s", "10", _seconds(0.05, 3600),
            "how often the dispatcher looks by itself, in seconds"),
    Setting("DUNETRACE_STALL_TIMEOUT", "stall_timeout_s", "90", _seconds(0.1, 7 * 86_400),
            "a run silent for this long is judged as stalled, in seconds"),
    Setting("DETECTORS_CONFIG", "detectors_path", None, _path,
            "thresholds. Unset: `detectors.yml` in the working directory, if there"),
    Setting("ALERTS_CONFIG", "alerts_path", None, _path,
            "more destinations of alerts. Unset: `alerts.yml` in the working directory, if there"),
    Setting("PRICES_CONFIG", "prices_path", None, _path,
            "what tokens cost. Unset: `prices.yml` in the working directory, if there"),
    Setting("DUNETRACE_FLEET_ALERTS", "fleet_alerts", "true", _flag,
            "whether a failure that became more frequent with a version, a deploy or in an hour is told"),
    Setting("DUNETRACE_FLEET_ERROR_RATE", "fleet_error_rate", "0.001", _number(1e-9, 0.1),
            "how often chance alone may cause such an alert, for each agent, failure type and version"),
    Setting("SLACK_WEBHOOK_URL", "slack_webhook_url", None, _http_url, "Slack's incoming webhook"),
    Setting("SLACK_MIN_SEVERITY", "slack_min_severity", "HIGH", _one_of(*Severity),
            "least severe signal that Slack is told"),
    Setting("DUNETRACE_ALERT_WINDOW", "alert_window_s", "3600", _seconds(0, 7 * 86_400),
            "within this, Slack and PagerDuty are told of repeats together, in seconds; 0 = of each by itself"),
    Setting("WEBHOOK_URL", "webhook_url", None, _http_url, "where signals are posted"),
    Setting("WEBHOOK_SECRET", "webhook_secret", None, _text, "signs the webhook's requests"),
    Setting("DASHBOARD_URL", "dashboard_url", None, _http_url,
            "the page's address in alerts. Unset: the page's real address"),
    Setting("DUNETRACE_ALLOW_PRIVATE_DESTINATIONS", "allow_private_destinations", "false", _flag,
            "whether alerts may go to internal addresses, and Langfuse and the model may have one"),
    Setting("DIGEST_ENABLED", "digest_enabled", "true", _flag, "whether Slack gets a weekly digest"),
    Setting("DIGEST_DAY", "digest_day", "0", _whole(0, 6), "the digest's day, 0 = Monday to 6 = Sunday"),
    Setting("DIGEST_HOUR", "digest_hour", "9", _whole(0, 23), "the digest's hour, UTC"),
    Setting("DUNETRACE_HASH_KEY", "hash_key", None, _key,
            "key of the hashes the door makes. Unset: a random one of this installation, kept in Postgres"),
    Setting("DUNETRACE_RATE_LIMIT_RPM", "rate_limit_rpm", "60000", _whole(0, 10_000_000),
            "requests a minute for each key; 0 = no limit"),
    Setting("DUNETRACE_MAX_BODY_BYTES", "max_body_bytes", str(64 << 20), _whole(1024, 64 << 20),
            "largest request body, inflated"),
    Setting("DUNETRACE_MAX_EVENTS", "max_events", "50000", _whole(1, 50_000), "most events in one request"),
    Setting("DUNETRACE_PROMISE", "promise", "journal", _one_of("journal", "commit"),
            "what a 202 stands on: `journal` = this machine's disk, `commit` = Postgres"),
    Setting("DUNETRACE_INGEST_DURING_OUTAGE", "during_outage", "refuse", _one_of("refuse", "spool"),
            "while Postgres is away: `refuse` with 503, or `spool` into the journal up to its limit"),
    Setting("DUNETRACE_JOURNAL_SYNC", "journal_sync", "true", _flag,
            "whether a 202 waits until the disk has synced"),
    Setting("DUNETRACE_JOURNAL_MAX_BYTES", "journal_max_bytes", str(1 << 30), _whole(1 << 20, 1 << 40),
            "how much may wait in the journal"),
    Setting("DUNETRACE_CORS_ORIGINS", "cors_origins", "", _origins,
            "origins whose pages may call the API, with commas between"),
    Setting("LANGFUSE_HOST", "langfuse_host", None, _http_url,
            "your Langfuse, whose traces are explained and whose prompts get fixes"),
    Setting("LANGFUSE_PUBLIC_KEY", "langfuse_public_key", None, _header_text, "public key of a Langfuse project"),
    Setting("LANGFUSE_SECRET_KEY", "langfuse_secret_key", None, _header_text, "secret key of the same project"),
    Setting("ANTHROPIC_API_KEY", "anthropic_api_key", None, _header_text, "explains signals by a model of Anthropic's"),
    Setting("OPENAI_API_KEY", "openai_api_key", None, _header_text,
            "explains signals by a model of OpenAI's, where there is no key of Anthropic's"),
    Setting("ANTHROPIC_BASE_URL", "anthropic_base_url", None, _http_url,
            "Unset: https://api.anthropic.com"),
    Setting("OPENAI_BASE_URL", "openai_base_url", None, _http_url, "Unset: https://api.openai.com/v1"),
    Setting("DUNETRACE_EXPLAIN_MODEL", "explain_model", None, _header_text,
            "which model explains. Unset: claude-sonnet-5-5 or gpt-6.1-terra"),
    Setting("LOG_LEVEL", "log_level", "INFO", _one_of(*_LOG_LEVELS), "least severe log line that is written"),
)  # fmt: skip

# Asked for, they would be silently without effect: what they switch on is not in this version.
_LATER = ("DATABASE_READ_URL", "DUNETRACE_PGBOUNCER", "DUNETRACE_RETENTION_DAYS")


def _refuse_later(given: Mapping[str, str]) -> None:
    for name in _LATER:
        if given.get(name):
            raise SettingError(f"{name}: this version of Dunetrace does not have it; unset it to start")


def _auth_mode(asked: str | None, binds: list[Bind]) -> str:
    public = [bind for bind in binds if not bind.is_loopback]
    if asked == "dev" and public:
        raise SettingError(
            f"AUTH_MODE: dev accepts anybody, and {public[0]} can be reached from outside; "
            "set AUTH_MODE=prod, or bind to 127.0.0.1"
        )
    return asked or ("prod" if public else "dev")


def _dotenv(path: Path) -> dict[str, str]:
    try:
        found = dotenv_values(path, interpolate=False) if path.is_file() else {}
    except (OSError, UnicodeDecodeError) as error:
        raise SettingError(f"{path}: cannot be read ({type(error).__name__})") from None
    return {name: value for name, value in found.items() if value is not None}


_FROM_FILES = {"limits", "listed", "prices"}
if {setting.field for setting in SETTINGS} | _FROM_FILES != {entry.name for entry in fields(Settings)}:
    raise AssertionError("SETTINGS and Settings name different fields")
