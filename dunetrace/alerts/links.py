"""Where on the page a thing is, for the buttons of an alert. The routes are those of web/js/router.js."""

from __future__ import annotations

from urllib.parse import quote, urlsplit, urlunsplit


def page_url(dashboard_url: str | None, route: str = "/") -> str | None:
    """The address of one of the page's routes; None where nobody knows where the page is."""
    if not dashboard_url:
        return None
    base = urlsplit(dashboard_url)
    return urlunsplit(base._replace(path=base.path or "/", fragment=route))


def run_url(dashboard_url: str | None, run_id: str) -> str | None:
    """Where a run is looked at."""
    return page_url(dashboard_url, f"/runs/{quote(run_id, safe='', errors='replace')}")
