"""Which addresses an alert may go to, in every spelling, and that the checked address is the one connected to."""

from __future__ import annotations

from ipaddress import ip_address
from typing import Any

import httpcore
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from dunetrace.outgoing.guard import GuardedBackend, InternalAddressError, is_internal
from tests.receiver import Receiver

INTERNAL = """
0.0.0.0 0.1.2.3 10.0.0.1 10.255.255.255 100.64.0.1 100.127.255.254 127.0.0.1 127.255.255.255 169.254.169.254
172.16.0.1 172.31.255.255 192.0.0.1 192.0.0.170 192.0.2.1 192.88.99.1 192.168.0.1 198.18.0.1 198.19.255.255
198.51.100.7 203.0.113.7 224.0.0.1 239.255.255.255 240.0.0.1 255.255.255.255
:: ::1 ::7f00:1 ::ffff:127.0.0.1 ::ffff:10.0.0.1 ::ffff:169.254.169.254 ::ffff:0:192.168.1.1 64:ff9b::10.0.0.1
64:ff9b:1::1 100::1 2001::1 2001:0:4136:e378:8000:63bf:3fff:fdd2 2001:db8::1 2002:7f00:1:: 2002:c0a8:101::1
3fff::1 5f00::1 fc00::1 fd12:3456:789a::1 fe80::1 fe80::1%1 fec0::1 ff02::1
""".split()  # noqa: SIM905 - read as a table
PUBLIC = """
1.1.1.1 8.8.8.8 9.255.255.255 11.0.0.0 100.63.255.255 100.128.0.0 126.255.255.255 128.0.0.1 169.253.255.255
172.15.255.255 172.32.0.0 192.0.1.1 192.167.255.255 192.169.0.0 198.17.255.255 198.20.0.0 223.255.255.255
2606:4700:4700::1111 2001:4860:4860::8888 2a00:1450::1 64:ff9b::8.8.8.8 ::ffff:8.8.8.8
""".split()  # noqa: SIM905 - read as a table


@pytest.mark.parametrize("address", INTERNAL)
def test_internal(address: str) -> None:
    assert is_internal(ip_address(address))


@pytest.mark.parametrize("address", PUBLIC)
def test_public(address: str) -> None:
    assert not is_internal(ip_address(address))


@given(st.ip_addresses())
def test_nothing_the_standard_library_calls_local_gets_through(address: Any) -> None:
    if address.is_loopback or address.is_link_local or address.is_multicast or address.is_unspecified:
        assert is_internal(address)
    mapped = getattr(address, "ipv4_mapped", None)
    if mapped is not None:
        assert is_internal(address) == is_internal(mapped)


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "localhost", "127.1", "2130706433", "0x7f000001", "0177.0.0.1", "::1", "::ffff:127.0.0.1", "0"],
)
async def test_every_spelling_of_loopback_is_refused(host: str) -> None:
    with Receiver() as receiver:
        with pytest.raises(InternalAddressError):
            await GuardedBackend(allow_private=False).connect_tcp(host, receiver.port, timeout=5.0)
        assert receiver.requests == []


async def test_a_name_with_one_internal_address_is_refused_whole() -> None:
    with _resolver({"mixed.example": ["93.184.216.34", "127.0.0.1"]}), pytest.raises(InternalAddressError):
        await GuardedBackend(allow_private=False).connect_tcp("mixed.example", 80)


async def test_a_name_that_changes_its_mind_is_resolved_once() -> None:
    with Receiver() as receiver, _resolver({"rebind.example": ["127.0.0.1"]}) as asked:
        stream = await GuardedBackend(allow_private=True).connect_tcp("rebind.example", receiver.port)
        assert stream.get_extra_info("server_addr") == ("127.0.0.1", receiver.port)
        await stream.aclose()
        # Once by name; after that only the address itself, which no resolver is asked about.
        assert [host for host in asked if host == "rebind.example"] == ["rebind.example"]


async def test_the_next_address_is_tried_when_one_does_not_answer() -> None:
    with Receiver() as receiver, _resolver({"two.example": ["127.0.0.2", "127.0.0.1"]}):
        stream = await GuardedBackend(allow_private=True).connect_tcp("two.example", receiver.port, timeout=5.0)
        await stream.aclose()


async def test_a_name_nobody_knows() -> None:
    with _resolver({}), pytest.raises(httpcore.ConnectError):
        await GuardedBackend(allow_private=True).connect_tcp("unknown.example", 80)


class _resolver(trio.abc.HostnameResolver):
    """Answers from a table, for the length of the block; addresses as themselves."""

    def __init__(self, table: dict[str, list[str]]) -> None:
        self._table = table
        self._asked: list[str] = []

    async def getaddrinfo(  # noqa: PLR0917 - trio's signature
        self, host: Any, port: Any, family: int = 0, type: int = 0, proto: int = 0, flags: int = 0
    ) -> Any:
        name = host.decode() if isinstance(host, bytes) else host
        self._asked.append(name)
        await trio.lowlevel.checkpoint()
        if name not in self._table:
            raise trio.socket.gaierror(trio.socket.EAI_NONAME, "not in the table")
        return [(trio.socket.AF_INET, trio.socket.SOCK_STREAM, 6, "", (ip, port)) for ip in self._table[name]]

    async def getnameinfo(self, sockaddr: Any, flags: int) -> Any:
        raise trio.socket.gaierror(trio.socket.EAI_NONAME, "this table knows no names of addresses")

    def __enter__(self) -> list[str]:
        self._before = trio.socket.set_custom_hostname_resolver(self)
        return self._asked

    def __exit__(self, *_: object) -> None:
        trio.socket.set_custom_hostname_resolver(self._before)
