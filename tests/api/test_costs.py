"""What runs and failures cost, where the user gave prices."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from dunetrace.prices import check
from dunetrace.store.gateway import Gateway
from tests.api.conftest import make_api, serving
from tests.api.rows import Rows

PRICES = check(
    {
        "models": {
            "gpt-4o": {"input": 2.5, "cached_input": 1.25, "output": 10},
            "gpt-*": {"input": 1, "output": 4},
        }
    }
)
MIX = {"gpt-4o": [800_000, 400_000, 100_000], "gpt-5": [100_000, 0, 0]}  # 1.0 + 0.5 + 1.0 and 0.1 USD for 1 M tokens


@pytest.fixture
async def priced(gateway: Gateway) -> AsyncIterator[httpx.AsyncClient]:
    async with serving(make_api(gateway, prices=PRICES)) as client:
        yield client


async def _get(client: httpx.AsyncClient, path: str) -> Any:
    answer = await client.get(path)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def test_a_run_costs_what_its_tokens_cost(priced: httpx.AsyncClient, rows: Rows) -> None:
    await rows.run("known", token_mix=MIX, total_tokens=1_000_000)
    await rows.run("one model unknown", token_mix={**MIX, "claude": [1, 0, 0]})
    await rows.run("before there were mixes")
    listed = {run["run_id"]: run["total_cost_usd"] for run in (await _get(priced, "/v1/agents/a/runs"))["runs"]}
    assert listed == {
        "known": pytest.approx(2.6),
        "one model unknown": None,
        "before there were mixes": None,
    }
    assert (await _get(priced, "/v1/runs/known"))["total_cost_usd"] == pytest.approx(2.6)


async def test_without_prices_nothing_has_a_cost(api: httpx.AsyncClient, rows: Rows) -> None:
    await rows.run("known", token_mix=MIX, total_tokens=1_000_000)
    assert (await _get(api, "/v1/runs/known"))["total_cost_usd"] is None
    assert "token_mix" not in await _get(api, "/v1/runs/known")


async def test_waste_costs_its_share_of_each_run(priced: httpx.AsyncClient, rows: Rows) -> None:
    await rows.run("half", token_mix=MIX, total_tokens=1_000_000)
    await rows.signal("half", evidence={"wasted_tokens": 500_000})
    await rows.run("tenth", token_mix=MIX, total_tokens=1_000_000)
    await rows.signal("tenth", evidence={"wasted_tokens": 100_000})
    await rows.signal("tenth", failure_type="SLOW_STEP", evidence={"wasted_ms": 60})
    await rows.run("unknown", token_mix={"claude": [10, 0, 0]}, total_tokens=10)
    await rows.signal("unknown", evidence={"wasted_tokens": 5})
    await rows.run("old")
    await rows.signal("old", evidence={"wasted_tokens": 7})
    waste = (await _get(priced, "/v1/agents/a/token-stats"))["waste_by_failure_type"]
    assert [(row["failure_type"], row["wasted_tokens"], row["wasted_cost_usd"]) for row in waste] == [
        ("TOOL_LOOP", 600_012, pytest.approx(2.6 * 0.6)),
        ("SLOW_STEP", 0, 0.0),
    ]
