"""An agent in an environment of its own: asks a provider in eight ways and makes one request.

Run by `test_older` as ``python older_agent.py <library> <provider's address>``.
"""

from __future__ import annotations

import asyncio
import sys
from typing import Any

from dunetrace import Dunetrace
from dunetrace.sdk.instrument import install, remove

library, url = sys.argv[1:]
assert library in install(None)

MESSAGES = [{"role": "user", "content": "How are you?"}]
if library == "openai":
    import openai

    where = {"base_url": f"{url}/v1", "api_key": "k", "max_retries": 0}
    client, async_client = openai.OpenAI(**where), openai.AsyncOpenAI(**where)
    errors = openai.APIStatusError
else:
    import anthropic

    where = {"base_url": url, "api_key": "k", "max_retries": 0}
    client, async_client = anthropic.Anthropic(**where), anthropic.AsyncAnthropic(**where)
    errors = anthropic.APIStatusError


def ask(of: Any, **more: Any) -> Any:
    if library == "openai":
        return of.chat.completions.create(model="model-1", messages=MESSAGES, **more)
    return of.messages.create(model="model-1", max_tokens=9, messages=MESSAGES, **more)


def helper() -> Any:
    if library == "openai":
        return client.chat.completions.stream(model="model-1", messages=MESSAGES)
    return client.messages.stream(model="model-1", max_tokens=9, messages=MESSAGES)


def raw() -> Any:
    if library == "openai":
        return client.chat.completions.with_raw_response.create(model="model-1", messages=MESSAGES)
    return client.messages.with_raw_response.create(model="model-1", max_tokens=9, messages=MESSAGES)


async def asynchronously() -> None:
    async with async_client:
        await ask(async_client)
        async for _ in await ask(async_client, stream=True):
            pass


dt = Dunetrace()
with dt.run("agent"):
    ask(client)
    list(ask(client, stream=True))
    ask(client)
    with helper() as stream:
        list(stream)
    raw().parse()
    asyncio.run(asynchronously())
    try:
        ask(client)
    except errors:
        pass
    else:
        raise AssertionError("no error")
    import httpx

    httpx.get(f"{url}/parcels")
client.close()
assert dt.shutdown(10)
remove()
