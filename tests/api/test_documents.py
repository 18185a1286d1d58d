"""The OpenAPI document and the page made from it: complete, closed in itself, and loading nothing."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from typing import Any

import httpx

from dunetrace.serving.api.routes import ROUTES
from dunetrace.signals import FailureType, Severity


def references(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        if "$ref" in value:
            yield value["$ref"]
        for one in value.values():
            yield from references(one)
    elif isinstance(value, list):
        for one in value:
            yield from references(one)


async def test_it_names_every_route_parameter_and_refusal(api: httpx.AsyncClient) -> None:
    found = (await api.get("/openapi.json")).json()
    assert found["openapi"] == "3.1.0"
    assert found["info"]["version"] == "1"
    assert set(found["paths"]) == {route.path for route in ROUTES} | {"/health"}
    for route in ROUTES:
        operation = found["paths"][route.path][route.method.lower()]
        assert operation["security"] == [{"key": []}]
        in_path = {one["name"] for one in operation["parameters"] if one["in"] == "path"}
        assert in_path == set(re.findall(r"\{(\w+)\}", route.path))
        in_query = {one["name"] for one in operation["parameters"] if one["in"] == "query"}
        assert in_query == {one.name for one in route.parameters}
        expected = {"200", "401", "403", "503"}
        expected |= {"422"} if in_query - {"agent_id", "q"} or route.body or "{failure_type}" in route.path else set()
        expected |= {"404"} if {"run_id", "issue_id", "signal_id"} & in_path else set()
        expected |= {"413", "415"} if route.body else set()
        expected |= {"502"} if route.asks_others else set()
        assert ("requestBody" in operation) is (route.method == "POST")
        assert set(operation["responses"]) == expected
    parameters = {
        one["name"]: one["schema"] for one in found["paths"]["/v1/agents/{agent_id}/signals"]["get"]["parameters"]
    }
    assert parameters["limit"] == {"type": "integer", "minimum": 1, "maximum": 500, "default": 50}
    assert parameters["severity"]["enum"] == list(Severity)
    assert parameters["failure_type"]["enum"] == list(FailureType)
    assert parameters["explain"] == {"type": "boolean", "default": True}


async def test_it_is_closed_in_itself(api: httpx.AsyncClient) -> None:
    found = (await api.get("/openapi.json")).json()
    schemas = found["components"]["schemas"]
    used = {reference.removeprefix("#/components/schemas/") for reference in references(found)}
    assert used == set(schemas)
    operations = [operation["operationId"] for path in found["paths"].values() for operation in path.values()]
    assert len(operations) == len(set(operations))
    assert "title" not in schemas["Signal"]["required"]  # explain=false leaves it out
    assert "confidence" in schemas["Signal"]["required"]
    assert {"signals", "run_id", "events_truncated"} <= set(schemas["Run"]["required"])
    assert "events" not in schemas["Run"]["required"]  # events=false leaves it out
    assert schemas["CopiedFix"]["required"] == ["fix_content"]


class Reader(HTMLParser):
    """What a page would load or run, where its links lead, and what it says."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.links: list[str] = []
        self.anchors: set[str] = set()
        self.style = self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        given = dict(attrs)
        assert not {"src", "style", "onclick", "onload"} & set(given)
        self.links += [given["href"] or ""] if "href" in given else []
        self.anchors |= {given["id"] or ""} if "id" in given else set()

    def handle_data(self, data: str) -> None:
        if self.lasttag == "style":
            self.style += data
        else:
            self.text += data


async def test_the_page_shows_all_of_it_and_loads_nothing(api: httpx.AsyncClient) -> None:
    answer = await api.get("/docs")
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    page = Reader()
    page.feed(answer.text)
    assert not {"script", "link", "img", "iframe", "form"} & page.tags
    assert all(link == "openapi.json" or link[1:] in page.anchors for link in page.links)
    style_hash = base64.b64encode(hashlib.sha256(page.style.encode()).digest()).decode()
    assert f"style-src 'sha256-{style_hash}'" in answer.headers["content-security-policy"]
    for route in ROUTES:
        assert route.path in page.text
        assert route.what in page.text
        for one in route.parameters:
            assert one.what in page.text
    for name in (await api.get("/openapi.json")).json()["components"]["schemas"]:
        assert f"shape-{name}" in page.anchors
