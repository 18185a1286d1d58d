"""The page's files as the dashboard port answers them: found, typed, revalidated, and nothing else reachable."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from dunetrace.errors import StartError
from dunetrace.serving.page import CONTENT_TYPES, Page, PageAnswer, page_directory

WEB = page_directory()


def header(answer: PageAnswer, name: str) -> str:
    (value,) = [v for k, v in answer.headers if k.lower() == name.lower()]
    return value


@pytest.mark.parametrize(
    ("path", "content_type"),
    [
        ("/", "text/html; charset=utf-8"),
        ("/index.html", "text/html; charset=utf-8"),
        ("/css/base.css", "text/css; charset=utf-8"),
        ("/js/main.js", "text/javascript; charset=utf-8"),
        ("/js/views/run.js", "text/javascript; charset=utf-8"),
        ("/favicon.svg", "image/svg+xml"),
    ],
)
def test_a_file_is_given_whole_and_typed(path: str, content_type: str) -> None:
    answer = Page().answer(path)
    body = (WEB / (path.lstrip("/") or "index.html")).read_bytes()
    assert (answer.status, answer.body) == (200, body)
    assert header(answer, "Content-Type") == content_type
    assert header(answer, "Content-Length") == str(len(body))
    assert header(answer, "Cache-Control") == "no-cache"
    assert header(answer, "X-Content-Type-Options") == "nosniff"
    assert header(answer, "Referrer-Policy") == "no-referrer"


def test_every_file_of_the_page_is_served() -> None:
    on_disk = {f"/{path.relative_to(WEB).as_posix()}" for path in WEB.rglob("*") if path.is_file()}
    assert on_disk | {"/"} == Page().paths
    assert {Path(path).suffix for path in on_disk} <= set(CONTENT_TYPES)


def test_the_policy_allows_this_origin_and_nothing_inline() -> None:
    policy = header(Page().answer("/"), "Content-Security-Policy")
    directives = dict(part.strip().split(" ", 1) for part in policy.split(";"))
    assert directives["default-src"] == "'none'"
    for name in ("script-src", "style-src", "img-src", "connect-src"):
        assert directives[name] == "'self'"
    assert "unsafe" not in policy
    assert "http" not in policy
    assert directives["frame-ancestors"] == directives["base-uri"] == "'none'"


def test_the_etag_follows_the_content(tmp_path: Path) -> None:
    (tmp_path / "index.html").write_text("one")
    first = Page(tmp_path).answer("/")
    assert header(first, "ETag") == header(Page(tmp_path).answer("/"), "ETag")
    (tmp_path / "index.html").write_text("two")
    assert header(first, "ETag") != header(Page(tmp_path).answer("/"), "ETag")


@pytest.mark.parametrize("form", ["{etag}", "W/{etag}", '"other", {etag}', "*"])
def test_what_the_browser_has_is_not_sent_again(form: str) -> None:
    page = Page()
    etag = header(page.answer("/js/main.js"), "ETag")
    answer = page.answer("/js/main.js", if_none_match=form.format(etag=etag))
    assert (answer.status, answer.body) == (304, b"")
    assert header(answer, "ETag") == etag
    assert header(answer, "Content-Security-Policy")


@pytest.mark.parametrize("stale", ["", '"other"', "nonsense"])
def test_another_etag_gets_the_file(stale: str) -> None:
    assert Page().answer("/js/main.js", if_none_match=stale).status == 200


@pytest.mark.parametrize(
    "path",
    [
        "", "index.html", "/missing.js", "/js", "/js/", "/agents", "//index.html", "/./index.html",
        "/css/../index.html", "/..", "/../pyproject.toml", "/%2e%2e/pyproject.toml", "/..%2fpyproject.toml",
        "/js/..\\..\\pyproject.toml",
        "/etc/passwd", "//etc/passwd", "/index.html\x00.js", "/INDEX.HTML", "/index.html?x=1", "/\ud800",
    ],
)  # fmt: skip
def test_nothing_else_is_reachable(path: str) -> None:
    answer = Page().answer(path)
    assert (answer.status, answer.body) == (404, b'{"detail":"Not found"}')
    assert header(answer, "Content-Security-Policy")


def test_a_stray_file_is_no_page_file(tmp_path: Path) -> None:
    (tmp_path / "index.html").write_text("")
    (tmp_path / "secret.env").write_text("x")
    (tmp_path / ".git").mkdir()
    assert Page(tmp_path).paths == {"/", "/index.html"}


def test_head_has_the_length_and_no_body() -> None:
    answer = Page().answer("/", method="HEAD")
    assert (answer.status, answer.body) == (200, b"")
    assert int(header(answer, "Content-Length")) == len(Page().answer("/").body)
    missing = Page().answer("/nothing", method="HEAD")
    assert (missing.status, missing.body) == (404, b"")


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "get"])
def test_other_methods_are_refused(method: str) -> None:
    answer = Page().answer("/", method=method)
    assert answer.status == 405
    assert header(answer, "Allow") == "GET, HEAD"


def test_a_directory_without_a_page_is_said_at_start(tmp_path: Path) -> None:
    with pytest.raises(StartError, match=re.escape(str(tmp_path))):
        Page(tmp_path)


def test_no_file_of_the_page_names_another_host_or_makes_markup_of_text() -> None:
    namespace = "http://www.w3.org/2000/svg"
    for path in WEB.rglob("*.*"):
        text = path.read_text().replace(namespace, "").replace("http://${location.hostname}:", "")
        assert not re.search(r"https?://|[\"'(]//\w", text), path
        assert not re.search(r"(inner|outer|insertAdjacent)HTML|document\.write|\beval\(|new Function", text), path
        assert not re.search(r"<style|<script>|\sstyle=|\son\w+=", text), path
