"""The command line as a person meets it: one clear line for what is wrong, and the keys."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from dunetrace.store import migrations
from tests.harness.server import Server
from tests.postgres import TestPostgres

TIMEOUT_S = 60


def dunetrace(data_dir: Path, *args: str, **env: str) -> subprocess.CompletedProcess[str]:
    """Run one command to its end."""
    environment = {"PATH": os.environ["PATH"], "DUNETRACE_DATA_DIR": str(data_dir), **env}
    return subprocess.run(
        [sys.executable, "-m", "dunetrace", *args],
        env=environment, cwd=data_dir, capture_output=True, text=True, timeout=TIMEOUT_S, stdin=subprocess.DEVNULL,
        check=False,
    )  # fmt: skip


def one_line(done: subprocess.CompletedProcess[str]) -> str:
    """The line a start that a person can mend ends with; log lines before it are left out."""
    said = [line for line in done.stderr.splitlines() if not line.startswith("{")]
    assert done.returncode == 2, done.stderr
    assert len(said) == 1, done.stderr
    assert "Traceback" not in done.stderr
    return said[0]


def test_a_taken_port(tmp_path: Path, database: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        bind = f"127.0.0.1:{taken.getsockname()[1]}"
        said = one_line(dunetrace(tmp_path, DATABASE_URL=database, DUNETRACE_API_BIND=bind))
    assert said.startswith(f"dunetrace: DUNETRACE_API_BIND={bind}")
    assert "taken" in said


def test_a_bad_detectors_file(tmp_path: Path) -> None:
    (tmp_path / "detectors.yml").write_text("default: {tool_loop: {treshold: 3}}")
    assert "threshold" in one_line(dunetrace(tmp_path))


def test_a_bad_alerts_file(tmp_path: Path) -> None:
    (tmp_path / "alerts.yml").write_text("destinations: [{name: ops, kind: slack, url: '${SLACK_URL}'}]")
    said = one_line(dunetrace(tmp_path))
    assert said.startswith("dunetrace: alerts.yml: `ops`: url: ${SLACK_URL} is not set")


def test_a_data_directory_that_cannot_be_written(tmp_path: Path) -> None:
    said = one_line(dunetrace(tmp_path, DUNETRACE_DATA_DIR="/proc/self/nowhere"))
    assert said.startswith("dunetrace: DUNETRACE_DATA_DIR: /proc/self/nowhere cannot be written")


def test_a_second_process_on_the_same_directory(tmp_path: Path) -> None:
    free = {f"DUNETRACE_{port}_BIND": "127.0.0.1:0" for port in ("INGEST", "API", "DASHBOARD")}
    with Server(tmp_path):
        assert "another dunetrace process" in one_line(dunetrace(tmp_path, **free))
        made = dunetrace(tmp_path, "keys", "create")  # but the commands find its Postgres
        assert made.returncode == 0, made.stderr


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["--actors", "ingest,writer,juggler"], "juggler"),
        (["--actors", "ingest"], "go together"),
        (["keys", "create", "--scopes", "everything"], "admin, ingest, read"),
        (["frobnicate"], "No such command"),
    ],
)
def test_a_wrong_word_on_the_command_line(args: list[str], said: str, tmp_path: Path) -> None:
    done = dunetrace(tmp_path, *args)
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_keys_live_from_creation_to_revocation(tmp_path: Path, postgres: TestPostgres) -> None:
    url = postgres.empty_database()
    made = dunetrace(tmp_path, "keys", "create", "--agent", "bot", "--scopes", "ingest", DATABASE_URL=url)
    key = made.stdout.strip()
    assert key.startswith("dt_")
    listed = dunetrace(tmp_path, "keys", "list", DATABASE_URL=url).stdout
    assert "bot  ingest" in listed
    assert key not in listed
    prefix = listed.split()[0]
    assert dunetrace(tmp_path, "keys", "revoke", prefix, DATABASE_URL=url).stdout == "revoked\n"
    assert "revoked" in dunetrace(tmp_path, "keys", "list", DATABASE_URL=url).stdout
    missing = dunetrace(tmp_path, "keys", "revoke", "ffffffffffff", DATABASE_URL=url)
    assert missing.returncode == 2
    assert "0 keys" in missing.stderr


def test_migrate_is_done_once(tmp_path: Path, postgres: TestPostgres) -> None:
    url = postgres.empty_database()
    applied = "".join(f"applied {migration.name}\n" for migration in migrations.load())
    assert dunetrace(tmp_path, "migrate", DATABASE_URL=url).stdout == applied
    assert dunetrace(tmp_path, "migrate", DATABASE_URL=url).stdout == "up to date\n"


def test_an_unreachable_database_under_a_command(tmp_path: Path) -> None:
    said = one_line(dunetrace(tmp_path, "keys", "list", DATABASE_URL="postgresql://u@127.0.0.1:1/d"))
    assert "is Postgres running?" in said


def test_a_start_in_prod_without_a_key_says_how_to_make_one(tmp_path: Path, database: str) -> None:
    with Server(tmp_path, database_url=database, env={"AUTH_MODE": "prod"}) as server:
        assert "keys create" in server.log_path.read_text()


def test_demo_needs_dev_mode(tmp_path: Path) -> None:
    assert "--demo" in one_line(dunetrace(tmp_path, "--demo", AUTH_MODE="prod"))
