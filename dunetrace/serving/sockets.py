"""Listening sockets that outlive the server on them.

The supervisor listens once and lends the socket to each attempt of an actor, so that connections queue in the kernel
while an actor starts again. `engine.py` serves the ingest port on one, `asgi.py` the API's.
"""

from __future__ import annotations

import errno
import socket
from typing import Final

from dunetrace.errors import StartError

BACKLOG: Final = 1_024
MAX_PORT: Final = 65_535
# A client that stops reading is cut off by the kernel after this long; Hypercorn would wait for it for ever.
USER_TIMEOUT_MS: Final = 5_000


def listen(bind: str, setting: str) -> socket.socket:
    """A listening socket on `host:port` (port 0 is any free one). Raises StartError that names `setting`."""
    host, _, port = bind.rpartition(":")
    host = host.strip("[]")
    if not port.isdecimal() or int(port) > MAX_PORT:  # getaddrinfo would take its lower 16 bits
        raise StartError(f"{setting}={bind}: the port is not 0 to {MAX_PORT}; it looks like 127.0.0.1:8001")
    try:
        family, kind, proto, _, address = socket.getaddrinfo(host, int(port), type=socket.SOCK_STREAM)[0]
        sock = socket.socket(family, kind, proto)
    except OSError:
        raise StartError(f"{setting}={bind}: not an address of this machine; it looks like 127.0.0.1:8001") from None
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if hasattr(socket, "TCP_USER_TIMEOUT"):  # Linux; accepted connections inherit it
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, USER_TIMEOUT_MS)
        sock.bind(address)
        sock.listen(BACKLOG)
    except OSError as error:
        sock.close()
        raise StartError(f"{setting}={bind}: {_fault(error, setting)}") from None
    return sock


def _fault(error: OSError, setting: str) -> str:
    match error.errno:
        case errno.EADDRINUSE:
            return f"the port is taken by another process; stop that one or set {setting} to another port"
        case errno.EACCES | errno.EPERM:
            return f"this user may not listen there; set {setting} to a port above 1023"
        case errno.EADDRNOTAVAIL:
            return f"this machine has no such address; set {setting} to one it has, such as 127.0.0.1"
        case _:
            return f"cannot listen there ({errno.errorcode.get(error.errno or 0, 'unknown error')})"


def address_of(sock: socket.socket) -> str:
    """`host:port` as it can be put into a URL."""
    host, port = sock.getsockname()[:2]
    return f"[{host}]:{port}" if sock.family == socket.AF_INET6 else f"{host}:{port}"
