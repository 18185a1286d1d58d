"""The readable form of the OpenAPI document, at /docs: one HTML page without a script and with nothing to load."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable
from html import escape
from typing import Any

STYLE = """
:root { color-scheme: light dark; --line: color-mix(in srgb, currentColor 18%, transparent); }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1.25rem; }
h1 { font-size: 1.5rem; } h2 { font: 600 1.05rem/1.4 ui-monospace, monospace; margin: 2.5rem 0 .25rem; }
h2 b { color: #a35b12; font-weight: 600; } h3 { font-size: .95rem; margin: 1.25rem 0 .25rem; }
table { border-collapse: collapse; width: 100%; } td { border-top: 1px solid var(--line); padding: .3rem .75rem .3rem 0;
vertical-align: top; } td:first-child { width: 14rem; } code, td:first-child { font-family: ui-monospace, monospace;
font-size: .9em; overflow-wrap: anywhere; } nav a { display: block; font-family: ui-monospace, monospace; }
"""
_HASH = base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()
POLICY = f"default-src 'none'; style-src 'sha256-{_HASH}'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"


def render(document: dict[str, Any]) -> str:
    """The page of an OpenAPI document as `openapi.document` makes it."""
    info = document["info"]
    operations = [
        (method.upper(), path, operation)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    ]
    title = f"{escape(info['title'])} API {escape(info['version'])}"
    parts = [
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>',
        f'<meta name="viewport" content="width=device-width"><style>{STYLE}</style></head><body>',
        f"<h1>{title}</h1><p>{escape(info['description'])} ",
        'The same for programs: <a href="openapi.json">openapi.json</a>.</p><nav>',
        *(f'<a href="#{_anchor(o)}">{escape(method)} {escape(path)}</a>' for method, path, o in operations),
        "</nav>",
        *(_operation(method, path, operation) for method, path, operation in operations),
        "<h1>Shapes</h1>",
        *(_shape(name, schema) for name, schema in document["components"]["schemas"].items()),
        "</body></html>",
    ]
    return "\n".join(parts)


def _anchor(operation: dict[str, Any]) -> str:
    return escape(operation["operationId"])


def _operation(method: str, path: str, operation: dict[str, Any]) -> str:
    parameters = [
        (one["name"], f"{_type(one['schema'])}{_default(one['schema'])} — {escape(one.get('description', one['in']))}")
        for one in operation.get("parameters", ())
    ]
    answers = [
        (status, f"{_type(answer['content']['application/json']['schema'])} — {escape(answer['description'])}")
        for status, answer in operation["responses"].items()
    ]
    return (
        f'<section id="{_anchor(operation)}"><h2><b>{escape(method)}</b> {escape(path)}</h2>'
        f"<p>{escape(operation['summary'])}</p>"
        + (f"<h3>Parameters</h3>{_table(parameters)}" if parameters else "")
        + f"<h3>Answers</h3>{_table(answers)}</section>"
    )


def _shape(name: str, schema: dict[str, Any]) -> str:
    required = schema.get("required", ())
    fields = [
        (
            field,
            _type(one)
            + ("" if field in required else ", may be missing")
            + (f" — {escape(one['description'])}" if "description" in one else ""),
        )
        for field, one in schema["properties"].items()
    ]
    return f'<section id="shape-{escape(name)}"><h2>{escape(name)}</h2>{_table(fields)}</section>'


def _table(rows: Iterable[tuple[str, str]]) -> str:
    """Rows of a name, escaped here, and of HTML."""
    return "<table>" + "".join(f"<tr><td>{escape(name)}</td><td>{html}</td></tr>" for name, html in rows) + "</table>"


def _default(schema: dict[str, Any]) -> str:
    return f", default <code>{escape(str(schema['default']).lower())}</code>" if "default" in schema else ""


def _type(schema: dict[str, Any]) -> str:
    """A schema in a few words of HTML."""
    if "$ref" in schema:
        name = escape(schema["$ref"].rsplit("/", 1)[-1])
        return f'<a href="#shape-{name}">{name}</a>'
    if "anyOf" in schema:
        return " or ".join(_type(one) for one in schema["anyOf"])
    if "enum" in schema:
        return "one of " + ", ".join(f"<code>{escape(str(one))}</code>" for one in schema["enum"])
    if schema.get("type") == "array":
        return f"list of {_type(schema['items'])}"
    if isinstance(schema.get("additionalProperties"), dict) and schema["additionalProperties"]:
        return f"object of {_type(schema['additionalProperties'])}"
    words = escape(str(schema.get("type", "any")))
    if "minimum" in schema:
        words += f" {schema['minimum']}…{schema['maximum']}"
    return words
