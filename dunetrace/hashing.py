"""The one way content becomes a digest, and arguments become comparable text.

Called by the SDK inside the agent's process and by the privacy door for what published clients send raw, so that the
same text gives the same digest whichever of the two sees it. Pure: no clock, no I/O. Nothing here raises, whatever is
put in: content is other people's data.
"""

from __future__ import annotations

import enum
import hashlib
import hmac
import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence, Set
from functools import lru_cache
from itertools import islice
from typing import Any

# A value made of more values than this is hashed from its head and tail: some milliseconds, the most one call costs.
_MOST_NODES = 20_000
_DEEPEST = 64
_LARGEST_INT = 2**63  # beyond it an int is written as a float's worth of digits by some encoders and refused by others

_ENCODER = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False)

_MASK = "<id>"
# Every alternative is bounded or possessive, and the open-ended ones cannot start inside their own run: linear time.
_VOLATILE = re.compile(
    r"""
      [0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}                 # UUID
    | [0-9]{4}-[0-9]{2}-[0-9]{2}[T ][0-9]{2}:[0-9]{2}(?::[0-9]{2}(?:[.,][0-9]{1,9})?)?(?:Z|[+-][0-9]{2}:?[0-9]{2})?
    | (?:/private)?/(?:var/)?tmp/[^\s"']++ | (?:/private)?/var/folders/[^\s"']++                   # temporary paths
    | \\{1,2}[Tt]e?mp\\{1,2}[^\s"']++
    | (?<![0-9A-Za-z])(?:0[xX])?[0-9a-fA-F]{8,}+(?![0-9A-Za-z])                                    # hex, 8 and more
    | [0-9]{6,}+                                                                                   # numbers, 6 and more
    """,
    re.VERBOSE,
)
# Digits become 0, the other hex digits h, and T is t; in these letters every match of the pattern is easily seen.
_CLASSES = bytes.maketrans(b"0123456789abcdefABCDEFhT", b"0000000000hhhhhhhhhhhhxt")
_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]{1,16}")


class Hasher:
    """Digests of text: SHA-256, or HMAC-SHA-256 when a key is given. 64 lower-case hex digits, "" for empty text."""

    def __init__(self, key: bytes | None = None) -> None:
        self._key = key or None

    def text(self, s: str) -> str:
        """The digest of `s` as UTF-8; a lone surrogate counts as U+FFFD."""
        if not s:
            return ""
        data = _utf8(s)
        if self._key is None:
            return hashlib.sha256(data).hexdigest()
        return hmac.digest(self._key, data, "sha256").hex()

    def shape(self, s: str) -> str:
        """The digest of `s` with ids, times and temporary paths masked: equal where a retry differs only in those."""
        return self.text(masked(s))


def agent_version(system_prompt: str, model: str, tools: Sequence[str]) -> str:
    """Eight hex digits that change when the agent's prompt, model or tools do; the same from every client."""
    return _agent_version(system_prompt, model, tuple(tools))


@lru_cache(maxsize=16)  # an agent starts run after run with the same ones
def _agent_version(system_prompt: str, model: str, tools: tuple[str, ...]) -> str:
    return hashlib.sha256(_utf8(f"{system_prompt}:{model}:{sorted(tools)}")).hexdigest()[:8]


def masked(s: str) -> str:
    """`s` with ids, times and temporary paths masked; `s` itself where there is nothing to mask."""
    return _VOLATILE.sub(_MASK, s) if _may_be_volatile(s) else s


def _may_be_volatile(s: str) -> bool:
    """Whether `s` has anything that every match of the pattern has: most texts have not, and this costs a tenth."""
    data = s.encode("ascii", "replace").translate(_CLASSES)
    some = b"0000" in data or b"tmp" in data or b"thmp" in data or b"holhhrs" in data  # a number, tmp, temp, folders
    return some or b"hhhhhhhh" in data.replace(b"0", b"h")


def canonical(value: object) -> str:
    """`value` as compact JSON with sorted keys, so that equal arguments are equal texts."""
    return encode(snapshot(value))


def canonical_text(s: str) -> str:
    """`s` in canonical form if it is JSON, else `s` itself."""
    try:
        value = json.loads(s)
    except (ValueError, RecursionError):
        return s
    return canonical(value)


def snapshot(value: object) -> Any:
    """A copy of `value` in plain JSON types, bounded in size and depth, that later changes to `value` cannot reach.

    NaN and infinities become None. Values JSON does not know become text that is equal for equal values: a member of an
    enum its value, a dataclass its fields, a set its sorted members, an object without words of its own its attributes.
    """
    return measured_snapshot(value)[0]


