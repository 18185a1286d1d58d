"""NDJSON on stdout, one line an event, for Loki and the like: one more `Output`, loaded when `emit_as_json` is set.

Lines go to stdout's descriptor, a few at a time and only while it takes them, and never through `sys.stdout`'s buffer:
a reader that does not read would hold up a thread that holds that buffer's lock, and with it the agent's own prints and
the end of the interpreter. The agent's own prints are buffered by lines meanwhile, so that neither cuts the other.
"""

from __future__ import annotations

import io
import os
import select
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from dunetrace.sdk import lifecycle
from dunetrace.sdk.outputs import Outcome, Parcel, Verdict, payload, written
from dunetrace.sdk.ring import Taken

_ATOMIC_BYTES = getattr(select, "PIPE_BUF", 512)  # what a pipe takes in one piece, whoever else writes to it
_LONGEST_WAIT_S = 1.0  # for a reader, at one attempt; in between the drain thread looks at its messages


class NdjsonOutput:
    """Lines of JSON in ASCII, each ending in a newline, on what is `sys.stdout` when they are written."""

    name = "ndjson"
    batch_size = 100
    largest_batch = 500
    slow_modules: tuple[str, ...] = ()

    def __init__(self) -> None:
        self._buffered_by_lines: object = None  # the stream that was last seen to
        self._unfinished: Parcel | None = None
        self._done_bytes = 0  # of it

    def pack(self, taken: list[Taken], lost: int) -> tuple[Parcel, list[Taken]]:
        """The lines, each with its newline."""
        lines, good, bad = written(taken, _line)
        return Parcel("".join(f"{line}\n" for line in lines).encode(), good, lost=lost), bad

    def attempt(self, parcel: Parcel, timeout_s: float) -> Outcome:
        """Write what stdout takes within `timeout_s`; the next attempt goes on from there. A closed stdout loses the
        lines and is said once."""
        if parcel is not self._unfinished:
            self._unfinished, self._done_bytes = parcel, 0
        before = self._done_bytes
        try:
            done = self._write(parcel.body, min(timeout_s, _LONGEST_WAIT_S))
        except (OSError, ValueError, AttributeError) as error:
            lifecycle.warn_once("stdout", f"events cannot be written to stdout ({type(error).__name__}); they are lost")
            return Outcome(Verdict.REFUSED)
        if done:
            self._unfinished = None
            return Outcome(Verdict.DONE)
        if self._done_bytes == before:
            lifecycle.warn_once("stdout full", "nobody reads stdout; events wait, and are dropped when too many do")
        return Outcome(Verdict.AGAIN, retry_after_s=0.05, answered=self._done_bytes > before)

    def reset(self) -> None:
        """What is half written is the parent's."""
        self._unfinished = None

    def _write(self, body: bytes, timeout_s: float) -> bool:
        stream = sys.stdout
        descriptor = _descriptor(stream)
        if descriptor is None:
            with lifecycle.unforked():  # a child would write what is buffered again
                stream.write(body.decode())
                stream.flush()
            return True
        if stream is not self._buffered_by_lines:
            _buffer_by_lines(stream)
            self._buffered_by_lines = stream
        deadline = time.monotonic() + timeout_s
        return all(self._write_piece(descriptor, piece, deadline) for piece in _pieces(body[self._done_bytes :]))

    def _write_piece(self, descriptor: int, piece: bytes, deadline: float) -> bool:
        """Whole lines in one write where they fit a pipe; the rest of a longer one as it is taken."""
        while piece:
            if not _takes_more(descriptor, deadline):
                return False
            try:
                count = os.write(descriptor, piece)
            except BlockingIOError:  # somebody made it non-blocking
                if time.monotonic() >= deadline:
                    return False
                time.sleep(0.005)
                continue
            self._done_bytes += count
            piece = piece[count:]
        return True


def _descriptor(stream: Any) -> int | None:
    """The descriptor behind `stream`; None where its lines have to go through the object itself."""
    if not isinstance(stream, io.TextIOWrapper) or "{".encode(stream.encoding) != b"{":
        return None
    try:
        return stream.fileno()
    except io.UnsupportedOperation:  # of a stream in memory
        return None


def _buffer_by_lines(stream: Any) -> None:
    # In blocks a print would be cut anywhere; unbuffered, it is two writes, the text and its newline.
    if stream.write_through or not stream.line_buffering:
        stream.reconfigure(line_buffering=True, write_through=False)


def _pieces(body: bytes) -> Iterator[bytes]:
    """`body` cut behind newlines, into pieces a pipe takes whole; a line longer than that is a piece of its own."""
    start = 0
    while start < len(body):
        end = start + _ATOMIC_BYTES
        if end < len(body):
            end = body.rfind(b"\n", start, end) + 1 or body.find(b"\n", start) + 1
        yield body[start:end]
        start = min(end, len(body))


def _takes_more(descriptor: int, deadline: float) -> bool:
    try:
        return bool(select.select([], [descriptor], [], max(0.0, deadline - time.monotonic()))[1])
    except (OSError, ValueError):  # nothing that can be waited for, as a file on Windows; if closed, the write says so
        return True


def _line(one: Taken) -> dict[str, Any]:
    record = one.record
    line = {
        "ts": datetime.fromtimestamp(record.timestamp, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
        "level": "info",
        "logger": "dunetrace",
        "event_type": record.event_type,
        "agent_id": record.key.agent_id,
        "run_id": record.key.run_id,
        "agent_version": record.key.agent_version,
        "step_index": record.step_index,
        "payload": payload(one),
    }
    if record.key.parent_run_id:
        line["parent_run_id"] = record.key.parent_run_id
    return line
