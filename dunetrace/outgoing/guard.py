"""Keeps what this server sends off internal addresses: a name is resolved, checked and connected to in one step.

Whoever can set a webhook could otherwise make this server POST to a metadata service or a neighbour that trusts it.
The connection goes to the very address that was checked, so a name that resolves differently a moment later gains
nothing; the Host header and the TLS name stay the destination's own. Used by `pool.py`.
"""

from __future__ import annotations

import math
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Any

import httpcore
import trio

from dunetrace.errors import DunetraceError

CONNECT_TIMEOUT_S = 3.0  # for each address but the last, so that one dead address does not use up the attempt

_INTERNAL_V4 = tuple(
    IPv4Network(network)
    for network in (
        "0.0.0.0/8",  # this host
        "10.0.0.0/8",  # private
        "100.64.0.0/10",  # carrier-grade NAT
        "127.0.0.0/8",  # loopback
        "169.254.0.0/16",  # link-local, cloud metadata
        "172.16.0.0/12",  # private
        "192.0.0.0/24",  # protocol assignments
        "192.0.2.0/24",  # documentation
        "192.88.99.0/24",  # 6to4 relays
        "192.168.0.0/16",  # private
        "198.18.0.0/15",  # benchmarking
        "198.51.100.0/24",  # documentation
        "203.0.113.0/24",  # documentation
        "224.0.0.0/4",  # multicast
        "240.0.0.0/4",  # reserved, broadcast
    )
)
_INTERNAL_V6 = tuple(
    IPv6Network(network)
    for network in (
        "64:ff9b:1::/48",  # local NAT64
        "100::/64",  # discard
        "2001::/23",  # protocol assignments, Teredo among them
        "2001:db8::/32",  # documentation
        "2002::/16",  # 6to4
        "3fff::/20",  # documentation
        "5f00::/16",  # segment routing
        "fc00::/7",  # unique local
        "fe80::/10",  # link-local
        "fec0::/10",  # site-local
        "ff00::/8",  # multicast
    )
)
# Here the last 32 bits are an IPv4 address, and that one is judged.
_CARRIES_V4 = (
    IPv6Network("::/96"),  # IPv4-compatible, `::` and `::1` among them
    IPv6Network("::ffff:0:0/96"),  # IPv4-mapped
    IPv6Network("::ffff:0:0:0/96"),  # IPv4-translated
    IPv6Network("64:ff9b::/96"),  # NAT64
)


class InternalAddressError(DunetraceError):
    """A destination resolves to an internal address and DUNETRACE_ALLOW_PRIVATE_DESTINATIONS is not set."""


def is_internal(address: IPv4Address | IPv6Address) -> bool:
    """Whether a public host would never have this address."""
    if isinstance(address, IPv4Address):
        return any(address in network for network in _INTERNAL_V4)
    if any(address in network for network in _CARRIES_V4):
        return is_internal(IPv4Address(address.packed[-4:]))
    return any(address in network for network in _INTERNAL_V6)


class GuardedBackend(httpcore.AsyncNetworkBackend):
    """Connects like httpcore does on trio, to checked addresses only."""

    def __init__(self, *, allow_private: bool) -> None:
        self._allow_private = allow_private
        self._trio = httpcore.TrioBackend()

    async def connect_tcp(self, host: str, port: int, *args: Any, **kwargs: Any) -> httpcore.AsyncNetworkStream:
        """InternalAddressError unless every address of `host` is fit; httpcore's ConnectError when none answers."""
        addresses = await _resolve(host, port)
        if not self._allow_private and any(is_internal(ip_address(address)) for address in addresses):
            raise InternalAddressError
        failed: httpcore.ConnectError | httpcore.ConnectTimeout = httpcore.ConnectError()
        for address in addresses:
            with trio.move_on_after(math.inf if address == addresses[-1] else CONNECT_TIMEOUT_S):
                try:
                    return await self._trio.connect_tcp(address, port, *args, **kwargs)
                except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                    failed = error
        raise failed

    async def sleep(self, seconds: float) -> None:
        await trio.sleep(seconds)


async def _resolve(host: str, port: int) -> list[str]:
    """Every address of `host`, each once, as the resolver ordered them."""
    try:
        found = await trio.socket.getaddrinfo(host, port, type=trio.socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        raise httpcore.ConnectError from None
    return list(dict.fromkeys(str(sockaddr[0]) for *_, sockaddr in found))
