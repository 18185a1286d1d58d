"""What a text hides: words in an encoding, in other letters or backwards, written out so that rules can see them.

Called by `injection.scan` alone. Pure and bounded: a few candidates of each kind are looked at, and each is short. What
comes out may be nonsense; it is only ever looked at for phrases that nobody writes by chance.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Iterator
from itertools import islice

MOST_READ = 2048  # characters of the head of a text, and as many of its tail
MOST_CANDIDATES = 4  # of a kind in a text
MOST_CHARS = 1024  # of a candidate
FEWEST_CHARS = 16  # that are worth a look once decoded
_READABLE = 0.9  # of the characters, of what was decoded and not garbage

_TAGS = re.compile("[\U000e0020-\U000e007e]{4,}")
_BASE64 = re.compile(rf"[A-Za-z0-9+/_-]{{24,{MOST_CHARS}}}")
_BASE85 = re.compile(rf"[!-~]{{40,{MOST_CHARS}}}")
_HEX = re.compile(rf"(?:[0-9A-Fa-f]{{2}}[ :,]?){{16,{MOST_CHARS // 2}}}")
_BITS = re.compile(rf"(?:[01]{{8}} ?){{8,{MOST_CHARS // 8}}}")
_MORSE = re.compile(rf"(?:[.-]{{1,5}}[ /]{{1,3}}){{12,{MOST_CHARS // 4}}}")
_ESCAPED = re.compile(r"\\u00([0-9A-Fa-f]{2})|\\x([0-9A-Fa-f]{2})|%([0-9A-Fa-f]{2})|&#x([0-9A-Fa-f]{2});|&#(\d{2,3});")
_SPACED = re.compile(r"(?<!\w)(?:\w[ *._-]){3,40}\w(?!\w)")
_MIXED = re.compile(r"\b(?:[a-z]+[013457@$]|[013457@$]+[a-z])[a-z013457@$]*", re.IGNORECASE)
_FEWEST_MIXED = 3  # words of letters and digits, before they are read as letters

_ROT13 = str.maketrans(
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz", "NOPQRSTUVWXYZABCDEFGHIJKLMnopqrstuvwxyzabcdefghijklm"
)
_LEET = str.maketrans("013457@$", "oieastas")
# Letters of other alphabets that look like Latin ones, and small capitals.
_LOOK_ALIKES = str.maketrans(
    "аеорсухіјѕԁһӏոքԛԝАВЕКМНОРСТУХІЈЅαοινκρτυχΑΒΕΖΗΙΚΜΝΟΡΤΥΧᴀʙᴄᴅᴇғɢʜɪᴊᴋʟᴍɴᴏᴘʀᴛᴜᴠᴡʏᴢ",
    "aeopcyxijsdhlnpqwABEKMHOPCTYXIJSaoivkptuxABEZHIKMNOPTYXabcdefghijklmnoprtuvwyz",
)
_MORSE_LETTERS = dict(
    zip(
        ".- -... -.-. -.. . ..-. --. .... .. .--- -.- .-.. -- -. --- .--. --.- .-. ... - ..- ...- .-- -..- -.-- --..".split(),  # noqa: E501, SIM905
        "abcdefghijklmnopqrstuvwxyz",
        strict=True,
    )
)
_SHIFTED = frozenset(["gur", "naq", "gb", "lbhe", "lbh", "nyy", "vtaber", "guvf", "flfgrz"])
_BACKWARDS = frozenset(["eht", "dna", "ruoy", "uoy", "lla", "erongi", "siht", "metsys", "snoitcurtsni"])


def unmasked(text: str) -> str:
    """What the head and the tail of `text` hide, one piece a line; empty for most."""
    if len(text) > 2 * MOST_READ:
        text = f"{text[:MOST_READ]} {text[-MOST_READ:]}"
    found: list[str] = []
    words = set(text.lower().split())
    if len(words & _SHIFTED) > 1:
        found.append(text[:MOST_CHARS].translate(_ROT13))
    if len(words & _BACKWARDS) > 1:
        found.append(text[:MOST_CHARS][::-1])
    if not text.isascii():
        found += (_of_tags(piece) for piece in _candidates(_TAGS, text))
        latin = text.translate(_LOOK_ALIKES)
        if latin != text:
            found.append(latin)
    if len(_some(_MIXED, text, _FEWEST_MIXED)) == _FEWEST_MIXED:
        found.append(_MIXED.sub(lambda word: word[0].translate(_LEET), text[:MOST_CHARS]))
    if len(_some(_SPACED, text, 1)):
        found.append(_SPACED.sub(lambda spaced: re.sub(r"[ *._-]", "", spaced[0]), text[:MOST_CHARS]))
    if len(_some(_ESCAPED, text, FEWEST_CHARS)) == FEWEST_CHARS:
        found.append(_ESCAPED.sub(_unescaped, text[:MOST_CHARS]))
    if any(len(word) >= 24 for word in words):
        found += _decoded(_BASE64, text, _from_base64)
        found += _decoded(_BASE64, text, _from_base32)
        found += _decoded(_BASE85, text, base64.b85decode)
        found += _decoded(_BASE85, text, base64.a85decode)
    found += _decoded(_HEX, text, lambda digits: bytes.fromhex(re.sub("[ :,]", "", digits)))
    found += _decoded(_BITS, text, lambda bits: bytes(int(octet, 2) for octet in re.findall("[01]{8}", bits)))
    found += (_of_morse(piece) for piece in _candidates(_MORSE, text))
    return "\n".join(found)


def _some(pattern: re.Pattern[str], text: str, most: int) -> list[re.Match[str]]:
    return list(islice(pattern.finditer(text), most))


def _candidates(pattern: re.Pattern[str], text: str) -> Iterator[str]:
    return (match[0] for match in _some(pattern, text, MOST_CANDIDATES))


def _decoded(pattern: re.Pattern[str], text: str, decode: Callable[[str], bytes]) -> Iterator[str]:
    for candidate in _candidates(pattern, text):
        try:
            decoded = decode(candidate).decode("utf-8", "replace")
        except (ValueError, binascii.Error):
            continue
        readable = sum(char.isalpha() or char == " " for char in decoded)
        if len(decoded) >= FEWEST_CHARS and readable >= _READABLE * len(decoded):
            yield decoded


def _from_base64(candidate: str) -> bytes:
    whole = candidate[: len(candidate) // 4 * 4]
    return base64.b64decode(whole, altchars=b"-_" if "-" in whole or "_" in whole else None)


def _from_base32(candidate: str) -> bytes:
    return base64.b32decode(candidate[: len(candidate) // 8 * 8])


def _of_tags(piece: str) -> str:
    return "".join(chr(ord(char) - 0xE0000) for char in piece)


def _of_morse(piece: str) -> str:
    return "".join(_MORSE_LETTERS.get(sign, " ") if sign.strip() else "" for sign in re.split(" |(/)", piece) if sign)


def _unescaped(match: re.Match[str]) -> str:
    *digits, decimal = match.groups()
    return chr(int(decimal) if decimal else int(next(filter(None, digits)), 16))
