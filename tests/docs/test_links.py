"""Every link within the project leads somewhere."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.docs.pages import PAGES, anchors, links
from tests.shared import CHECKOUT


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(CHECKOUT)))
def test_links_resolve(page: Path) -> None:
    broken = [link for link in links(page) if not _resolves(page, link)]
    assert broken == []


def test_every_page_is_reached_from_the_readme() -> None:
    readme = CHECKOUT / "README.md"
    reached = {(readme.parent / link.split("#")[0]).resolve() for link in links(readme)}
    assert {page for page in PAGES if page != readme} <= reached


def _resolves(page: Path, link: str) -> bool:
    if link.startswith(("https://", "http://")):
        return True  # another host's, or the running server's
    path, _, anchor = link.partition("#")
    target = (page.parent / path) if path else page
    if not target.exists() or not target.resolve().is_relative_to(CHECKOUT):
        return False
    return not anchor or anchor in anchors(target)
