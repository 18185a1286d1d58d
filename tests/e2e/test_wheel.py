"""The wheel: installs into an empty environment and runs from there, with everything it needs inside."""

from __future__ import annotations

import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import httpx
import pytest

from tests.harness.server import Server
from tests.shared import CHECKOUT


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("dist")
    _run(sys.executable, "-m", "build", "--wheel", "--outdir", str(out), str(CHECKOUT))
    (built,) = out.glob("*.whl")
    return built


def test_it_holds_what_is_not_python(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    for room, inside in (("sql", "_sql"), ("web", "_web"), ("examples", "_examples")):
        files = {
            path.relative_to(CHECKOUT / room).as_posix()
            for path in (CHECKOUT / room).rglob("*")
            if path.is_file() and "__pycache__" not in path.parts
        }
        assert files, room
        assert {f"dunetrace/{inside}/{file}" for file in files} <= names
    assert "dunetrace/py.typed" in names
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert not any("__pycache__" in name or name.startswith("tests/") for name in names)


def test_the_sdk_alone_needs_nothing(wheel: Path, tmp_path: Path) -> None:
    python = _environment(tmp_path / "sdk", str(wheel))
    script = "import dunetrace, sys; dunetrace.Dunetrace(None).shutdown(); print('asyncpg' in sys.modules)"
    assert _run(python, "-W", "error", "-c", script) == "False\n"
    installed = _run(python, "-m", "pip", "list", "--format", "freeze")
    assert {line.split("==")[0].split(" ")[0] for line in installed.split("\n") if line} <= {
        "dunetrace", "pip", "setuptools",
    }  # fmt: skip
    server = subprocess.run([python, "-m", "dunetrace"], capture_output=True, text=True, timeout=60, check=False)
    assert server.returncode != 0
    assert server.stderr.count("\n") == 1
    assert "[server]" in server.stderr


def test_the_server_runs_with_its_demo(wheel: Path, tmp_path: Path) -> None:
    python = _environment(tmp_path / "env", f"dunetrace[server] @ {wheel.as_uri()}")
    with Server(tmp_path / "data", python=python, args=["--demo"]) as server:
        assert server.health()["status"] == "ok"
        page = httpx.get(server.dashboard_url, trust_env=False)
        assert page.status_code == 200
        assert "<title>" in page.text
        assert server.health()["actors"]["demo"]["state"] == "running"


def _environment(directory: Path, requirement: str) -> str:
    """A new environment with `requirement` and what it needs; its interpreter."""
    venv.create(directory, with_pip=True)
    python = str(directory / "bin" / "python")
    _run(python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", requirement)
    return python


def _run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout
