"""The OpenAPI document of a table of routes. Served at /openapi.json, shown at /docs; made once, at start."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from dunetrace.serving.api import shapes
from dunetrace.serving.api.parameters import Choice, Text
from dunetrace.serving.api.route import Route

_REF = "#/components/schemas/{name}"
_IN_PATH = re.compile(r"\{(\w+)\}")


def document(routes: Sequence[Route], version: str) -> dict[str, Any]:
    """OpenAPI 3.1, naming every route, parameter, shape and refusal."""
    types: list[type[msgspec.Struct]] = [
        shapes.Health,
        shapes.Refusal,
        shapes.Invalid,
        *(route.answer for route in routes),
    ]
    types += [route.body for route in routes if route.body]
    references, components = msgspec.json.schema_components(types, ref_template=_REF)
    answers = dict(zip(types, references, strict=True))
    paths: dict[str, Any] = {"/health": {"get": _health(answers[shapes.Health])}}
    for route in routes:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route, answers)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Dunetrace",
            "version": version,
            "description": "What was seen of the agents' runs. Times are float Unix seconds. An id in a path is one "
            "percent-encoded segment: the agent a/b is a%2Fb.",
        },
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer", "description": "a key with scope read"}},
        },
    }


def _operation(route: Route, shown: Mapping[type[msgspec.Struct], dict[str, Any]]) -> dict[str, Any]:
    refused, choices = shown[shapes.Refusal], {one.name: one for one in route.choices}
    responses = {
        "200": _json(route.what, shown[route.answer]),
        "401": _json("Invalid or inactive API key", refused),
        "403": _json("The key lacks the scope, or in dev mode the request did not come from this machine", refused),
        "503": _json("The database is not reachable; Retry-After says when to ask again", refused),
    }
    if route.asks_others:
        responses["502"] = _json("Langfuse or the model failed; the detail says which and how", refused)
    if route.missing:
        responses["404"] = _json(route.missing, refused)
    if choices or route.body or any(not isinstance(one, Text) for one in route.parameters):
        responses["422"] = _json("A parameter or a field has a value it cannot have", shown[shapes.Invalid])
    if route.body:
        responses["413"] = _json("The body is over 1 MiB", refused)
        responses["415"] = _json("Content-Type is not application/json", refused)
    return {
        "operationId": route.handler.__name__,
        "summary": route.what,
        "security": [{"key": []}],
        "parameters": [
            *(
                {"name": name, "in": "path", "required": True, "schema": _of_path(choices.get(name))}
                for name in _IN_PATH.findall(route.path)
            ),
            *(
                {"name": one.name, "in": "query", "description": one.what, "schema": one.schema()}
                for one in route.parameters
            ),
        ],
        **({"requestBody": {"required": True} | _content(shown[route.body])} if route.body else {}),
        "responses": dict(sorted(responses.items())),
    }


def _of_path(choice: Choice | None) -> dict[str, Any]:
    return {"type": "string", "minLength": 1} if choice is None else choice.schema()


def _health(answer: dict[str, Any]) -> dict[str, Any]:
    return {
        "operationId": "health",
        "summary": "Whether this port can do its job; any other trouble is 200 with status degraded",
        "responses": {"200": _json("It can", answer), "503": _json("It cannot", answer)},
    }


def _json(what: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"description": what} | _content(schema)


def _content(schema: dict[str, Any]) -> dict[str, Any]:
    return {"content": {"application/json": {"schema": schema}}}
