"""Explaining a signal and applying its fix, against real servers that play Langfuse and the models."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import structlog
import trio

from dunetrace.config import load
from dunetrace.fixes import applying, desk, models
from dunetrace.fixes import langfuse as langfuse_module
from dunetrace.fixes.desk import open_desk
from dunetrace.outgoing import client as client_module
from dunetrace.serving.api.app import FIXES_AT_ONCE
from dunetrace.store.gateway import Gateway
from tests.api.conftest import make_api, serving
from tests.api.rows import Rows
from tests.api.test_app import bearer
from tests.api.test_routes import get
from tests.langfuse import SECRET_KEY, Langfuse, observation
from tests.models import FIX, KEY, ROOT_CAUSE, Model
from tests.receiver import Mode

Client = httpx.AsyncClient
RUN = "6f0c7d0a-3a55-4d7f-9a70-0d6f2f0f8d11"
TRACE = RUN.replace("-", "")
SYSTEM = {"role": "system", "content": "You answer questions."}


@pytest.fixture
def langfuse() -> Iterator[Langfuse]:
    with Langfuse() as running:
        running.retry_after = "0"
        running.traces[TRACE] = [
            observation("plan", input=[{"role": "user", "content": "find it"}], prompt=("support/answers", 3)),
            observation("search", at=1, kind="TOOL", output={"found": 0}),
            observation("again", at=2, kind="TOOL", output="nothing"),
        ]
        fields = {"labels": ["production", "eu"], "tags": ["t"], "config": {"a": 1}}
        running.put("support/answers", "You answer questions.", **fields)
        yield running


@pytest.fixture
def model() -> Iterator[Model]:
    with Model() as running:
        running.retry_after = "0"
        yield running


@pytest.fixture
def services(model: Model, langfuse: Langfuse) -> dict[str, Any]:
    """By the names they are called in answers; the one asked last comes first."""
    return {"Anthropic": model, "Langfuse": langfuse}


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "TRY_BASE_S", 0.01)


@asynccontextmanager
async def api_with(gateway: Gateway, tmp_path: Path, *services: Any, **options: Any) -> AsyncIterator[Client]:
    """A client of the API with the services' settings."""
    environment = {name: value for one in services for name, value in one.environment.items()}
    async with open_desk(load({**environment, **options.pop("env", {})}, tmp_path)) as opened:
        async with serving(make_api(gateway, desk=opened, **options)) as client:
            yield client


@pytest.fixture
async def fixing(gateway: Gateway, tmp_path: Path, langfuse: Langfuse, model: Model) -> AsyncIterator[Client]:
    async with api_with(gateway, tmp_path, langfuse, model) as client:
        yield client


async def explain(api: Client, signal: Any, body: Any = None, **kw: Any) -> httpx.Response:
    return await api.post(f"/v1/signals/{signal}/explain", json=body or {}, timeout=20, **kw)


async def apply(
    api: Client, signal: Any, content: str = FIX, name: str = "support/answers", **kw: Any
) -> httpx.Response:
    body = {"fix_content": content, "langfuse_prompt_name": name}
    return await api.post(f"/v1/signals/{signal}/apply-fix", json=body, timeout=20, **kw)


# -- explain


@pytest.mark.parametrize("provider", ["anthropic", "openai"])
async def test_a_signal_is_explained(
    gateway: Gateway, tmp_path: Path, rows: Rows, langfuse: Langfuse, provider: Any
) -> None:
    signal = await rows.signal(RUN)
    with Model(provider) as model:
        async with api_with(gateway, tmp_path, langfuse, model) as api:
            answer = await explain(api, signal)
        ((system, user),) = model.questions
        document = model.requests[0].document
    assert answer.json() == {
        "signal_id": signal, "source": "langfuse", "root_cause": ROOT_CAUSE, "fix_content": FIX,
        "fix_type": "prompt_addition", "apply_blocked": False, "langfuse_prompt_name": "support/answers",
        "langfuse_prompt_version": 3,
    }  # fmt: skip
    assert document["model"] == {"anthropic": "claude-sonnet-5-5", "openai": "gpt-6.1-terra"}[provider]
    assert "TOOL_LOOP" in system
    assert user.index("find it") < user.index('{"found": 0}') < user.index("nothing")