def measured_snapshot(value: object) -> tuple[Any, int]:
    """The same, and how many characters of text it holds on to."""
    walk = _Snapshot()
    try:
        return walk.of(value, 0), walk.chars
    except Exception:  # no stack left, or a container that changed under the walk
        return f"<{type(value).__name__}>", 0


def encode(plain: Any) -> str:
    """What `snapshot` gave, as compact JSON with sorted keys."""
    return _ENCODER.encode(plain)


def _utf8(s: str) -> bytes:
    try:
        return s.encode()
    except UnicodeEncodeError:
        return s.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace").encode()


class _Snapshot:
    """One walk over one value, with the number of values it may still visit."""

    __slots__ = ("_left", "chars")

    def __init__(self) -> None:
        self._left = _MOST_NODES
        self.chars = 0

    def of(self, value: Any, depth: int) -> Any:
        self._left -= 1
        kind = type(value)
        if kind is str:
            self.chars += len(value)
            return value
        if value is None or kind is bool:
            return value
        if kind is int:
            return value if -_LARGEST_INT < value < _LARGEST_INT else _huge(value)
        if kind is float:
            return value if math.isfinite(value) else None
        if depth >= _DEEPEST:
            return f"<{kind.__name__}>"
        if kind is dict:
            return self._mapping(value, depth)
        if kind is list or kind is tuple:
            return self._sequence(value, depth)
        try:
            return self._foreign(value, depth)
        except Exception:  # whatever the value's own methods do, the agent never sees it
            return f"<{kind.__name__}>"

    def _mapping(self, value: Mapping[Any, Any], depth: int) -> dict[str, Any]:
        room = max(self._left, 0)
        items = value.items() if len(value) <= room else islice(value.items(), room)
        plain: dict[str, Any] = {}
        for k, v in items:
            if type(v) is str:  # most values are, and this spares them a call
                self._left -= 1
                self.chars += len(v)
                kept = v
            else:
                kept = self.of(v, depth + 1)
            plain[k if type(k) is str else self._key(k, depth)] = kept
        if len(value) > room:
            plain["…"] = len(value)
        return plain

    def _sequence(self, value: Sequence[Any], depth: int) -> list[Any]:
        room = max(self._left, 0)
        if len(value) <= room:
            return [self.of(item, depth + 1) for item in value]
        half = room // 2
        head = [self.of(item, depth + 1) for item in value[:half]]
        tail = [self.of(item, depth + 1) for item in value[len(value) - half :]]
        return [*head, f"… {len(value)}", *tail]

    def _key(self, key: object, depth: int) -> str:
        plain = self.of(key, depth + 1)
        return plain if isinstance(plain, str) else encode(plain)

    def _foreign(self, value: object, depth: int) -> Any:
        if isinstance(value, enum.Enum):
            return self.of(value.value, depth + 1)
        if isinstance(value, str):
            return str.__str__(value)
        if isinstance(value, int):
            return self.of(int(value), depth + 1)
        if isinstance(value, float):
            return self.of(float(value), depth + 1)
        if isinstance(value, bytes | bytearray | memoryview):
            return f"<{len(value)} bytes {hashlib.sha256(value).hexdigest()}>"
        if isinstance(value, Mapping):
            return self._mapping(value, depth)
        if isinstance(value, Set):
            return sorted(self._members(value, depth))
        if isinstance(value, Sequence):
            return self._sequence(value, depth)
        fields = getattr(type(value), "__dataclass_fields__", None)  # `dataclasses` itself is slow to import
        if fields is not None:
            return {field: self.of(getattr(value, field, None), depth + 1) for field in fields}
        return self._object(value, depth)

    def _members(self, value: Iterable[object], depth: int) -> list[str]:
        return [encode(self.of(item, depth + 1)) for item in islice(value, max(self._left, 0))]

    def _object(self, value: object, depth: int) -> Any:
        kind = type(value)
        # object's own repr is an address: it would tell equal calls apart, and equal addresses together.
        if kind.__repr__ is object.__repr__ and kind.__str__ is object.__str__:
            return {f"<{kind.__name__}>": self._mapping(getattr(value, "__dict__", {}), depth)}
        return _ADDRESS.sub("", str(value))


def _huge(value: int) -> str:
    return f"<int {value.bit_length()} bits {hashlib.sha256(hex(value).encode()).hexdigest()[:16]}>"
