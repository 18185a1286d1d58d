"""Reads a whole stream with the parser core, however it is cut, and says what was found in it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from dunetrace.serving.http1 import Head, Parser, ProtocolError


class Found(NamedTuple):
    """The whole requests of a stream, and the status of the error that ended it, if one did."""

    requests: list[tuple[Head, bytes]]
    error: int | None

    @property
    def bodies(self) -> list[bytes]:
        return [body for _, body in self.requests]


def read(pieces: Iterable[bytes], *, most_held_bytes: int | None = None) -> Found:
    """What a server would find. With `most_held_bytes`, asserts that the parser never keeps more than that."""
    parser = Parser()
    found: list[tuple[Head, bytes]] = []
    head: Head | None = None
    body = bytearray()
    try:
        for piece in pieces:
            parser.feed(piece)
            while True:
                if head is None and (head := parser.head()) is None:
                    break
                while given := parser.piece():
                    body += given
                if not parser.whole:
                    break
                found.append((head, bytes(body)))
                head, body = None, bytearray()
            assert most_held_bytes is None or parser.holds_bytes <= most_held_bytes
    except ProtocolError as error:
        return Found(found, error.status)
    return Found(found, None)


def byte_by_byte(data: bytes) -> list[bytes]:
    return [data[at : at + 1] for at in range(len(data))]
