"""A Postgres of a test's own, over TCP and with a password, that the test may stop, kill, freeze and start again."""

from __future__ import annotations

import itertools
import os
import signal
import socket
import time
from contextlib import suppress
from pathlib import Path
from typing import Self

from dunetrace.errors import StartError
from dunetrace.store.embedded import READY_CHECK_S, START_TIMEOUT_S, EmbeddedPostgres
from tests.harness.world import execute

PASSWORD = "postgres of the tests"
USER = "dunetrace"


class Cluster(EmbeddedPostgres):
    """One cluster under `directory`, on a port of 127.0.0.1 that stays the same. Used as a context manager it runs."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        with socket.create_server(("127.0.0.1", 0)) as sock:
            self.port = int(sock.getsockname()[1])
        self._set_up = False
        self._numbers = itertools.count()

    def database(self) -> str:
        """The address of a new database with nothing in it."""
        name = f"test_{next(self._numbers)}"
        self.admin(f"CREATE DATABASE {name}")
        return self.address(name)

    def address(self, database: str, password: str = PASSWORD) -> str:
        """The address of one of its databases."""
        return f"postgresql://{USER}:{password.replace(' ', '%20')}@127.0.0.1:{self.port}/{database}"

    def start(self) -> str:
        """Start it; the first time make the cluster, its password and its database."""
        if not self._set_up:
            self._set_up = True
            super().start()
            execute(self.url, f"ALTER USER {USER} PASSWORD '{PASSWORD}'")
            (self.cluster / "pg_hba.conf").write_text("host all all 127.0.0.1/32 scram-sha-256\nlocal all all trust\n")
            self.stop()
        log, options = (
            self.cluster / "server.log",
            f"-k '{self.socket_dir}' -p {self.port} -c listen_addresses=127.0.0.1",
        )
        self._run("pg_ctl", "start", "-w", "-D", str(self.cluster), "-l", str(log), "-o", options)
        return "started"

    def stop(self, timeout_s: int = START_TIMEOUT_S) -> None:
        """As a server's, with patience for a busy machine."""
        super().stop(timeout_s)

    @property
    def inside(self) -> str:
        """The address that needs no password: the socket file, for when the password is what is broken."""
        return f"postgresql://{USER}@/postgres?host={self.socket_dir}&port={self.port}"

    def admin(self, *statements: str) -> None:
        """Run statements in the database `postgres`."""
        execute(self.address("postgres"), *statements)

    def shoot(self) -> None:
        """SIGKILL its main process; the others notice and end."""
        os.kill(self._main_pid(), signal.SIGKILL)

    def start_after_shot(self) -> None:
        """Start it as soon as the last of the others has let go of the memory they share."""
        deadline_s = time.monotonic() + START_TIMEOUT_S
        while True:
            try:
                self.start()
            except StartError:
                if time.monotonic() > deadline_s:
                    raise
                time.sleep(READY_CHECK_S)
            else:
                return

    def freeze(self) -> None:
        """Stop every process of it where it is: connections stay open and nothing answers."""
        self._signal_all(signal.SIGSTOP)

    def thaw(self) -> None:
        self._signal_all(signal.SIGCONT)

    def _signal_all(self, number: signal.Signals) -> None:
        """The main process first, so that it starts no other, then the ones it started."""
        main = self._main_pid()
        os.kill(main, number)
        for child in Path(f"/proc/{main}/task/{main}/children").read_text().split():
            with suppress(ProcessLookupError):
                os.kill(int(child), number)

    def _main_pid(self) -> int:
        main = self.running_pid()
        assert main is not None
        return main

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
