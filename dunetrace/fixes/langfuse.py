"""The user's Langfuse: a run's trace, and the versions of a prompt. By its public API, nothing but what a fix needs.

Used by `desk.py`. Each method raises ServiceError when Langfuse cannot be asked or answers something else.
"""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote, urlencode

import msgspec

from dunetrace.fixes.prompts import LATEST, Prompt
from dunetrace.fixes.services import PromptMissingError, ServiceError, checked, read
from dunetrace.fixes.trace import Observation, Trace, in_order
from dunetrace.outgoing.client import OutgoingError, Reply, Request

if TYPE_CHECKING:
    from dunetrace.fixes.services import LangfuseAccess
    from dunetrace.outgoing.client import Client

LANGFUSE_TIMEOUT_S: Final = 15.0  # of one try
LANGFUSE_ANSWER_BYTES: Final = 16 << 20
PAGE: Final = 100  # observations; their inputs and outputs come along
MAX_PAGES: Final = 10
_FIELDS: Final = "core,basic,io,model,prompt"
_KEYS: Final = ("LANGFUSE_HOST", "LANGFUSE_PUBLIC_KEY", "LANGFUSE_SECRET_KEY")
_NAME: Final = "Langfuse"


class _Meta(msgspec.Struct):
    cursor: str | None = None


class _Page(msgspec.Struct):
    data: list[Observation]
    meta: _Meta


class _WholeTrace(msgspec.Struct):
    observations: list[Observation]


class _Created(msgspec.Struct):
    version: int


class _Project(msgspec.Struct):
    id: str


class _Projects(msgspec.Struct):
    data: list[_Project]


class Langfuse:
    """One project of one Langfuse."""

    def __init__(self, client: Client, access: LangfuseAccess) -> None:
        self._client, self._host = client, access.host
        pair = base64.b64encode(f"{access.public_key}:{access.secret_key}".encode()).decode()
        self._headers = {"Authorization": f"Basic {pair}"}

    async def trace(self, trace_id: str) -> Trace | None:
        """The observations of a trace; None when there are none."""
        found: list[Observation] = []
        asked = {"traceId": trace_id, "fields": _FIELDS, "limit": str(PAGE)}
        for number in range(MAX_PAGES):
            reply = await self._get(f"/api/public/v2/observations?{urlencode(asked)}")
            if reply.status == 404 and number == 0:  # a Langfuse from before this route
                return await self._trace_by_the_older_route(trace_id)
            page = read(_NAME, checked(_NAME, reply, *_KEYS).body, _Page)
            found += page.data
            if page.meta.cursor is None or not page.data:
                return in_order(found) if found else None
            asked["cursor"] = page.meta.cursor
        return in_order(found, is_whole=False)

    async def _trace_by_the_older_route(self, trace_id: str) -> Trace | None:
        reply = await self._get(f"/api/public/traces/{quote(trace_id, safe='')}")
        if reply.status == 404:
            return None
        found = read(_NAME, checked(_NAME, reply, *_KEYS).body, _WholeTrace).observations
        return in_order(found) if found else None

    async def prompt(self, name: str, **which: str | int) -> Prompt:
        """The version with this `label` or `version`. Raises PromptMissingError.

        As it is stored: references to other prompts stay references, so that a new version keeps them.
        """
        asked = urlencode({**which, "resolve": "false"})
        reply = await self._get(f"/api/public/v2/prompts/{quote(name, safe='')}?{asked}")
        if reply.status == 404:
            raise PromptMissingError
        return read(_NAME, checked(_NAME, reply, *_KEYS).body, Prompt)

    async def publish(self, prompt: Prompt, why: str) -> int:
        """Make `prompt` the next version, under the labels it has; the number it got. Sent once, whatever happens."""
        document: dict[str, Any] = {
            "name": prompt.name,
            "type": prompt.type,
            "prompt": prompt.prompt,
            "labels": [label for label in prompt.labels if label != LATEST],
            "tags": prompt.tags,
            "commitMessage": why,
        }
        if prompt.config is not None:
            document["config"] = prompt.config
        reply = await self._ask("POST", "/api/public/v2/prompts", msgspec.json.encode(document))
        return read(_NAME, checked(_NAME, reply, *_KEYS).body, _Created).version

    async def address_of(self, name: str, version: int) -> str:
        """Where a person looks at this version; Langfuse's own page where the project cannot be told."""
        try:
            reply = checked(_NAME, await self._get("/api/public/projects"))
            (project, *_) = read(_NAME, reply.body, _Projects).data
        except (ServiceError, ValueError):
            return self._host
        place = f"project/{quote(project.id, safe='')}/prompts/{quote(name, safe='')}"
        return f"{self._host}/{place}?version={version}"

    async def _get(self, path: str) -> Reply:
        return await self._ask("GET", path)

    async def _ask(self, method: str, path: str, body: bytes = b"") -> Reply:
        request = Request(
            method,
            self._host + path,
            self._headers,
            LANGFUSE_TIMEOUT_S,
            LANGFUSE_ANSWER_BYTES,
            body,
            safe=method == "GET",
        )
        try:
            return await self._client.ask(request)
        except OutgoingError as error:
            raise ServiceError(f"{_NAME} {error}") from None
