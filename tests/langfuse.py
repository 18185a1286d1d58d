"""Langfuse as a real HTTP server: traces by both routes, prompts with versions and labels, and who may ask.

    with Langfuse() as langfuse:
        langfuse.traces["abc"] = [observation("answer", prompt=("support", 3))]
        langfuse.put("support", "Be kind.", labels=["production"])

What it answers and takes is checked by the types of Langfuse's own SDK, in `tests/fixes/test_fakes.py` and here.
"""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Callable
from typing import Any

from langfuse.api.prompts.types import CreateChatPromptRequest, CreateTextPromptRequest

from tests.receiver import Received
from tests.service import Reply, Service

PUBLIC_KEY, SECRET_KEY = "pk-lf-test", "sk-lf-test-secret"
PROJECT = "project-1"
_START = "2026-11-22T12:00:{:02d}.000Z"


def observation(
    name: str,
    *,
    at: int = 0,
    kind: str = "GENERATION",
    prompt: tuple[str, int] | None = None,
    **values: Any,
) -> dict[str, Any]:
    """One observation, with all of its fields; `at` is its second."""
    named, version = prompt or (None, None)
    return {
        "id": f"o-{name}-{at}", "traceId": "t", "projectId": PROJECT, "startTime": _START.format(at), "endTime": None,
        "parentObservationId": None, "type": kind, "name": name, "level": "DEFAULT", "statusMessage": None,
        "model": "gpt-x" if kind == "GENERATION" else None, "input": None, "output": None, "environment": "default",
        "promptId": named and "p", "promptName": named, "promptVersion": version, **values,
    }  # fmt: skip


class Langfuse(Service):
    """`any_name` = a prompt is made as soon as its name is asked for. `older` = it is from before the v2 route."""

    def __init__(self, *, any_name: bool = False, secret_key: str = SECRET_KEY) -> None:
        super().__init__()
        self.older, self.any_name, self.secret_key = False, any_name, secret_key
        self.page = 100
        self.traces: dict[str, list[dict[str, Any]]] = {}
        self.prompts: dict[str, list[dict[str, Any]]] = {}
        self.before_publish: Callable[[], None] = lambda: None  # somebody else, at the worst moment
        self._lock = threading.RLock()
        self._auth = "Basic " + base64.b64encode(f"{PUBLIC_KEY}:{secret_key}".encode()).decode()

    @property
    def environment(self) -> dict[str, str]:
        """The settings that name it."""
        return {
            "LANGFUSE_HOST": self.url,
            "LANGFUSE_PUBLIC_KEY": PUBLIC_KEY,
            "LANGFUSE_SECRET_KEY": self.secret_key,
            "DUNETRACE_ALLOW_PRIVATE_DESTINATIONS": "true",
        }

    def put(self, name: str, prompt: Any, *, labels: list[str] | None = None, **fields: Any) -> dict[str, Any]:
        """A new version of a prompt: its labels leave the earlier ones, `latest` always does."""
        with self._lock:
            versions = self.prompts.setdefault(name, [])
            labels = list(dict.fromkeys([*(labels or []), "latest"]))
            for earlier in versions:
                earlier["labels"] = [label for label in earlier["labels"] if label not in labels]
            made = {
                "id": f"{name}-{len(versions) + 1}", "name": name, "version": len(versions) + 1, "prompt": prompt,
                "type": "text" if isinstance(prompt, str) else "chat", "config": {}, "labels": labels, "tags": [],
                "commitMessage": None, "resolutionGraph": None, **fields,
            }  # fmt: skip
            versions.append(made)
            return made

    def production(self, name: str) -> dict[str, Any]:
        return next(one for one in self.prompts[name] if "production" in one["labels"])

    def answer(self, method: str, path: str, query: dict[str, str], request: Received) -> Reply:
        if request.headers.get("authorization") != self._auth:
            return 401, {"message": "Invalid credentials. Confirm that you've configured the correct host."}
        if path == "/api/public/projects":
            project = {"id": PROJECT, "name": "p", "organization": {"id": "o", "name": "o"}, "metadata": {}}
            return 200, {"data": [project]}
        if path == "/api/public/v2/observations" and not self.older:
            return self._observations(query)
        if path.startswith("/api/public/traces/") and self.older:
            return self._trace(path.removeprefix("/api/public/traces/"))
        if path.startswith("/api/public/v2/prompts/") and method == "GET":
            return self._prompt(path.removeprefix("/api/public/v2/prompts/"), query)
        if path == "/api/public/v2/prompts" and method == "POST":
            return self._publish(json.loads(request.body))
        return 404, {"message": "Not found"}

    def _observations(self, query: dict[str, str]) -> Reply:
        found = sorted(self.traces.get(query["traceId"], []), key=lambda one: str(one["startTime"]), reverse=True)
        groups = {"core", "basic", *query.get("fields", "").split(",")}
        left_out = {
            *(() if "io" in groups else ("input", "output")),
            *(() if "model" in groups else ("model",)),
            *(() if "prompt" in groups else ("promptId", "promptName", "promptVersion")),
        }
        start, size = int(query.get("cursor", "0")), min(int(query.get("limit", "50")), self.page)
        page = [
            # The v2 route gives inputs and outputs as text.
            {key: _as_text(key, value) for key, value in one.items() if key not in left_out}
            for one in found[start : start + size]
        ]
        meta = {"cursor": str(start + size)} if start + size < len(found) else {}
        return 200, {"data": page, "meta": meta}

    def _trace(self, trace_id: str) -> Reply:
        if trace_id not in self.traces:
            return 404, {"message": f"Trace {trace_id} not found within authorized project"}
        return 200, {
            "id": trace_id, "timestamp": _START.format(0), "name": "run", "input": None, "output": None, "tags": [],
            "public": False, "environment": "default", "htmlPath": f"/project/{PROJECT}/traces/{trace_id}",
            "latency": 1.0, "totalCost": 0.0, "scores": [], "observations": self.traces[trace_id],
        }  # fmt: skip

    def _prompt(self, name: str, query: dict[str, str]) -> Reply:
        with self._lock:
            if self.any_name and name not in self.prompts:
                self.put(name, "You answer questions.", labels=["production"])
            wanted = query.get("label", "production")
            for one in self.prompts.get(name, []):
                if str(one["version"]) == query.get("version") or ("version" not in query and wanted in one["labels"]):
                    return 200, json.loads(json.dumps(one))
        return 404, {"message": "Prompt not found", "error": "LangfuseNotFoundError"}

    def _publish(self, document: dict[str, Any]) -> Reply:
        shape = CreateChatPromptRequest if document.get("type") == "chat" else CreateTextPromptRequest
        shape.model_validate(document)
        assert "latest" not in document.get("labels", []), "Langfuse keeps that label for itself"
        with self._lock:
            interloper, self.before_publish = self.before_publish, lambda: None
            interloper()
            fields = {key: document[key] for key in ("config", "tags", "commitMessage") if key in document}
            return 201, self.put(document["name"], document["prompt"], labels=document.get("labels"), **fields)


def _as_text(key: str, value: Any) -> Any:
    return json.dumps(value) if key in ("input", "output") and not isinstance(value, str | None) else value
