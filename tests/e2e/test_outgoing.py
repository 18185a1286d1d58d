"""What leaves the server, and to whom: all of it is recorded, and held against the table in docs/privacy.md.

Each service that can be set up is a recording server here, and the server's own process is watched for whom it turns
to, so that nothing can leave for anywhere else.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import httpx

from tests import pagerduty, slack
from tests.docs.pages import table_rows
from tests.e2e import weekly
from tests.e2e.crashing import until
from tests.e2e.dialled import Dialled, address_of
from tests.e2e.support import AGENT, EASY, HARD, Support
from tests.harness.invariants import rows, settle
from tests.harness.server import Server
from tests.harness.world import execute
from tests.langfuse import PUBLIC_KEY, SECRET_KEY, Langfuse, observation
from tests.models import FIX, KEY, Model
from tests.receiver import Received, Receiver
from tests.shared import CHECKOUT

# The table's rows by whom they speak of, and what each of them allows: a service, and what it is asked or told.
ALLOWED: Mapping[str, set[tuple[str, str]]] = {
    "your webhook": {("webhook", "first"), ("webhook", "resolved")},
    "Slack": {("slack", "first"), ("slack", "update"), ("slack", "resolved")},
    "PagerDuty": {("pagerduty", "trigger"), ("pagerduty", "resolve")},
    "your webhook, Slack, PagerDuty": {("webhook", "fleet"), ("slack", "fleet"), ("pagerduty", "fleet")},
    "Slack, weekly": {("slack", "digest")},
    "your Langfuse": {
        ("langfuse", "GET /api/public/v2/observations"),
        ("langfuse", "GET /api/public/v2/prompts/support"),
        ("langfuse", "POST /api/public/v2/prompts"),
        ("langfuse", "GET /api/public/projects"),
    },
    "Anthropic or OpenAI": {("anthropic", "POST /v1/messages"), ("openai", "POST /v1/chat/completions")},
}
# All that a webhook is told: a key that is new here has to be in the table's words too.
WEBHOOK_KEYS = {
    "schema_version", "event", "sent_at", "failure_type", "severity", "confidence", "run_id", "agent_id",
    "agent_version", "step_index", "detected_at", "title", "what", "why_it_matters", "evidence_summary", "evidence",
    "suggested_fixes", "rate_context", "cost", "delivery_id", "kind", "reopened", "gathered_runs", "gathered_since",
    "issue",
}  # fmt: skip
OLD, TRACE, CONTENT = "You are PROMPT-d41d8cd9.", "TRACE-98f00b20", "CONTENT-4e980099"
HOOK_TOKEN, SLACK_TOKEN, HOOK_SECRET, API_KEY = "TOKEN-8ecf8427", "TOKEN-e0ab3f60", "SECRET-7b1fa09b", "APIKEY-c2b76d1e"
ALERTS = """
destinations:
  - {name: on-call, kind: pagerduty, url: "${PAGER_URL}", routing_key: "${PAGER_KEY}"}
