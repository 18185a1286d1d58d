"""A published MCP client as a process of its own, spoken to over its standard streams as an editor would."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any, Self

from tests.published import python_of

VERSION = "0.4.7"
PROTOCOL = "2024-11-05"


class McpClient:
    """`dunetrace-mcp` against the API at `api_url`, in an empty directory `home`. `writes` offers all its tools."""

    def __init__(self, api_url: str, home: Path, *, key: str = "dt_dev_test", writes: bool = False) -> None:
        home.mkdir(parents=True, exist_ok=True)
        self._log = (home / "mcp.log").open("wb")
        environment = {
            "HOME": str(home), "PATH": "/usr/bin:/bin", "DUNETRACE_API_URL": api_url, "DUNETRACE_API_KEY": key,
            "DUNETRACE_MCP_READONLY": "false" if writes else "true",
        }  # fmt: skip
        command = str(python_of(VERSION, "dunetrace-mcp").with_name("dunetrace-mcp"))
        self._process = subprocess.Popen(
            [command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._log, text=True, env=environment
        )
        self._number = 0

    def __enter__(self) -> Self:
        hello = {"protocolVersion": PROTOCOL, "capabilities": {}, "clientInfo": {"name": "tests", "version": "1"}}
        assert self.ask("initialize", hello)["serverInfo"]["name"] == "dunetrace"
        self._send({"method": "notifications/initialized"})
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()
        self._log.close()

    def tools(self) -> dict[str, dict[str, Any]]:
        """The schema of each tool's arguments, by the tool's name."""
        return {tool["name"]: tool["inputSchema"] for tool in self.ask("tools/list")["tools"]}

    def call(self, tool: str, **arguments: Any) -> str:
        """What a tool answers. AssertionError when it reports an error."""
        answer = self.ask("tools/call", {"name": tool, "arguments": arguments})
        text = "".join(part["text"] for part in answer["content"])
        assert not answer.get("isError"), f"{tool}: {text}"
        assert "Error" not in text.splitlines()[0], f"{tool}: {text}"
        return text

    def ask(self, method: str, params: dict[str, Any] | None = None) -> dict[str, Any]:
        """The result of one request."""
        self._number += 1
        self._send({"id": self._number, "method": method, "params": params or {}})
        assert self._process.stdout is not None
        for line in self._process.stdout:
            answer = json.loads(line)
            if answer.get("id") == self._number:
                assert "error" not in answer, answer
                return dict(answer["result"])
        raise AssertionError(f"the client ended before it answered {method}; see {self._log.name}")

    def _send(self, message: dict[str, Any]) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"jsonrpc": "2.0", **message}) + "\n")
        self._process.stdin.flush()
