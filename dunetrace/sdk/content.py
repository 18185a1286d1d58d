"""Content on its way to a digest: taken on the agent's thread, hashed and scanned on the drain thread.

Called by `context` (which takes texts) and by the drain thread (which resolves them, before and while events wait). A
text lives here until its digest is made, at most a flush interval when all is well; what leaves is digests, lengths and
rule labels.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from itertools import islice
from typing import Any

from dunetrace.events import MAX_META_KEYS
from dunetrace.hashing import Hasher, canonical_text, encode, masked, measured_snapshot
from dunetrace.sdk import plain

Entries = dict[str, Any]

LARGE_CHARS = 4096
_MOST_LARGE = 64  # large texts that may wait to be hashed at once,
_MOST_LARGE_CHARS = 16 * 1024 * 1024  # and their characters; beyond that the agent's thread hashes its own


class Late:
    """One text and what will be made of it: payload entries, computed once, after which the text is let go."""

    __slots__ = ("_entries", "_made", "_raw", "chars")

    def __init__(self, entries: Callable[[Any], Entries], raw: Any, chars: int) -> None:
        self._entries = entries
        self._raw = raw
        self._made: Entries | None = None
        self.chars = chars

    def resolve(self) -> Entries:
        """The entries. Two threads may meet here: the raw text is read before `_made`, and cleared after it is set."""
        raw = self._raw
        if self._made is None:
            try:
                made = self._entries(raw)
            except Exception:  # a payload without its digest is better than none
                made = {}
            self._made = made
            self._raw = None
        return self._made


class Backlog:
    """The texts that wait for the drain thread, of one client. Bounded in number and in characters."""

    def __init__(self, capacity: int) -> None:
        self._small: deque[Late] = deque(maxlen=capacity)  # one that falls out is resolved when its event is packed
        self._large: deque[Late] = deque()

    def add(self, late: Late) -> None:
        """Let `late` wait, or resolve it here and now when too much waits already."""
        if late.chars < LARGE_CHARS:
            self._small.append(late)
        elif self._has_room(late.chars):
            self._large.append(late)
        else:
            late.resolve()

    def _has_room(self, chars: int) -> bool:
        waiting = list(self._large)
        return len(waiting) < _MOST_LARGE and chars + sum(late.chars for late in waiting) <= _MOST_LARGE_CHARS

    def resolve(self) -> None:
        """Resolve everything that waits."""
        for waiting in (self._large, self._small):
            while True:
                try:
                    waiting[0].resolve()  # counted until it is done
                    waiting.popleft()
                except IndexError:
                    break

    def clear(self) -> None:
        """Forget what waits: it belongs to the parent of this process."""
        self._small.clear()
        self._large.clear()


class Unawaited(Backlog):
    """The backlog of a client without outputs: nobody waits for a digest, so no text is kept or hashed for one."""

    def add(self, late: Late) -> None:
        """Leave `late` to whoever may ask it, such as `RunContext.state`."""


class Content:
    """Turns each kind of content into a `Late`. One for each client, with its hash key."""

    def __init__(self, hasher: Hasher, backlog: Backlog) -> None:
        self._hasher = hasher
        self._backlog = backlog
        self.late_type = Late

    def _late(self, entries: Callable[[Any], Entries], value: object) -> Late:
        # Text is kept as it is; anything else is copied now, because it may change right after.
        raw, chars = (value, len(value)) if type(value) is str else measured_snapshot(value)
        late = self.late_type(entries, raw, chars)
        self._backlog.add(late)
        return late

    def run_input(self, value: object) -> Late:
        """`input_hash`, and `injection_signal` where the scan found something."""
        return self._late(self._scanned, plain.text(value))

    def user_message(self, value: object) -> Late:
        """The same and `input_length`."""
        return self._late(self._message, plain.text(value))

    def task(self, value: object) -> Late:
        """`task_hash`."""
        return self._late(self._task, plain.text(value))

    def args(self, value: object) -> Late:
        """`args_hash` and `args_shape_hash` of a tool call's arguments."""
        return self._late(self._args, value)

    def output(self, value: object) -> Late:
        """`output_hash` and `output_length`."""
        return self._late(self._output, value)

    def query(self, value: object) -> Late:
        """`query_hash`."""
        return self._late(self._query, value)

    def retrieved(self, value: object) -> Late:
        """`content_hash` and `content_length`."""
        return self._late(self._retrieved, value)

    def error(self, value: object) -> Late:
        """`error_hash` and `error_shape_hash`."""
        return self._late(self._error, plain.text(value))

    def meta(self, values: dict[str, Any]) -> Late:
        """`meta`: numbers and flags as they are, of everything else `<key>_hash` and `<key>_length`."""
        return self._late(self._meta, dict(islice(values.items(), MAX_META_KEYS)))

    def digest(self, given: str) -> str:
        """A digest the caller made himself, or the digest of the text he passed instead."""
        if not given or (16 <= len(given) <= 128 and all(c in "0123456789abcdefABCDEF" for c in given)):
            return given
        return self._hasher.text(given)

    # ---- what is computed on the drain thread

    def _scanned(self, text: str) -> Entries:
        from dunetrace.injection import scan  # noqa: PLC0415 - its table takes longer to load than all the rest

        entries: Entries = {"input_hash": self._hasher.text(text)}
        found = scan(text)
        if found is not None:
            entries["injection_signal"] = found.payload()
        return entries

    def _message(self, text: str) -> Entries:
        return {"input_length": len(text), **self._scanned(text)}

    def _task(self, text: str) -> Entries:
        return {"task_hash": self._hasher.text(text)}

    def _args(self, raw: Any) -> Entries:
        text = canonical_text(raw) if isinstance(raw, str) else encode(raw)
        shape, digest = masked(text), self._hasher.text(text)
        return {"args_hash": digest, "args_shape_hash": digest if shape is text else self._hasher.text(shape)}

    def _output(self, raw: Any) -> Entries:
        text = text_of(raw)
        return {"output_hash": self._hasher.text(text), "output_length": len(text)}

    def _query(self, raw: Any) -> Entries:
        return {"query_hash": self._hasher.text(text_of(raw))}

    def _retrieved(self, raw: Any) -> Entries:
        text = text_of(raw)
        return {"content_hash": self._hasher.text(text), "content_length": len(text)}

    def _error(self, text: str) -> Entries:
        return {"error_hash": self._hasher.text(text), "error_shape_hash": self._hasher.shape(text)}

    def _meta(self, kept: dict[str, Any]) -> Entries:
        meta: Entries = {}
        for key, value in kept.items():
            name = plain.name(key)
            if isinstance(value, bool | int | float):
                meta[name] = value
            elif value is not None:
                text = text_of(value)
                meta |= {f"{name}_hash": self._hasher.text(text), f"{name}_length": len(text)}
        return {"meta": meta}


def text_of(raw: Any) -> str:
    """The text that is hashed of what was taken."""
    return raw if isinstance(raw, str) else encode(raw)