"""
RUNS = 24  # of each of two versions: a rise takes 20
CLEAN_TO_RESOLVE = 5
DIGEST_CHARS = 12


class Sent(NamedTuple):
    """One request, to which service, and what it is to it."""

    to: str
    what: str
    request: Received


class World(NamedTuple):
    """Every service there can be, by the name it has here, and the settings that set all of them up."""

    services: dict[str, Receiver]
    langfuse: Langfuse
    env: dict[str, str]

    def everything_sent(self) -> list[Sent]:
        return [
            Sent(name, _WHAT.get(name, _asked)(request), request)
            for name, service in self.services.items()
            for request in service.requests
        ]

    def arrived(self, to: str, what: str) -> bool:
        return (to, what) in {(sent.to, sent.what) for sent in self.everything_sent()}


def _told_webhook(request: Received) -> str:
    document = request.document
    assert set(document) - {"fleet"} == WEBHOOK_KEYS
    return str(document["kind"])


def _told_slack(request: Received) -> str:
    text = slack.accept(request.body)["text"]
    starts = {
        "Dunetrace, the week": "digest",
        "Resolved: ": "resolved",
        "HIGH: Still": "update",
        "HIGH: Since": "fleet",
    }
    return next((what for start, what in starts.items() if text.startswith(start)), "first")


def _told_pagerduty(request: Received) -> str:
    event = pagerduty.accept(request.body)
    is_fleet = "fleet" in event.get("payload", {}).get("custom_details", {})
    return "fleet" if is_fleet else str(event["event_action"])


def _asked(request: Received) -> str:
    return request.path.partition("?")[0]


_WHAT = {"webhook": _told_webhook, "slack": _told_slack, "pagerduty": _told_pagerduty}


@contextmanager
def _world() -> Iterator[World]:
    langfuse, anthropic, openai = Langfuse(), Model("anthropic"), Model("openai")
    services: dict[str, Receiver] = {
        "webhook": Receiver(), "slack": Receiver(slack=True), "pagerduty": Receiver(pagerduty=True),
        "langfuse": langfuse, "anthropic": anthropic, "openai": openai,
    }  # fmt: skip
    env = {
        **langfuse.environment, **openai.environment, **anthropic.environment, **weekly.due_now(),
        "WEBHOOK_URL": f"{services['webhook'].url}/{HOOK_TOKEN}", "WEBHOOK_SECRET": HOOK_SECRET,
        "SLACK_WEBHOOK_URL": f"{services['slack'].url}/{SLACK_TOKEN}",
        "PAGER_URL": services["pagerduty"].url, "PAGER_KEY": pagerduty.ROUTING_KEY,
        "DUNETRACE_ALERT_WINDOW": "2",
    }  # fmt: skip
    with ExitStack() as stack:
        for service in services.values():
            stack.enter_context(service)
        yield World(services, langfuse, env)


async def test_what_leaves_is_what_the_privacy_page_says(tmp_path: Path, database: str) -> None:
    dialled = Dialled(tmp_path)
    (tmp_path / "alerts.yml").write_text(ALERTS)
    with _world() as world:
        world.langfuse.put("support", OLD, labels=["production"])
        with Server(tmp_path, database_url=database, env={**world.env, **dialled.environment}) as server:
            await _an_agent_gets_worse_and_better(server)
            assert {sent.to for sent in world.everything_sent()} == {"webhook", "slack", "pagerduty"}
            await _a_fix_is_asked_for(server, world, "anthropic")
            await _a_rise_and_a_week_are_told(server, world)
            await _a_fix_is_asked_for(server, world, "openai")
            server.terminate()
        sent = world.everything_sent()
        reachable = {address_of(database), *(address_of(service.url) for service in world.services.values())}
    table = [row[0] for row in table_rows(CHECKOUT / "docs" / "privacy.md")[1:] if not row[0].startswith("-")]
    assert table == list(ALLOWED)
    assert {(each.to, each.what) for each in sent} == set.union(*ALLOWED.values())
    assert dialled.addresses == reachable
    assert dialled.names <= {"127.0.0.1", "localhost"}
    assert dialled.programs == set()
    _assert_that_nothing_else_is_in_it(database, sent)


async def test_a_server_that_is_told_of_nobody_turns_to_nobody(tmp_path: Path, database: str) -> None:
    dialled = Dialled(tmp_path)
    with Server(tmp_path, database_url=database, env=dialled.environment) as server:
        await _an_agent_gets_worse_and_better(server)
        path = f"{server.api_url}/v1/signals/{_signal(database)['id']}/explain"
        assert httpx.post(path, json={}, trust_env=False).status_code == 503
        server.terminate()
    assert dialled.addresses == {address_of(database)}
    assert dialled.programs == set()


async def test_what_is_switched_off_is_told_to_nobody(tmp_path: Path, database: str) -> None:
    off = {"DIGEST_ENABLED": "false", "DUNETRACE_FLEET_ALERTS": "false"}
    with _world() as world, Server(tmp_path, database_url=database, env={**world.env, **off}) as server:
        await _an_agent_gets_worse_and_better(server)
        weekly.owe(database)
        server.restart()
        with Support(server.ingest_url, lambda: OLD) as agent:
            agent.answer(HARD)
        await settle(database, server=server)
        assert rows(database, "SELECT FROM fleet_signals") == rows(database, "SELECT FROM digest_log") == []
        assert {(sent.to, sent.what) for sent in world.everything_sent()} == ALLOWED["your webhook"] | ALLOWED["Slack"]


async def _an_agent_gets_worse_and_better(server: Server) -> None:
    """Runs of three versions, the first of them a day ago: none loops, each loops, none loops."""
    prompt = [OLD]
    with Support(server.ingest_url, lambda: prompt[-1], api_key=API_KEY) as agent:
        for n in range(RUNS):
            agent.answer(f"{EASY} {CONTENT} {n}")
        await settle(server.database_url, server=server)
        execute(
            server.database_url,
            "UPDATE runs SET processed_at = processed_at - interval '1 day'",
            "UPDATE agent_hours SET hour = hour - interval '1 day'",
        )
        prompt.append(f"{OLD} Look it up.")
        for n in range(RUNS):
            agent.answer(f"{HARD} {CONTENT} {n}")
        await settle(server.database_url, server=server)
        prompt.append(f"{OLD}\n\n{FIX}")
        for n in range(CLEAN_TO_RESOLVE):
            agent.answer(f"{HARD} {CONTENT} {n}")
        await settle(server.database_url, server=server)


async def _a_fix_is_asked_for(server: Server, world: World, model: str) -> None:
    signal = _signal(server.database_url)
    world.langfuse.traces[signal["run_id"].replace("-", "")] = [
        observation("answer", input=TRACE, output=TRACE, prompt=("support", 1))
    ]
    assert world.services[model].requests == []  # nobody asked so far
    with httpx.Client(base_url=f"{server.api_url}/v1/signals/{signal['id']}/", timeout=20, trust_env=False) as api:
        explained = api.post("explain", json={}).raise_for_status().json()
        assert (explained["source"], explained["fix_content"]) == ("langfuse", FIX)
        fix = {"fix_content": FIX, "langfuse_prompt_name": explained["langfuse_prompt_name"]}
        assert api.post("apply-fix", json=fix).raise_for_status().json()["new_version"] == 2


async def _a_rise_and_a_week_are_told(server: Server, world: World) -> None:
    """At the next start, from which on the other model is the one that is set up."""
    weekly.owe(server.database_url)
    del server.env["ANTHROPIC_API_KEY"]
    server.restart()
    for to, what in ALLOWED["your webhook, Slack, PagerDuty"] | ALLOWED["Slack, weekly"]:
        await until(partial(world.arrived, to, what))
    (digest,) = (sent for sent in world.everything_sent() if sent.what == "digest")
    assert AGENT in " ".join(slack.texts(slack.accept(digest.request.body)))


def _signal(database: str) -> Any:
    return rows(database, "SELECT id, run_id FROM failure_signals ORDER BY id")[0]


def _assert_that_nothing_else_is_in_it(database: str, sent: list[Sent]) -> None:
    """No digest, no content and no secret, but where the table says so, or where it has to be for who it is for."""
    pair = base64.b64encode(f"{PUBLIC_KEY}:{SECRET_KEY}".encode()).decode()
    may_hold = {
        HOOK_TOKEN: {("webhook", "path")}, SLACK_TOKEN: {("slack", "path")},
        pagerduty.ROUTING_KEY: {("pagerduty", "body")},
        pair: {("langfuse", "headers")}, KEY: {("anthropic", "headers"), ("openai", "headers")},
        OLD: {("langfuse", "body")}, FIX: {("langfuse", "body")}, TRACE: {("anthropic", "body"), ("openai", "body")},
        **{text: set() for text in (HOOK_SECRET, SECRET_KEY, API_KEY, CONTENT, *_digests(database))},
    }  # fmt: skip
    found: dict[str, set[tuple[str, str]]] = {text: set() for text in may_hold}
    for each in sent:
        request = each.request
        parts = {"path": request.path, "headers": json.dumps(request.headers), "body": request.body.decode()}
        for part, content in parts.items():
            for text in may_hold:
                if text in content:
                    found[text].add((each.to, part))
    assert {text: places for text, places in found.items() if places != may_hold[text]} == {}


def _digests(database: str) -> set[str]:
    """The beginnings of all digests there are: a part of one would be enough to look a text up."""
    payloads = [json.loads(row["payload"]) for row in rows(database, "SELECT payload FROM events")]
    digests = {
        str(value)[:DIGEST_CHARS]
        for payload in payloads
        for name, value in payload.items()
        if name.endswith("_hash") and value
    }
    assert len(digests) > RUNS
    return digests
