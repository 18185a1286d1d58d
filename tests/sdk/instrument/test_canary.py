"""No content leaves the agent through an instrumented library: not by HTTP, not as NDJSON."""

from __future__ import annotations

import gzip
import secrets
from collections.abc import Callable
from typing import Any

import httpx
import httpx2
import pytest
import requests

from dunetrace import Dunetrace
from tests.sdk.instrument.asking import CHAT, COMPLETIONS, MESSAGES, MODEL, RESPONSES, Api
from tests.sdk.instrument.conftest import Recording
from tests.sdk.instrument.provider import Provider, Reply
from tests.sdk.sink import Sink


class Canaries:
    """Random words; each stands for content of its own kind."""

    def __init__(self) -> None:
        self.words: dict[str, str] = {}

    def __getitem__(self, kind: str) -> str:
        return self.words.setdefault(kind, f"canary{secrets.token_hex(8)}")


def test_no_content_leaves(
    client: Callable[..., Dunetrace], provider: Provider, sink: Sink, capfd: pytest.CaptureFixture[str]
) -> None:
    canary = Canaries()
    dt = client(emit_as_json=True, debug=True)
    with dt.run("agent"):
        _plain_requests(provider, canary)
        for api in (CHAT, COMPLETIONS, RESPONSES, MESSAGES):
            _models(api, provider, canary)
    assert dt.flush(10)
    recording = Recording(dt, sink)
    assert len(recording.calls("tool")) == 12
    assert len(recording.calls("llm")) == 20
    out, err = capfd.readouterr()
    assert out.count("llm.responded") == 20
    left = [out.encode(), err.encode()]
    for request in sink.requests:
        left += [request.path.encode(), repr(request.headers).encode(), request.body]
        if request.headers.get("content-encoding") == "gzip":
            left.append(gzip.decompress(request.body))
    asked = b"".join(f"{one.path}".encode() + one.body for one in provider.asked)
    for kind, word in canary.words.items():
        assert not any(word.encode() in sent for sent in left), kind
        if kind in ("path", "query", "body", "prompt"):
            assert word.encode() in asked, kind  # it did go where the agent sent it


def _plain_requests(provider: Provider, canary: Canaries) -> None:
    for library in (httpx, httpx2, requests):
        url = f"{provider.url}/{canary['path']}?q={canary['query']}#{canary['fragment']}"
        library.post(url, headers={"x-secret": canary["header"]}, json={"text": canary["body"]})
        library.get(url.replace("//", f"//{canary['user']}:{canary['password']}@"), cookies={"c": canary["cookie"]})
        library.get(f"{provider.url}/status/500/{canary['path']}")
        with pytest.raises((httpx.ConnectError, httpx2.ConnectError, requests.ConnectionError)):
            library.get(f"http://127.0.0.1:9/{canary['unreached']}")


def _models(api: Api, provider: Provider, canary: Canaries) -> None:
    answer = Reply(text=f"{canary['answer']} {canary['answer']}", tool="search" if api.asks_for_tools else "")
    provider.script(
        answer, answer, Reply(status=500, error=canary["error"]), answer._replace(cut_after=2),
        answer._replace(error_after=2, error=canary["streamed error"]),
    )  # fmt: skip
    with api.client(provider, default_headers={"x-secret": canary["client header"]}) as client:
        _ask(api, client, canary)
        for _ in _ask(api, client, canary, stream=True):
            pass
        with pytest.raises(api.library.APIStatusError):
            _ask(api, client, canary)
        for _ in range(2):
            with pytest.raises(Exception):  # noqa: B017 - which, is the library's choice
                list(_ask(api, client, canary, stream=True))


def _ask(api: Api, client: Any, canary: Canaries, **more: Any) -> Any:
    prompt, system = canary["prompt"], canary["system"]
    match api.name:
        case "openai chat completions":
            messages = [{"role": "system", "content": system}, {"role": "user", "content": prompt}]
            return client.chat.completions.create(model=MODEL, messages=messages, user=canary["user id"], **more)
        case "openai completions":
            return client.completions.create(model=MODEL, prompt=prompt, **more)
        case "openai responses":
            return client.responses.create(model=MODEL, input=prompt, instructions=system, **more)
        case _:
            messages = [{"role": "user", "content": prompt}]
            return client.messages.create(model=MODEL, max_tokens=9, system=system, messages=messages, **more)
