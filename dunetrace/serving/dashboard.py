"""The dashboard's port as an ASGI app: the page's files, and the API's own app for what the page asks of it.

Made and served by `actors/api.py`.
"""

from __future__ import annotations

from dunetrace.serving.asgi import ASGIApp, Receive, Scope, Send
from dunetrace.serving.page import Page


class DashboardApp:
    """`/v1/*` and `/health` go to `api` as they came, everything else is a file of `page` or a 404."""

    def __init__(self, api: ASGIApp, page: Page) -> None:
        self._api, self._page = api, page

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._api(scope, receive, send)
            return
        path = (scope.get("raw_path") or scope["path"].encode()).decode("latin-1")
        if path == "/health" or path.startswith("/v1/"):
            await self._api(scope, receive, send)
            return
        known = b"".join(value for name, value in scope["headers"] if name.lower() == b"if-none-match")
        answer = self._page.answer(path, method=scope["method"], if_none_match=known.decode("latin-1"))
        headers = [(name.lower().encode(), value.encode()) for name, value in answer.headers]
        await send({"type": "http.response.start", "status": answer.status, "headers": headers})
        await send({"type": "http.response.body", "body": answer.body})
