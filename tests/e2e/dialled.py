"""Every address a Python process turns to, as told by the interpreter itself: nothing it opens can stay unseen.

    dialled = Dialled(tmp_path)
    with Server(tmp_path, env=dialled.environment) as server:
        ...
    dialled.addresses   # "host:port", or the path of a Unix socket

A `sitecustomize` module adds an audit hook (PEP 578) before the process runs its first line. Names that are looked up
and programs that are started are told as well: either could carry something out.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

_HOOK = """
import json
import os
import sys

TOLD = {"socket.connect", "socket.sendto", "socket.sendmsg", "socket.getaddrinfo", "socket.gethostbyname",
        "socket.gethostbyaddr", "subprocess.Popen", "os.posix_spawn", "os.exec", "os.system", "os.fork"}
told = os.open(os.environ["DIALLED"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)


def tell(event, args):
    if event in TOLD:
        plain = [arg if isinstance(arg, (str, int, tuple, list)) else str(arg) for arg in args]
        os.write(told, (json.dumps([event, plain], default=str) + "\\n").encode())


sys.addaudithook(tell)
"""
_CALLS = {"socket.connect", "socket.sendto", "socket.sendmsg"}
_LOOK_UPS = {"socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr"}


class Dialled:
    """Watches each process that is started with `environment`."""

    def __init__(self, directory: Path) -> None:
        self._told = directory / "dialled.ndjson"
        hook = directory / "hook"
        hook.mkdir()
        (hook / "sitecustomize.py").write_text(_HOOK)
        self.environment = {"PYTHONPATH": str(hook), "DIALLED": str(self._told)}

    @property
    def addresses(self) -> set[str]:
        """Whom it connected or sent to."""
        return {_shown(args[1]) for event, args in self._events() if event in _CALLS}

    @property
    def names(self) -> set[str]:
        """What it looked up."""
        return {str(args[0]) for event, args in self._events() if event in _LOOK_UPS}

    @property
    def programs(self) -> set[str]:
        """What it started, but for the loader's list of libraries, which `ctypes` reads to find one by its name."""
        started = {str(args[0]) for event, args in self._events() if event not in _CALLS | _LOOK_UPS}
        return started - {"/sbin/ldconfig"}

    def _events(self) -> list[Any]:
        return [json.loads(line) for line in self._told.read_text().splitlines()]


def address_of(url: str) -> str:
    """The address behind a URL, a database's too, as `Dialled` tells it."""
    parts = urlsplit(url)
    directory = parse_qs(parts.query).get("host")
    if directory and not parts.hostname:
        return f"{directory[0]}/.s.PGSQL.{parse_qs(parts.query).get('port', ['5432'])[0]}"
    host = "127.0.0.1" if parts.hostname == "localhost" else parts.hostname
    return f"{host}:{parts.port or 5432}"


def _shown(address: Any) -> str:
    return address if isinstance(address, str) else f"{address[0]}:{address[1]}"