@pytest.mark.parametrize(
    ("failure_type", "fix_type"),
    [("PROMPT_INJECTION_SIGNAL", "no_auto_apply"), ("SLOW_STEP", "code_change"), ("RETRY_STORM", "prompt_addition")],
)
async def test_what_the_fix_is_is_not_the_models_word(
    fixing: Client, rows: Rows, model: Model, failure_type: str, fix_type: str
) -> None:
    claimed = {"fix_type": "prompt_addition", "apply_blocked": False}
    model.says = [json.dumps({"root_cause": "x", "fix_content": "y", **claimed})]
    found = (await explain(fixing, await rows.signal(RUN, failure_type=failure_type))).json()
    assert (found["fix_type"], found["apply_blocked"]) == (fix_type, fix_type != "prompt_addition")


async def test_without_a_trace_the_signal_is_all(fixing: Client, rows: Rows, model: Model) -> None:
    found = (await explain(fixing, await rows.signal("elsewhere"))).json()
    assert (found["source"], found["langfuse_prompt_name"]) == ("signal_only", None)
    assert "only the signal is known" in model.questions[0][1]


async def test_a_trace_can_be_named(fixing: Client, rows: Rows, langfuse: Langfuse) -> None:
    langfuse.traces["the other/one"] = langfuse.traces[TRACE]
    found = (await explain(fixing, await rows.signal("elsewhere"), {"langfuse_trace_id": "the other/one"})).json()
    assert found["source"] == "langfuse"


async def test_an_older_langfuse_is_asked_by_its_route(fixing: Client, rows: Rows, langfuse: Langfuse) -> None:
    langfuse.older = True
    found = (await explain(fixing, await rows.signal(RUN))).json()
    assert (found["source"], found["langfuse_prompt_version"]) == ("langfuse", 3)
    assert (await explain(fixing, await rows.signal("elsewhere"))).json()["source"] == "signal_only"
    assert langfuse.calls[:2] == ["GET /api/public/v2/observations", f"GET /api/public/traces/{TRACE}"]


