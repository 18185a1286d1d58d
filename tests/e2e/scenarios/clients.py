"""Plays the agents through one client against a running server, and answers when an agent waits for the server."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self
from urllib.parse import quote

import httpx

from tests.harness.server import Server
from tests.published import python_of

OURS = "ours"
VERSIONS = ("0.3.0", "0.3.9", "0.3.17", "0.5.7", OURS)
OLD_LAYOUT = frozenset({"0.3.0"})
TAKE_CONTENT = frozenset({"0.5.7", OURS})
NAME_THEIR_BATCHES = frozenset({"0.5.7", OURS})  # by event ids or an Idempotency-Key: they are the ones that retry

AGENTS = Path(__file__).with_name("agents.py")
WAIT_S = 60  # for what the server should know within seconds, on a busy machine
EXIT_S = 90
LOOK_S = 0.1


class Reader:
    """Asks the API of a server, over one connection; while it is entered."""

    def __init__(self, server: Server) -> None:
        self._client = httpx.Client(base_url=server.api_url, timeout=30, trust_env=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def runs(self, agent_id: str) -> list[dict[str, Any]]:
        """Newest first, at most 500."""
        found: list[dict[str, Any]] = self._get(f"/v1/agents/{quote(agent_id, safe='')}/runs?limit=500")["runs"]
        return found

    def signals(self, agent_id: str) -> list[dict[str, Any]]:
        """Shadow ones too, newest first, at most 500."""
        path = f"/v1/agents/{quote(agent_id, safe='')}/signals?limit=500&include_shadow=true&explain=false"
        found: list[dict[str, Any]] = self._get(path)["signals"]
        return found

    def run(self, run_id: str) -> dict[str, Any]:
        """One run with its events."""
        return self._get(f"/v1/runs/{quote(run_id, safe='')}")

    def agents(self) -> list[str]:
        """The name of every agent, at most 500."""
        return [agent["agent_id"] for agent in self._get("/v1/agents?limit=500")["agents"]]

    def wait(self, status: str, runs: Mapping[str, int]) -> None:
        """Until each of these agents has so many runs of this status."""
        deadline = time.monotonic() + WAIT_S
        for agent_id, count in runs.items():
            while (found := [run["status"] for run in self.runs(agent_id)]).count(status) < count:
                assert time.monotonic() < deadline, f"{agent_id}: waited for {count} × {status}, and found {found}"
                time.sleep(LOOK_S)

    def _get(self, path: str) -> dict[str, Any]:
        answer = self._client.get(path)
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found


@dataclass(frozen=True)
class Played:
    """What a client said on stderr, and the signals an agent that was waited for had by then."""

    stderr: str
    signals_then: dict[str, list[dict[str, Any]]]


def play(version: str, part: Literal["scenarios", "ring"], server: Server, home: Path, *, endpoint: str = "") -> Played:
    """Run the client to its end. AssertionError when it fails, or when what it waits for doesn't come."""
    python = sys.executable if version == OURS else str(python_of(version))
    content = ["--content"] if version in TAKE_CONTENT else []
    errors = home / f"{version}-{part}.stderr"
    signals: dict[str, list[dict[str, Any]]] = {}
    with Reader(server) as reader, errors.open("w") as stderr, subprocess.Popen(
        [python, str(AGENTS), endpoint or server.ingest_url, f"{version} ", part, *content],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=stderr, text=True, env={"HOME": str(home)},
    ) as client:  # fmt: skip
        assert client.stdin is not None
        assert client.stdout is not None
        try:
            for line in client.stdout:
                asked = json.loads(line)
                reader.wait(asked["status"], asked["runs"])
                signals |= {agent: reader.signals(agent) for agent in asked["runs"]}
                client.stdin.write("\n")
                client.stdin.flush()
            assert client.wait(EXIT_S) == 0, errors.read_text()
        finally:
            client.kill()
    return Played(errors.read_text(), signals)
