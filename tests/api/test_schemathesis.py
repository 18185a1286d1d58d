"""The API says what it does: requests made from its own /openapi.json, sent to a server that holds real runs.

Whatever is asked, no answer is a 5xx, each has a status that the document names, and each body has the shape it names.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest
import schemathesis
import trio
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis import checks
from schemathesis.generation import GenerationMode

from dunetrace.serving.api.routes import ROUTES
from dunetrace.verdicts import fix_type
from tests.harness.invariants import settle
from tests.harness.server import Server
from tests.harness.shapes import run_events
from tests.langfuse import Langfuse
from tests.models import Model

OPERATIONS = [(route.method, route.path) for route in ROUTES] + [("GET", "/health")]
CHECKS = [
    checks.not_a_server_error,
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_schema_conformance,
]
MODES = (GenerationMode.POSITIVE, GenerationMode.NEGATIVE)


class Served(NamedTuple):
    """A running server: its document, and ids of what is in it, by the names of path parameters."""

    schema: Any
    ids: dict[str, str]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, postgres: Any) -> Iterator[Served]:
    database = postgres.database()
    rng = random.Random(7)
    with ExitStack() as stack:
        services = [stack.enter_context(one) for one in (Langfuse(any_name=True), Model())]
        environment = {name: value for one in services for name, value in one.environment.items()}
        directory = Path(tmp_path_factory.mktemp("server"))
        server = stack.enter_context(Server(directory, database_url=database, env=environment))
        now = time.time()
        events = [event for n in range(40) for event in run_events(rng, "shop", now - 60 + n)]
        with httpx.Client(base_url=server.ingest_url, trust_env=False) as client:
            client.post("/v1/ingest", json={"agent_id": "shop", "events": events}).raise_for_status()
            client.post("/v1/deploy", json={"agent_id": "shop", "version": "v2"}).raise_for_status()
        trio.run(partial(settle, database, server=server))
        with httpx.Client(base_url=server.api_url, trust_env=False) as client:
            found = client.get("/v1/agents/shop/signals").json()["signals"]
            signal = next(one for one in found if fix_type(one["failure_type"]) == "prompt_addition")
            (issue, *_) = client.get("/v1/agents/shop/issues").json()["issues"]
        ids = {
            "agent_id": "shop", "run_id": signal["run_id"], "signal_id": str(signal["id"]),
            "issue_id": str(issue["id"]), "failure_type": signal["failure_type"],
        }  # fmt: skip
        schema = schemathesis.openapi.from_url(f"{server.api_url}/openapi.json")
        yield Served(schema, ids)


def explore(served: Served, method: str, path: str, examples: int) -> None:
    """Requests as the document allows and as it does not; half of those it allows name what the server has."""
    operation = served.schema[path][method]
    cases = st.one_of([operation.as_strategy(generation_mode=mode) for mode in MODES])
    statuses: set[int] = set()

    @settings(
        max_examples=examples, deadline=None, database=None, derandomize=True,
        phases=[Phase.explicit, Phase.generate], suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(case=cases, known=st.booleans())
    def ask(case: Any, known: bool) -> None:
        if known and case.meta.generation.mode is GenerationMode.POSITIVE:
            case.path_parameters = {name: served.ids[name] for name in case.path_parameters or ()}
        response = case.call()
        statuses.add(response.status_code)
        case.validate_response(response, checks=CHECKS)

    ask()
    assert 200 in statuses, statuses  # else it was only ever refused


@pytest.mark.parametrize(("method", "path"), OPERATIONS)
def test_each_operation_does_what_the_document_says(served: Served, method: str, path: str) -> None:
    explore(served, method, path, 25)


@pytest.mark.prove
@pytest.mark.parametrize(("method", "path"), OPERATIONS)
def test_and_after_a_long_search_too(served: Served, method: str, path: str) -> None:
    explore(served, method, path, 600)
