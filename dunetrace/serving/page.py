"""The dashboard page's files, as the dashboard port answers them. Asked for each path that is not the API's.

All files are read once, at start, into a table by their path. A request can only ever pick a row of that table: there
is no way from a request's path to the disk, so nothing outside can be reached however the path is written.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Final, NamedTuple

from dunetrace.errors import StartError

CONTENT_TYPES: Final = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}

# Scripts, styles, images and calls come from this origin alone; nothing inline or evaluated, no HTML from strings.
CONTENT_SECURITY_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
)

SECURITY_HEADERS: Final = (
    ("Content-Security-Policy", CONTENT_SECURITY_POLICY),
    ("X-Content-Type-Options", "nosniff"),
    ("Referrer-Policy", "no-referrer"),
    ("Cross-Origin-Opener-Policy", "same-origin"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
)

Headers = tuple[tuple[str, str], ...]


class PageAnswer(NamedTuple):
    """One answer: status, headers without Date and Connection, and the body's bytes."""

    status: int
    headers: Headers
    body: bytes


class _File(NamedTuple):
    content_type: str
    etag: str
    body: bytes


def page_directory() -> Path:
    """Where the page lies: inside the installed package, else beside it in the checkout. Raises StartError."""
    package = Path(__file__).resolve().parent.parent
    for directory in (package / "_web", package.parent / "web"):
        if (directory / "index.html").is_file():
            return directory
    raise StartError("the page's files are missing: dunetrace was installed without its web directory")


class Page:
    """The page's files, held in memory. Immutable after construction, so any task or thread may ask it."""

    def __init__(self, directory: Path | None = None) -> None:
        self._files = _read(page_directory() if directory is None else directory)

    @property
    def paths(self) -> frozenset[str]:
        """Every path that is answered with a file, `/` among them."""
        return frozenset(self._files)

    def answer(self, path: str, *, method: str = "GET", if_none_match: str = "") -> PageAnswer:
        """The answer for a request's path, without its query, as it stood in the request line (nothing is decoded).

        200 with the file, 304 when `if_none_match` (the header's value) holds its ETag, 404 and 405 as JSON
        `{"detail"}`. A HEAD request gets the headers of its GET, Content-Length too, and no body.
        """
        if method not in ("GET", "HEAD"):
            return _refusal(405, b'{"detail":"Method not allowed"}', method, (("Allow", "GET, HEAD"),))
        file = self._files.get(path)
        if file is None:
            return _refusal(404, b'{"detail":"Not found"}', method)
        validators = (("ETag", file.etag), ("Cache-Control", "no-cache"), *SECURITY_HEADERS)
        if _matches(if_none_match, file.etag):
            return PageAnswer(304, validators, b"")
        head = (("Content-Type", file.content_type), ("Content-Length", str(len(file.body))))
        return PageAnswer(200, (*head, *validators), b"" if method == "HEAD" else file.body)


def _read(directory: Path) -> dict[str, _File]:
    files: dict[str, _File] = {}
    for path in sorted(directory.rglob("*")):
        content_type = CONTENT_TYPES.get(path.suffix)
        if content_type is None or not path.is_file():
            continue
        body = path.read_bytes()
        etag = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
        files[f"/{path.relative_to(directory).as_posix()}"] = _File(content_type, etag, body)
    if "/index.html" not in files:
        raise StartError(f"the page has no index.html in {directory}")
    files["/"] = files["/index.html"]
    return files


def _matches(if_none_match: str, etag: str) -> bool:
    """RFC 9110's weak comparison of a list of entity tags, or `*`."""
    given = [tag.strip().removeprefix("W/") for tag in if_none_match.split(",")]
    return "*" in given or etag in given


def _refusal(status: int, body: bytes, method: str, more: Headers = ()) -> PageAnswer:
    head = (("Content-Type", "application/json"), ("Content-Length", str(len(body))), ("Cache-Control", "no-store"))
    return PageAnswer(status, (*head, *more, *SECURITY_HEADERS), b"" if method == "HEAD" else body)
