"""Requests as nobody means them: random ones, and well-formed ones with something done to them. Seeded, and cheap."""

from __future__ import annotations

import gzip
import json
import random
from collections.abc import Callable
from itertools import pairwise

from tests.ingest.door_server import event
from tests.ingest.engine_server import post, request
from tests.ingest.test_http1 import REFUSED, STREAM

BODY = json.dumps({"agent_id": "agent", "events": [event()]}).encode()
JSON = "Content-Type: application/json"
WELL_FORMED = (
    post("/v1/ingest", BODY, JSON),
    post("/v1/ingest", BODY, JSON, "Idempotency-Key: k", "Authorization: Bearer x", "Connection: close"),
    post("/v1/ingest", gzip.compress(BODY, mtime=0), JSON, "Content-Encoding: gzip"),
    post("/v1/ingest", BODY, JSON, "Expect: 100-continue"),
    post("/v1/deploy", b'{"agent_id":"a","version":"1"}', JSON),
    request("/v1/ingest", JSON, "Transfer-Encoding: chunked", method="POST")
    + b"%x;a=b\r\n%b\r\n0\r\nTrailer: x\r\n\r\n" % (len(BODY), BODY),
    request("/v1/policies?agent_id=a&api_key=b"),
    request("/health", "Connection: keep-alive", version="1.0"),
    request("http://localhost:8001/health"),
    request("*", method="OPTIONS"),
    STREAM,
)
CORPUS = WELL_FORMED + tuple(data for data, _ in REFUSED.values() if len(data) < 1_000)
WORDS = (
    b"\r\n", b"\n", b"\r", b"\r\n\r\n", b"\0", b" ", b"\t", b":", b",", b";", b"0", b"-", b"+", b"\xff", b"\x7f",
    b"Content-Length: 5\r\n", b"Content-Length: 0\r\n", b"content-length:99999999999999999999\r\n",
    b"Transfer-Encoding: chunked\r\n", b"transfer-encoding:\x0bchunked\r\n", b"Transfer-Encoding: identity\r\n",
    b"Host: localhost\r\n", b"Connection: close\r\n", b"Connection: keep-alive\r\n", b"Upgrade: h2c\r\n",
    b"Expect: 100-continue\r\n", b"Content-Encoding: gzip\r\n", b"Content-Type: application/json\r\n",
    b" folded\r\n", b"0\r\n\r\n", b"5\r\nhello\r\n", b"ffffffff\r\n", b"0x5\r\n", b"%00", b"{", b"}", b"[[[[[[[[",
    b"POST /v1/ingest HTTP/1.1\r\n", b"GET / HTTP/1.1\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b" HTTP/1.0\r\n",
    b" HTTP/1.1\r\n",
)  # fmt: skip


class Mutator:
    """An endless supply. The same seed gives the same requests."""

    def __init__(self, seed: int) -> None:
        self._rng = random.Random(seed)
        self._changes: tuple[Callable[[bytes, int], bytes], ...] = (
            self._flip, self._flip, self._insert, self._insert, self._drop, self._repeat, self._join, self._truncate,
        )  # fmt: skip

    def data(self) -> bytes:
        """One stream of bytes."""
        rng = self._rng
        kind = rng.random()
        if kind < 0.03:
            return rng.randbytes(rng.randrange(1, 300))
        if kind < 0.13:
            return b"".join(rng.choices(WORDS, k=rng.randrange(1, 30)))
        data = rng.choice(WELL_FORMED if kind < 0.7 else CORPUS)
        for _ in range(rng.randrange(4)):
            data = rng.choice(self._changes)(data, rng.randrange(len(data))) or b"\r\n"
        return data

    def pieces(self) -> list[bytes]:
        """The same, cut into a few pieces."""
        data, rng = self.data(), self._rng
        edges = [0, *sorted(rng.randrange(len(data)) for _ in range(rng.randrange(4))), len(data)]
        return [data[start:end] for start, end in pairwise(edges) if start < end]

    def _flip(self, data: bytes, at: int) -> bytes:
        return b"%b%c%b" % (data[:at], self._rng.randrange(256), data[at + 1 :])

    def _insert(self, data: bytes, at: int) -> bytes:
        return data[:at] + self._rng.choice(WORDS) + data[at:]

    def _drop(self, data: bytes, at: int) -> bytes:
        return data[:at] + data[at + self._rng.randrange(1, 20) :]

    def _repeat(self, data: bytes, at: int) -> bytes:
        end = at + self._rng.randrange(1, 60)
        return data[:end] + data[at:end] * self._rng.randrange(1, 4) + data[end:]

    def _join(self, data: bytes, at: int) -> bytes:
        return data[:at] + self._rng.choice(CORPUS)[at:]

    def _truncate(self, data: bytes, at: int) -> bytes:
        return data[:at]