async def test_a_long_trace_is_read_page_by_page(
    fixing: Client, rows: Rows, langfuse: Langfuse, model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    langfuse.page = 2
    await explain(fixing, await rows.signal(RUN))
    assert len(langfuse.calls) == 2
    monkeypatch.setattr(langfuse_module, "MAX_PAGES", 1)
    await explain(fixing, await rows.signal("r2"), {"langfuse_trace_id": TRACE})
    assert "earlier steps were left out" in model.questions[1][1]
    assert "nothing" in model.questions[1][1]


async def test_an_answer_that_cannot_be_used_is_asked_for_once_more(fixing: Client, rows: Rows, model: Model) -> None:
    signal = await rows.signal(RUN)
    model.says.insert(0, "Sure! Here is")
    assert (await explain(fixing, signal)).json()["root_cause"] == ROOT_CAUSE
    assert "it was not JSON" in model.questions[1][1]
    for bad, fault in (
        ("", "it was empty"),
        ('{"root_cause": "x"}', "Object missing required field"),
        ('{"root_cause": "", "fix_content": "x"}', "length >= 1"),
        ('{"root_cause": " ", "fix_content": "x"}', "blank"),
        (json.dumps({"root_cause": "x", "fix_content": "y" * 20_001}), "length <= 20000"),
        ('{"x": ' + "[" * 10_000, "not JSON"),
    ):
        model.says = [bad]
        answer = await explain(fixing, signal)
        assert (answer.status_code, fault in answer.json()["detail"]) == (502, True), (bad[:20], answer.json())
    model.says, model.end = ["{}"], "max_tokens"
    assert "longer than it may be" in (await explain(fixing, signal)).json()["detail"]


@pytest.mark.parametrize(
    "case",
    [
        (Mode.ERROR, "answered 500"),
        (Mode.RATE_LIMITED, "answered 429"),
        (Mode.FORBIDDEN, "answered 403; check"),
        (Mode.GONE, "answered 410"),
        (Mode.REDIRECT, "answered 302"),
        (Mode.RESET, "broke off the connection"),
        (Mode.GARBAGE, "broke off the connection"),
        (Mode.HANG, "did not answer within 0.3 seconds"),
        (Mode.STUCK_BODY, "did not answer within 0.3 seconds"),
        (Mode.HUGE_BODY, "sent more than"),
    ],
)
async def test_a_service_that_fails_is_named(
    fixing: Client, rows: Rows, services: dict[str, Any], monkeypatch: pytest.MonkeyPatch, case: tuple[Mode, str]
) -> None:
    mode, detail = case
    if mode in (Mode.HANG, Mode.STUCK_BODY):
        monkeypatch.setattr(langfuse_module, "LANGFUSE_TIMEOUT_S", 0.3)
        monkeypatch.setattr(models, "MODEL_TIMEOUT_S", 0.3)
    signal = await rows.signal(RUN)
    for name, service in services.items():
        service.mode = mode
        answer = await explain(fixing, signal)
        assert (answer.status_code, answer.json()["detail"].startswith(name)) == (502, True)
        assert detail in answer.json()["detail"]


async def test_a_broken_body_is_not_read(fixing: Client, rows: Rows, langfuse: Langfuse, model: Model) -> None:
    signal = await rows.signal(RUN)
    for service in (model, langfuse):
        service.broken = True
        answer = await explain(fixing, signal)
        assert (answer.status_code, "not what it should be" in answer.json()["detail"]) == (502, True)


async def test_what_passes_by_itself_is_sat_out(fixing: Client, rows: Rows, langfuse: Langfuse, model: Model) -> None:
    langfuse.script(Mode.UNAVAILABLE, Mode.RESET)
    model.script(Mode.RATE_LIMITED, Mode.ERROR)
    assert (await explain(fixing, await rows.signal(RUN))).status_code == 200


async def test_the_whole_has_an_end(fixing: Client, rows: Rows, model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(desk, "EXPLAIN_TIMEOUT_S", 0.3)
    model.mode = Mode.HANG
    answer = await explain(fixing, await rows.signal(RUN))
    assert (answer.status_code, "took over 0.3 seconds" in answer.json()["detail"]) == (502, True)


async def test_what_is_missing_is_named(
    api: Client, gateway: Gateway, tmp_path: Path, rows: Rows, services: dict[str, Any]
) -> None:
    model, langfuse = services.values()
    signal = await rows.signal(RUN)
    answer = await explain(api, signal)
    assert (answer.status_code, answer.json()["detail"]) == (
        503,
        "Not set up on this server: LANGFUSE_HOST, LANGFUSE_PUBLIC_KEY, LANGFUSE_SECRET_KEY, ANTHROPIC_API_KEY or "
        "OPENAI_API_KEY",
    )
    assert "LANGFUSE_SECRET_KEY" in (await apply(api, signal)).json()["detail"]
    async with api_with(gateway, tmp_path, langfuse, env={"LANGFUSE_PUBLIC_KEY": ""}) as some:
        assert (await apply(some, signal)).json()["detail"] == "Not set up on this server: LANGFUSE_PUBLIC_KEY"
    async with api_with(gateway, tmp_path, langfuse) as some:
        assert (await explain(some, signal)).json()["detail"].endswith("ANTHROPIC_API_KEY or OPENAI_API_KEY")
    async with api_with(
        gateway, tmp_path, langfuse, model, env={"DUNETRACE_ALLOW_PRIVATE_DESTINATIONS": "false"}
    ) as some:
        answer = await explain(some, signal)
        assert (answer.status_code, "DUNETRACE_ALLOW_PRIVATE_DESTINATIONS" in answer.json()["detail"]) == (502, True)
    assert langfuse.requests == []


async def test_few_at_once_and_reads_go_on(
    fixing: Client, rows: Rows, model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    signal = await rows.signal(RUN)
    model.mode = Mode.HANG
    async with trio.open_nursery() as nursery:
        for _ in range(FIXES_AT_ONCE):
            nursery.start_soon(explain, fixing, signal)
        await trio.to_thread.run_sync(model.wait_for, FIXES_AT_ONCE)
        answer = await explain(fixing, signal)
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
        await get(fixing, "/v1/agents")
        nursery.cancel_scope.cancel()


# -- apply-fix


async def test_a_fix_becomes_the_next_version(fixing: Client, rows: Rows, langfuse: Langfuse) -> None:
    signal = await rows.signal(RUN)
    answer = await apply(fixing, signal, f"  {FIX}\n")
    fixed = f"You answer questions.\n\n{FIX}"
    assert answer.json() == {
        "fix_id": 1, "signal_id": signal, "new_version": 2, "old_text": "You answer questions.", "new_text": fixed,
        "prompt_url": f"{langfuse.url}/project/project-1/prompts/support%2Fanswers?version=2",
    }  # fmt: skip
    made = langfuse.production("support/answers")
    assert (made["version"], made["prompt"], made["config"], made["tags"]) == (2, fixed, {"a": 1}, ["t"])
    assert set(made["labels"]) == {"production", "eu", "latest"}
    assert made["commitMessage"] == f"Fix for Dunetrace signal {signal}"
    kept = await rows.row("SELECT * FROM fixes")
    assert (kept["applied_via"], kept["langfuse_prompt_name"], kept["langfuse_version"], kept["fix_content"]) == (
        "langfuse", "support/answers", 2, FIX,
    )  # fmt: skip
    status = await get(fixing, f"/v1/signals/{signal}/fix-status")
    assert (status["applied_via"], status["langfuse_version"], status["verdict"]) == (
        "langfuse",
        2,
        "insufficient_data",
    )
    assert status["fixes"][0]["langfuse_prompt_name"] == "support/answers"
    assert await rows.value("SELECT count(*) FROM prompt_claims") == 0


async def test_a_chat_prompt_keeps_its_form(fixing: Client, rows: Rows, langfuse: Langfuse) -> None:
    history = {"type": "placeholder", "name": "history"}
    langfuse.put("chat", [SYSTEM, history])
    found = (await apply(fixing, await rows.signal(RUN), name="chat")).json()
    assert (found["old_text"], found["new_text"]) == (SYSTEM["content"], f"{SYSTEM['content']}\n\n{FIX}")
    made = langfuse.prompts["chat"][-1]
    assert (made["type"], made["prompt"]) == ("chat", [{**SYSTEM, "content": found["new_text"]}, history])
    assert made["labels"] == ["latest"]  # there was no production version, so none is made


async def test_a_double_click_is_one_version(
    fixing: Client, gateway: Gateway, tmp_path: Path, rows: Rows, services: dict[str, Any]
) -> None:
    model, langfuse = services.values()
    signal = await rows.signal(RUN)
    found: list[Any] = []

    async def click(api: Client) -> None:
        found.append((await apply(api, signal)).json())

    async with api_with(gateway, tmp_path, langfuse, model) as another:  # process
        async with trio.open_nursery() as nursery:
            for api in (fixing, another) * 3:
                nursery.start_soon(click, api)
    assert found == [found[0]] * 6
    assert len(langfuse.prompts["support/answers"]) == 2
    assert await rows.value("SELECT count(*) FROM fixes") == 1


async def test_two_fixes_of_one_prompt_are_both_in_it(fixing: Client, rows: Rows, langfuse: Langfuse) -> None:
    first, second = await rows.signal(RUN), await rows.signal(RUN, failure_type="RETRY_STORM")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(apply, fixing, first, "One thing.")
        nursery.start_soon(apply, fixing, second, "Another thing.")
    text = langfuse.production("support/answers")["prompt"]
    assert ("One thing." in text, "Another thing." in text) == (True, True)
    again = (await apply(fixing, first, "One thing.")).json()
    known = await rows.value(f"SELECT id FROM fixes WHERE signal_id = {first}")
    assert (again["new_version"], again["fix_id"]) == (3, known)
    assert "One thing." not in again["old_text"]


async def test_a_lost_answer_is_made_good(fixing: Client, rows: Rows, langfuse: Langfuse) -> None:
    signal = await rows.signal(RUN)
    real = langfuse.answer

    def lost(method: str, path: str, query: Any, request: Any) -> Any:
        status, document = real(method, path, query, request)
        return (500, {}) if method == "POST" else (status, document)

    langfuse.answer = lost  # type: ignore[method-assign]
    answer = await apply(fixing, signal)
    assert (answer.status_code, langfuse.calls.count("POST /api/public/v2/prompts")) == (502, 1)
    langfuse.answer = real  # type: ignore[method-assign]
    found = (await apply(fixing, signal)).json()
    assert (found["new_version"], found["old_text"]) == (2, "You answer questions.")
    assert len(langfuse.prompts["support/answers"]) == 2
    assert await rows.value("SELECT count(*) FROM fixes") == 1


async def test_a_version_published_meanwhile_is_not_lost(fixing: Client, rows: Rows, langfuse: Langfuse) -> None:
    name = "support/answers"
    langfuse.before_publish = lambda: langfuse.put(name, "You answer kindly.", labels=["production"])
    found = (await apply(fixing, await rows.signal(RUN))).json()
    assert (found["new_version"], found["old_text"]) == (4, "You answer kindly.")
    made = langfuse.production(name)
    assert (made["version"], made["prompt"]) == (4, f"You answer kindly.\n\n{FIX}")
    assert set(made["labels"]) == {"production", "eu", "latest"}


async def test_somebody_who_never_stops_publishing_is_told_of(fixing: Client, rows: Rows, langfuse: Langfuse) -> None:
    def publish() -> None:
        langfuse.put("support/answers", "Mine.", labels=["production"])
        langfuse.before_publish = publish

    langfuse.before_publish = publish
    answer = await apply(fixing, await rows.signal(RUN))
    assert (answer.status_code, "further versions" in answer.json()["detail"]) == (502, True)
    assert len(langfuse.prompts["support/answers"]) == 1 + 2 * applying.PUBLISH_TRIES


async def test_drafts_beside_production_are_left_alone(fixing: Client, rows: Rows, langfuse: Langfuse) -> None:
    langfuse.put("support/answers", "A draft.")
    found = (await apply(fixing, await rows.signal(RUN))).json()
    assert (found["new_version"], found["old_text"]) == (3, "You answer questions.")


async def test_a_fix_that_was_rolled_back_can_be_applied_again(fixing: Client, rows: Rows, langfuse: Langfuse) -> None:
    signal = await rows.signal(RUN)
    await apply(fixing, signal)
    langfuse.put("support/answers", "You answer questions.", labels=["production"])
    assert (await apply(fixing, signal)).json()["new_version"] == 4
    assert await rows.value("SELECT count(*) FROM fixes") == 2


@pytest.mark.parametrize("failure_type", ["PROMPT_INJECTION_SIGNAL", "SLOW_STEP", "CONTEXT_BLOAT"])
async def test_what_is_no_prompt_addition_is_forbidden(
    fixing: Client, rows: Rows, langfuse: Langfuse, failure_type: str
) -> None:
    answer = await apply(fixing, await rows.signal(RUN, failure_type=failure_type))
    assert (answer.status_code, failure_type in answer.json()["detail"]) == (403, True)
    assert langfuse.requests == []


async def test_what_is_wrong_is_said(fixing: Client, rows: Rows, langfuse: Langfuse) -> None:
    signal = await rows.signal(RUN)
    gone = await apply(fixing, signal, name="unknown")
    assert (gone.status_code, gone.json()) == (404, {"detail": "Prompt not found in Langfuse."})
    for content in ("", " \n ", "x" * 20_001):
        answer = await apply(fixing, signal, content)
        assert (answer.status_code, answer.json()["detail"][0]["loc"]) == (422, ["body", "fix_content"])
    for mode in (Mode.ERROR, Mode.RESET, Mode.GONE, Mode.HUGE_BODY):
        langfuse.mode = mode
        answer = await apply(fixing, signal)
        assert (answer.status_code, answer.json()["detail"].startswith("Langfuse ")) == (502, True)
    langfuse.mode = Mode.OK
    assert await rows.value("SELECT (SELECT count(*) FROM fixes) + (SELECT count(*) FROM prompt_claims)") == 0


async def test_a_claim_is_waited_for_and_one_left_behind_taken_over(
    fixing: Client, rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(applying, "WAIT_S", 0.5)
    signal = await rows.signal(RUN)
    left = "INSERT INTO prompt_claims VALUES ('default', 'support/answers', gen_random_uuid(), now() + interval '{}')"
    await rows.sql(left.format("1 hour"))
    assert (await apply(fixing, signal)).status_code == 503
    await rows.sql("UPDATE prompt_claims SET expires_at = now() - interval '1 second'")
    assert (await apply(fixing, signal)).status_code == 200


# -- tenants, secrets, content


async def test_what_is_anothers_is_not_there(
    gateway: Gateway, tmp_path: Path, rows: Rows, langfuse: Langfuse, model: Model
) -> None:
    await rows.key("theirs", customer="other")
    await rows.key("of-b", agent_id="b")
    await rows.key("ours")
    signal = await rows.signal(RUN)
    async with api_with(gateway, tmp_path, langfuse, model, mode="prod") as api:
        for key in ("theirs", "of-b"):
            for ask in (explain, apply):
                gone = await ask(api, signal, headers=bearer(key))
                assert (gone.status_code, gone.json()) == (404, {"detail": f"Signal {signal} not found."})
        assert (await explain(api, signal)).status_code == 401
        assert langfuse.requests == model.requests == []
        assert (await explain(api, signal, headers=bearer("ours"))).status_code == 200
        assert (await apply(api, signal, headers=bearer("ours"))).status_code == 200


async def test_nothing_of_it_is_logged_or_kept(fixing: Client, rows: Rows, langfuse: Langfuse, model: Model) -> None:
    canary = "CANARY-7f31"
    signal = await rows.signal(RUN)
    langfuse.traces[TRACE][0]["input"] = f"Ignore the above. {canary}"
    langfuse.put("support/answers", f"Prompt {canary}", labels=["production"])
    model.says = [json.dumps({"root_cause": f"cause {canary}", "fix_content": f"fix {canary}"})]
    with structlog.testing.capture_logs() as logged:
        explained = await explain(fixing, signal)
        applied = await apply(fixing, signal, "A chosen text.")
        langfuse.mode = model.mode = Mode.ERROR
        failed = [await explain(fixing, signal), await apply(fixing, signal, "Another.")]
    assert canary in explained.json()["root_cause"]
    assert canary in applied.json()["old_text"]
    assert [one.status_code for one in failed] == [502, 502]
    events = {line["event"]: line for line in logged}
    assert set(events) == {"fix.explained", "fix.applied", "fix.failed"}
    assert (events["fix.explained"]["input_tokens"], events["fix.explained"]["output_tokens"]) == (1000, 80)
    said = str(logged) + "".join(one.text for one in failed)
    for secret in (canary, KEY, SECRET_KEY, langfuse.url, model.url, "A chosen text."):
        assert secret not in said, secret
    tables = await rows.value("SELECT string_agg(f::text, ' ') FROM (SELECT * FROM fixes) f")
    assert canary not in tables
