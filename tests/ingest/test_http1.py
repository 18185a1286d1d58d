"""The grammar, shape by shape: what is read, what is refused and with which status, and that cuts change nothing."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dunetrace.serving.http1 import (
    MAX_BLANK_LINES,
    MAX_EXTENSION_BYTES,
    MAX_FIELDS,
    MAX_HEAD_BYTES,
    MAX_SMALL_CHUNKS,
    MAX_TARGET_BYTES,
    MAX_TRAILER_BYTES,
    Head,
)
from tests.ingest.http1_reading import Found, byte_by_byte, read

GET = b"GET /health HTTP/1.1\r\nHost: a\r\n\r\n"
CHUNKED = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"


def _post(*fields: bytes, body: bytes = b"", version: bytes = b"1.1", host: bytes = b"Host: a\r\n") -> bytes:
    lines = b"".join(field + b"\r\n" for field in fields)
    return b"POST / HTTP/" + version + b"\r\n" + host + lines + b"\r\n" + body


def _one(data: bytes) -> tuple[Head, bytes]:
    found = read([data])
    assert found.error is None
    (request,) = found.requests
    return request


def test_a_request_is_its_line_its_fields_and_its_body() -> None:
    head, body = _one(_post(b"Content-Type:application/json", b"X-A: \t b c\t ", b"Content-Length: 3", body=b"{ }"))
    assert (head.method, head.target, head.is_persistent, head.expects_continue) == ("POST", "/", True, False)
    assert head.headers == {"host": "a", "content-type": "application/json", "x-a": "b c", "content-length": "3"}
    assert body == b"{ }"


def test_values_are_latin_1_and_may_be_empty_or_several() -> None:
    head, _ = _one(b"GET /a%2Fb?c=d HTTP/1.1\r\nhOST:\r\nX-A: \xe9\r\nAccept: a\r\naccept: b\r\n\r\n")
    assert head.target == "/a%2Fb?c=d"
    assert head.headers == {"host": "", "x-a": "\xe9", "accept": "a, b"}


SIZES = b'5\r\nhello\r\n00000006;a=b\r\n world\r\n1 ; q="x"\r\n!\r\n0\r\nTrailer: dropped\r\n\r\n'


def test_chunks_become_one_body_without_extensions_and_trailers() -> None:
    head, body = _one(CHUNKED + SIZES)
    assert body == b"hello world!"
    assert "trailer" not in head.headers
    assert _one(CHUNKED + b"A\r\n0123456789\r\na\r\n0123456789\r\n0\r\n\r\n")[1] == b"0123456789" * 2
    assert _one(CHUNKED.replace(b"chunked", b"Chunked") + b"0\r\n\r\n")[1] == b""


@pytest.mark.parametrize(
    ("version", "connection", "persistent"),
    [
        (b"1.1", b"", True),
        (b"1.1", b"close", False),
        (b"1.1", b"Foo, CLOSE", False),
        (b"1.1", b"keep-alive", True),
        (b"1.0", b"", False),
        (b"1.0", b"Keep-Alive", True),
        (b"1.0", b"keep-alive, close", False),
    ],
)
def test_whether_a_connection_goes_on(version: bytes, connection: bytes, persistent: bool) -> None:
    head, _ = _one(_post(b"Connection: " + connection, version=version))
    assert head.is_persistent is persistent


@pytest.mark.parametrize(
    ("line", "target", "host"),
    [
        (b"GET http://b:80/x?y HTTP/1.1", "/x?y", "b:80"),
        (b"GET HTTPS://b HTTP/1.1", "/", "b"),
        (b"GET http://b?x HTTP/1.1", "/?x", "b"),
        (b"OPTIONS * HTTP/1.1", "*", "a"),
    ],
)
def test_other_forms_of_a_target(line: bytes, target: str, host: str) -> None:
    head, _ = _one(line + b"\r\nHost: a\r\n\r\n")
    assert (head.target, head.headers["host"]) == (target, host)


def test_expecting_counts_only_where_a_body_is_to_come() -> None:
    expect = b"Expect: 100-Continue"
    assert read([_post(expect, b"Content-Length: 1", body=b"x")]).requests[0][0].expects_continue
    assert not _one(_post(expect))[0].expects_continue
    assert not _one(_post(expect, b"Content-Length: 1", body=b"x", version=b"1.0"))[0].expects_continue


def test_a_few_blank_lines_before_a_request_are_tolerated() -> None:
    blank = b"\r\n" * MAX_BLANK_LINES
    assert len(read([blank + GET + blank + GET]).requests) == 2
    assert read([blank + b"\r\n" + GET]) == Found([], 400)


def test_http_1_0_needs_no_host() -> None:
    assert _one(b"GET / HTTP/1.0\r\n\r\n")[0].headers == {}


REFUSED: dict[str, tuple[bytes, int]] = {
    # two readers, two ends of the body
    "length and coding": (_post(b"Content-Length: 5", b"Transfer-Encoding: chunked"), 400),
    "coding and length": (_post(b"Transfer-Encoding: chunked", b"Content-Length: 5"), 400),
    "two lengths": (_post(b"Content-Length: 5", b"Content-Length: 6"), 400),
    "two equal lengths": (_post(b"Content-Length: 5", b"content-length: 5"), 400),
    "a list of lengths": (_post(b"Content-Length: 5, 5"), 400),
    "a signed length": (_post(b"Content-Length: +5"), 400),
    "a negative length": (_post(b"Content-Length: -5"), 400),
    "a hexadecimal length": (_post(b"Content-Length: 0x5"), 400),
    "a spaced length": (_post(b"Content-Length: 1 0"), 400),
    "an underscored length": (_post(b"Content-Length: 1_0"), 400),
    "an empty length": (_post(b"Content-Length:"), 400),
    "digits of other scripts": (_post(b"Content-Length: \xb2"), 400),
    "a length nobody sends": (_post(b"Content-Length: " + b"9" * 19), 413),
    "an endless length": (_post(b"Content-Length: " + b"9" * 9_000), 413),
    "coding of 1.0": (_post(b"Transfer-Encoding: chunked", version=b"1.0"), 400),
    "another coding": (_post(b"Transfer-Encoding: gzip"), 501),
    "a list of codings": (_post(b"Transfer-Encoding: gzip, chunked"), 501),
    "chunked twice": (_post(b"Transfer-Encoding: chunked, chunked"), 501),
    "chunked in two lines": (_post(b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked"), 501),
    "chunked and identity": (_post(b"Transfer-Encoding: chunked", b"Transfer-Encoding: identity"), 501),
    "an empty coding": (_post(b"Transfer-Encoding:"), 501),
    "a coding in quotes": (_post(b'Transfer-Encoding: "chunked"'), 501),
    "a coding with a parameter": (_post(b"Transfer-Encoding: chunked;q=1"), 501),
    "a vertical tab before the coding": (_post(b"Transfer-Encoding: \x0bchunked"), 400),
    # lines
    "a bare LF after the request line": (b"GET / HTTP/1.1\nHost: a\r\n\r\n", 400),
    "a bare LF after a field": (b"GET / HTTP/1.1\r\nHost: a\nX: y\r\n\r\n", 400),
    "a bare LF at the end": (b"GET / HTTP/1.1\r\nHost: a\r\n\n", 400),
    "only bare LFs": (b"GET / HTTP/1.1\nHost: a\n\n", 400),
    "a blank line of LF": (b"\n" + GET, 400),
    "a bare CR in a value": (b"GET / HTTP/1.1\r\nHost: a\r\nX: y\rZ: w\r\n\r\n", 400),
    "a bare CR as line end": (b"GET / HTTP/1.1\rHost: a\r\n\r\n", 400),
    "CR CR LF": (b"GET / HTTP/1.1\r\r\nHost: a\r\n\r\n", 400),
    "NUL in a value": (_post(b"X: a\0b"), 400),
    "NUL in a name": (_post(b"X\0: a"), 400),
    "DEL in a value": (_post(b"X: a\x7fb"), 400),
    "a folded value": (_post(b"X: a", b" b"), 400),
    "a folded value with a tab": (_post(b"X: a", b"\tb"), 400),
    "a folded coding": (_post(b"Transfer-Encoding:", b" chunked"), 400),
    "a folded first line": (b"GET / HTTP/1.1\r\n Host: a\r\n\r\n", 400),
    "a space before the colon": (_post(b"Content-Length : 5"), 400),
    "a tab before the colon": (_post(b"Transfer-Encoding\t: chunked"), 400),
    "no colon": (_post(b"Content-Length 5"), 400),
    "no name": (_post(b": 5"), 400),
    "a name in quotes": (_post(b'"X": 5'), 400),
    "a name with a space": (_post(b"X Y: 5"), 400),
    "a name of other letters": (_post(b"X\xe9: 5"), 400),
    # the request line
    "no version": (b"GET /\r\n\r\n", 400),
    "a lower case version": (b"GET / http/1.1\r\nHost: a\r\n\r\n", 400),
    "a version of two digits": (b"GET / HTTP/1.10\r\nHost: a\r\n\r\n", 400),
    "HTTP/2's preface": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
    "HTTP/1.2": (b"GET / HTTP/1.2\r\nHost: a\r\n\r\n", 505),
    "HTTP/0.9": (b"GET / HTTP/0.9\r\n\r\n", 505),
    "HTTP/2 and a bare LF": (b"GET / HTTP/2.0\r\nX: y\nZ: w\r\n\r\n", 400),
    "two spaces": (b"GET  / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    "a tab": (b"GET\t/ HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    "a space in the target": (b"GET /a b HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    "a space at the end": (b"GET / HTTP/1.1 \r\nHost: a\r\n\r\n", 400),
    "a space at the start": (b" GET / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    "a fragment": (b"GET /#a HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    "other letters in the target": (b"GET /\xe9 HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    "no method": (b" / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    "a method of other signs": (b"GE(T / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    "a method without end": (b"G" * 33 + b" / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    "an asterisk": (b"GET * HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    "a tunnel": (b"CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n", 400),
    "a relative target": (b"GET health HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    "another scheme": (b"GET ftp://a/ HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    "a TLS hello": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),
    # who is asked
    "no host": (_post(host=b""), 400),
    "two hosts": (_post(b"Host: a"), 400),
    "two other hosts": (_post(b"hOST: b"), 400),
    "a host with a user": (_post(host=b"Host: u@a\r\n"), 400),
    "a host with a path": (_post(host=b"Host: a/b\r\n"), 400),
    "two hosts in one": (_post(host=b"Host: a, b\r\n"), 400),
    "a host with a space": (_post(host=b"Host: a b\r\n"), 400),
    "a user in the target": (b"GET http://u:p@a/ HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    # once is once
    "two keys": (_post(b"Authorization: Bearer a", b"Authorization: Bearer b"), 400),
    "two types": (_post(b"Content-Type: a/b", b"Content-Type: a/b"), 400),
    "two encodings": (_post(b"Content-Encoding: gzip", b"content-encoding: gzip"), 400),
    "two idempotency keys": (_post(b"Idempotency-Key: a", b"Idempotency-Key: b"), 400),
    "another expectation": (_post(b"Expect: 200-ok"), 417),
    "two expectations": (_post(b"Expect: 100-continue", b"Expect: 100-continue"), 417),
    # chunks
    "a size that is no number": (CHUNKED + b"G\r\n", 400),
    "a size with 0x": (CHUNKED + b"0x5\r\nhello\r\n", 400),
    "a signed size": (CHUNKED + b"+5\r\nhello\r\n", 400),
    "a negative size": (CHUNKED + b"-5\r\nhello\r\n", 400),
    "a size after a space": (CHUNKED + b" 5\r\nhello\r\n", 400),
    "a size before a space": (CHUNKED + b"5 \r\nhello\r\n", 400),
    "a size of nine digits": (CHUNKED + b"000000005\r\nhello\r\n", 400),
    "an underscored size": (CHUNKED + b"1_0\r\n", 400),
    "no size": (CHUNKED + b"\r\nhello\r\n", 400),
    "an extension without a size": (CHUNKED + b";a=b\r\n", 400),
    "a size with a bare LF": (CHUNKED + b"5\nhello\r\n", 400),
    "a size with a bare CR": (CHUNKED + b"5\rhello\r\n", 400),
    "NUL in an extension": (CHUNKED + b"5;\0\r\nhello\r\n", 400),
    "a bare LF in an extension": (CHUNKED + b"5;a\nhello\r\n", 400),
    "data longer than its size": (CHUNKED + b"5\r\nhello!\r\n", 400),
    "data that ends in a bare LF": (CHUNKED + b"5\r\nhello\n0\r\n\r\n", 400),
    "an extension without end": (CHUNKED + b"5;" + b"a" * (2 * MAX_EXTENSION_BYTES), 400),
    "too many extensions": (CHUNKED + b"1;aaaaaaaa\r\nx\r\n" * (MAX_EXTENSION_BYTES // 9 + 1), 400),
    "too many small chunks": (CHUNKED + b"1\r\nx\r\n" * (MAX_SMALL_CHUNKS + 1), 400),
    "a trailer that is no field": (CHUNKED + b"0\r\nnonsense\r\n\r\n", 400),
    "a folded trailer": (CHUNKED + b"0\r\nA: b\r\n c\r\n\r\n", 400),
    "a trailer with a bare LF": (CHUNKED + b"0\r\nA: b\nC: d\r\n\r\n", 400),
    "trailers without end": (CHUNKED + b"0\r\n" + b"A: b\r\n" * (MAX_TRAILER_BYTES // 6 + 1), 431),
    # limits
    "a target over its limit": (b"GET /" + b"a" * MAX_TARGET_BYTES + b" HTTP/1.1\r\nHost: a\r\n\r\n", 414),
    "a target without end": (b"GET /" + b"a" * 100_000, 414),
    "a head over its limit": (_post(b"X: " + b"a" * MAX_HEAD_BYTES), 431),
    "a head without end": (b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 5_000, 431),
    "a field too many": (_post(*(b"X%d: y" % number for number in range(MAX_FIELDS))), 431),
    "a field too many, all the same": (_post(*[b"X: y"] * MAX_FIELDS), 431),
}  # fmt: skip


@pytest.mark.parametrize("shape", REFUSED)
def test_refused_with_its_status_and_nothing_after_it_is_read(shape: str) -> None:
    data, status = REFUSED[shape]
    assert read([data]) == Found([], status)
    assert read([GET + data + GET]).error == status
    assert len(read([GET + data + GET]).requests) == 1


@pytest.mark.parametrize("shape", [shape for shape, (data, _) in REFUSED.items() if len(data) < 1_000])
def test_a_cut_anywhere_changes_no_refusal(shape: str) -> None:
    data, status = REFUSED[shape]
    for at in range(1, len(data)):
        assert read([data[:at], data[at:]]) == Found([], status), at
    assert read(byte_by_byte(data)) == Found([], status)


def test_the_limits_themselves_are_allowed() -> None:
    target = b"/" + b"a" * (MAX_TARGET_BYTES - 1)
    assert len(_one(b"GET " + target + b" HTTP/1.1\r\nHost: a\r\n\r\n")[0].target) == MAX_TARGET_BYTES
    assert len(_one(_post(*(b"X%d: y" % number for number in range(MAX_FIELDS - 1))))[0].headers) == MAX_FIELDS
    full = _post(b"X: " + b"a" * (MAX_HEAD_BYTES - len(_post(b"X: "))))
    assert len(full) == MAX_HEAD_BYTES
    assert _one(full)
    assert read(byte_by_byte(full)) == read([full])
    assert _one(CHUNKED + b"1;" + b"a" * (MAX_EXTENSION_BYTES - 1) + b"\r\nx\r\n0\r\n\r\n")[1] == b"x"


def test_chunks_that_hold_something_may_be_any_number() -> None:
    chunks = (b"40\r\n" + b"x" * 64 + b"\r\n") * (3 * MAX_SMALL_CHUNKS) + b"0\r\n\r\n"
    assert len(_one(CHUNKED + chunks)[1]) == 3 * 64 * MAX_SMALL_CHUNKS


def test_an_unfinished_head_is_never_kept_beyond_its_limit() -> None:
    drip = byte_by_byte(b"GET / HTTP/1.1\r\nX: " + b"a" * 20_000)
    assert read(drip, most_held_bytes=MAX_HEAD_BYTES) == Found([], 431)


STREAM = (
    _post(b"Content-Length: 11", body=b"hello world") + GET + CHUNKED + SIZES + b"\r\n" + GET
    + _post(b"Expect: 100-continue", b"Content-Length: 2", body=b"\r\n") + CHUNKED + b"0\r\n\r\n"
    + b"GET http://b/x HTTP/1.0\r\nConnection: keep-alive\r\n\r\n" + _post(b"Content-Length: 0") + GET
)  # fmt: skip


def test_pipelined_requests_are_the_same_cut_at_every_byte() -> None:
    whole = read([STREAM])
    assert whole.error is None
    assert whole.bodies == [b"hello world", b"", b"hello world!", b"", b"\r\n", b"", b"", b"", b""]
    for at in range(1, len(STREAM)):
        assert read([STREAM[:at], STREAM[at:]]) == whole, at
    assert read(byte_by_byte(STREAM)) == whole


_TOKENS = st.text("!#$%&'*+-.^_`|~09azAZ", min_size=1, max_size=12).map(lambda text: text.encode())
_VALUES = st.text([chr(code) for code in (*range(0x20, 0x7F), 0x80, 0xFF, 0x09)], max_size=20).map(
    lambda text: text.encode("latin-1")
)
_KNOWN = {b"host", b"content-length", b"transfer-encoding", b"expect", b"connection", b"authorization",
          b"content-type", b"content-encoding", b"idempotency-key"}  # fmt: skip


@st.composite
def _requests(draw: st.DrawFn) -> tuple[bytes, bytes]:
    """A valid request, and its body."""
    fields = draw(st.lists(st.tuples(_TOKENS.filter(lambda name: name.lower() not in _KNOWN), _VALUES), max_size=6))
    lines = [b"Host: a", *(name + b":" + value for name, value in fields)]
    parts = draw(st.lists(st.binary(min_size=1, max_size=40), max_size=4))
    if draw(st.booleans()):
        lines.append(b"Transfer-Encoding: chunked")
        extension = draw(st.sampled_from([b"", b";a=b", b" ; x"]))
        sent = b"".join(b"%x%b\r\n%b\r\n" % (len(part), extension, part) for part in parts) + b"0\r\n\r\n"
    else:
        sent = b"".join(parts)
        lines.append(b"Content-Length: %d" % len(sent))
    lines = draw(st.permutations(lines))
    head = b"POST /" + draw(st.sampled_from([b"", b"a?b=c", b"%00"])) + b" HTTP/1.1\r\n" + b"\r\n".join(lines)
    return head + b"\r\n\r\n" + sent, b"".join(parts)


@settings(max_examples=200, deadline=None)
@given(requests=st.lists(_requests(), min_size=1, max_size=4), data=st.data())
def test_any_cut_of_a_valid_stream_reads_the_same(requests: list[tuple[bytes, bytes]], data: st.DataObject) -> None:
    stream = b"".join(sent for sent, _ in requests)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=12)))
    whole = read([stream])
    assert (whole.error, whole.bodies) == (None, [body for _, body in requests])
    edges = [0, *cuts, len(stream)]
    assert read(stream[start:end] for start, end in pairwise(edges) if start < end) == whole
