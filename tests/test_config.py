"""Settings: defaults, the .env file, and one clear line for each thing a person can get wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from dunetrace import config
from dunetrace.errors import SettingError
from dunetrace.prices import Price


def test_defaults(tmp_path: Path) -> None:
    settings = config.load({}, tmp_path)
    assert [str(bind) for bind in (settings.ingest_bind, settings.api_bind, settings.dashboard_bind)] == [
        "127.0.0.1:8001", "127.0.0.1:8002", "127.0.0.1:3000"
    ]  # fmt: skip
    assert (settings.auth_mode, settings.poll_interval_s, settings.alert_interval_s) == ("dev", 5, 10)
    assert (settings.stall_timeout_s, settings.promise, settings.cors_origins) == (90, "journal", ())


def test_the_environment_wins_over_the_dotenv_file(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("DUNETRACE_POLL_INTERVAL=1\nDUNETRACE_STALL_TIMEOUT='7'\n# a comment\n")
    settings = config.load({"DUNETRACE_POLL_INTERVAL": "2"}, tmp_path)
    assert (settings.poll_interval_s, settings.stall_timeout_s) == (2, 7)


def test_a_public_bind_means_prod(tmp_path: Path) -> None:
    assert config.load({"DUNETRACE_API_BIND": "0.0.0.0:8002"}, tmp_path).auth_mode == "prod"
    assert config.load({"DUNETRACE_API_BIND": "[::1]:8002"}, tmp_path).auth_mode == "dev"
    with pytest.raises(SettingError, match=r"AUTH_MODE: dev accepts anybody, and 0\.0\.0\.0:8002"):
        config.load({"AUTH_MODE": "dev", "DUNETRACE_API_BIND": "0.0.0.0:8002"}, tmp_path)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("DATABASE_URL", "mysql://x"),
        ("DUNETRACE_INGEST_BIND", "8001"),
        ("DUNETRACE_INGEST_BIND", "127.0.0.1:99999"),
        ("DUNETRACE_POLL_INTERVAL", "0"),
        ("DUNETRACE_POLL_INTERVAL", "soon"),
        ("DUNETRACE_STALL_TIMEOUT", "nan"),
        ("DUNETRACE_ALLOW_PRIVATE_DESTINATIONS", "maybe"),
        ("DUNETRACE_RATE_LIMIT_RPM", "-1"),
        ("DUNETRACE_MAX_EVENTS", "1e3"),
        ("AUTH_MODE", "none"),
        ("WEBHOOK_URL", "ftp://x"),
        ("DUNETRACE_PROMISE", "maybe"),
        ("DUNETRACE_CORS_ORIGINS", "https://a.example/path"),
        ("LOG_LEVEL", "LOUD"),
        ("SLACK_WEBHOOK_URL", "hooks.example/x"),
        ("SLACK_MIN_SEVERITY", "URGENT"),
        ("DIGEST_ENABLED", "weekly"),
        ("DIGEST_DAY", "7"),
        ("DIGEST_DAY", "monday"),
        ("DIGEST_HOUR", "24"),
    ],
)
def test_a_bad_value_is_one_line_that_names_the_setting(name: str, value: str, tmp_path: Path) -> None:
    with pytest.raises(SettingError) as caught:
        config.load({name: value}, tmp_path)
    assert str(caught.value).startswith(f"{name}: ")
    assert "\n" not in str(caught.value)


def test_a_severity_in_any_case(tmp_path: Path) -> None:
    assert config.load({}, tmp_path).slack_min_severity == "HIGH"
    assert config.load({"SLACK_MIN_SEVERITY": "medium"}, tmp_path).slack_min_severity == "MEDIUM"
    with pytest.raises(SettingError, match="LOW, MEDIUM, HIGH, CRITICAL"):
        config.load({"SLACK_MIN_SEVERITY": "urgent"}, tmp_path)


def test_a_secret_is_neither_shown_nor_quoted(tmp_path: Path) -> None:
    environ = {"WEBHOOK_SECRET": "s3cret", "DATABASE_URL": "postgresql://u:s3cret@h/d", "DUNETRACE_HASH_KEY": "s3cret"}
    assert "s3cret" not in repr(config.load(environ, tmp_path))
    with pytest.raises(SettingError) as caught:
        config.load({"DATABASE_URL": "postgres//u:s3cret@h/d"}, tmp_path)
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("default: [", "is not YAML at line"),
        ("bot: {}\nbot: {}", "has the same key twice at line 2"),
        ("defalt: {}", "write `default`"),
        ("default: {tool_lop: {}}", "tool_loop"),
        ("default: {tool_loop: {threshold: 0}}", "tool_loop.threshold"),
        ("- 1", "mapping"),
        ("\x00", "is not YAML"),
    ],
)
def test_a_bad_detectors_file_names_the_fault(text: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "detectors.yml").write_text(text)
    with pytest.raises(SettingError) as caught:
        config.load({}, tmp_path)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_detectors_file_that_was_named_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match=r"DETECTORS_CONFIG: .* cannot be read"):
        config.load({"DETECTORS_CONFIG": str(tmp_path / "missing.yml")}, tmp_path)


def test_an_agents_section_overrides_only_what_it_names(tmp_path: Path) -> None:
    (tmp_path / "detectors.yml").write_text("default: {tool_loop: {threshold: 4}}\nbot: {tool_loop: {window: 9}}\n")
    limits = config.load({}, tmp_path).limits
    assert limits.for_agent("bot") != limits.for_agent("other")
    assert limits.agents == ("bot",)


def test_prices_are_read_and_a_fault_in_them_is_one_line(tmp_path: Path) -> None:
    assert not config.load({}, tmp_path).prices
    (tmp_path / "prices.yml").write_text("models: {gpt-4o: {input: 2.5, output: 10}}")
    assert config.load({}, tmp_path).prices.of("gpt-4o") == Price(2.5, 2.5, 10)
    (tmp_path / "prices.yml").write_text("models: {gpt-4o: {input: much, output: 10}}")
    with pytest.raises(SettingError, match=r"^prices.yml: 'gpt-4o': input: 'much' is not a number"):
        config.load({}, tmp_path)


def test_a_price_file_that_was_named_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match=r"PRICES_CONFIG: .* cannot be read"):
        config.load({"PRICES_CONFIG": str(tmp_path / "missing.yml")}, tmp_path)


@pytest.mark.parametrize("value", ["0", "0.2", "often", "nan"])
def test_an_error_rate_is_small_and_not_zero(value: str, tmp_path: Path) -> None:
    with pytest.raises(SettingError, match=r"DUNETRACE_FLEET_ERROR_RATE: .* is not a number from 1e-09 to 0.1"):
        config.load({"DUNETRACE_FLEET_ERROR_RATE": value}, tmp_path)
