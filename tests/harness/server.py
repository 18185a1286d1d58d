"""The server as a real process on free ports, for every test that needs the whole of it."""

from __future__ import annotations

import os
import queue
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import httpx

from dunetrace.store.embedded import EmbeddedPostgres

READY_TIMEOUT_S = 90  # a first start makes a Postgres cluster, on a machine that may be busy
STOP_TIMEOUT_S = 15  # the server promises 10
READY = "dunetrace ready"
_ADDRESS = re.compile(r"(ingest|api|page) (http://\S+)")
_KEPT = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "USER", "VIRTUAL_ENV")
_BINDS = ("DUNETRACE_INGEST_BIND", "DUNETRACE_API_BIND", "DUNETRACE_DASHBOARD_BIND")


class ServerFailedError(AssertionError):
    """The process ended or stayed silent; the message holds the end of its log."""


class Server:
    """`python -m dunetrace` with its own data directory, which is also its working directory.

    Without `database_url` it starts its embedded Postgres. `env` is all it sees of settings: nothing of the caller's
    environment but a path and a home goes in. The ports are any free ones at the first start and stay the same at each
    later one, so that clients find a restarted server; a port whose role doesn't run here has the address "". The log
    of all starts is `log_path`.
    """

    def __init__(
        self,
        data_dir: Path,
        *,
        database_url: str | None = None,
        env: Mapping[str, str] | None = None,
        args: Sequence[str] = (),
        python: str = sys.executable,
    ) -> None:
        self.data_dir = data_dir
        self.log_path = data_dir / "server.log"
        self.args = list(args)
        self.env = dict(env or {})
        self.process: subprocess.Popen[str] | None = None
        self.ingest_url = self.api_url = self.dashboard_url = ""
        self._python = python
        self._given_url = database_url
        self._lines: queue.Queue[str | None] = queue.Queue()

    @property
    def database_url(self) -> str:
        return self._given_url or EmbeddedPostgres(self.data_dir).url

    @property
    def pid(self) -> int:
        assert self.process is not None, "not started"
        return self.process.pid

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.close()

    def start(self, timeout_s: float = READY_TIMEOUT_S) -> Self:
        """Start it and wait for the one line that says it is ready. ServerFailedError when that line doesn't come."""
        self.launch()
        try:
            line = self._lines.get(timeout=timeout_s)
            while line is not None:
                if line.startswith(READY):
                    addresses = dict(_ADDRESS.findall(line))
                    self.ingest_url, self.api_url, self.dashboard_url = (
                        addresses.get(port, "") for port in ("ingest", "api", "page")
                    )
                    return self
                line = self._lines.get(timeout=timeout_s)
        except queue.Empty:
            self.kill()
            raise ServerFailedError(f"no ready line within {timeout_s} s\n{self.log_tail()}") from None
        code = self.process.wait() if self.process else None
        raise ServerFailedError(f"the process ended with status {code} before it was ready\n{self.log_tail()}")

    def launch(self) -> subprocess.Popen[str]:
        """Start the process without waiting for anything."""
        assert self.process is None or self.process.poll() is not None, "it is already running"
        self.data_dir.mkdir(parents=True, exist_ok=True)
        with self.log_path.open("ab") as log:
            self.process = subprocess.Popen(
                [self._python, "-m", "dunetrace", *self.args],
                env=self._environment(),
                cwd=self.data_dir,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        self._lines = queue.Queue()
        threading.Thread(target=_read, args=(self.process, self._lines), daemon=True).start()
        return self.process

    def kill(self) -> None:
        """SIGKILL, as a crash of the machine would: an embedded Postgres stays behind."""
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
        self._reap()

    def terminate(self, timeout_s: float = STOP_TIMEOUT_S) -> int:
        """SIGTERM, and the exit status. ServerFailedError when it doesn't stop in time."""
        assert self.process is not None, "not started"
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self.kill()
            raise ServerFailedError(f"not stopped {timeout_s} s after SIGTERM\n{self.log_tail()}") from None
        finally:
            self._reap()

    def restart(self) -> Self:
        """Stop it in order if it still runs, and start it again on the same ports."""
        if self.process is not None and self.process.poll() is None:
            self.terminate()
        return self.start()

    def close(self) -> None:
        """Stop it, and an embedded Postgres that a kill left behind."""
        try:
            if self.process is not None and self.process.poll() is None:
                self.terminate()
        finally:
            self._reap()
            if self._given_url is None:
                EmbeddedPostgres(self.data_dir).stop()

    def health(self, port: str = "api") -> dict[str, Any]:
        """What /health of the "ingest" or the "api" port says; its HTTP status is added as ``http_status``."""
        url = self.ingest_url if port == "ingest" else self.api_url
        answer = httpx.get(f"{url}/health", timeout=5, trust_env=False)
        return {**answer.json(), "http_status": answer.status_code}

    def has_stored_all(self) -> bool:
        """Whether everything it accepted is in Postgres."""
        return bool(self.health("ingest")["journal"]["backlog_bytes"] == 0)

    def log_tail(self, lines: int = 40) -> str:
        text = self.log_path.read_text("utf-8", "replace") if self.log_path.exists() else ""
        return "--- end of the server's log ---\n" + "\n".join(text.splitlines()[-lines:])

    def _environment(self) -> dict[str, str]:
        found = (self.ingest_url, self.api_url, self.dashboard_url)
        binds = {name: url.removeprefix("http://") or "127.0.0.1:0" for name, url in zip(_BINDS, found, strict=True)}
        database = {"DATABASE_URL": self._given_url} if self._given_url else {}
        kept = {name: os.environ[name] for name in _KEPT if name in os.environ}
        return {**kept, **binds, **database, "DUNETRACE_DATA_DIR": str(self.data_dir), **self.env}

    def _reap(self) -> None:
        if self.process is not None:
            self.process.wait()


def _read(process: subprocess.Popen[str], lines: queue.Queue[str | None]) -> None:
    """Keeps the pipe empty for as long as the process lives; None stands for its end."""
    assert process.stdout is not None
    with process.stdout as stdout:
        for line in stdout:
            lines.put(line)
    lines.put(None)
