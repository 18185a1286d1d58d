"""What the page asks beyond the seeds: runs by how they stand, and a run without its events."""

from __future__ import annotations

import httpx
import pytest

from tests.api.rows import NOON, Rows

STANDINGS = {
    "running": {"trigger": None, "ended_at": None},
    "completed": {},
    "errored": {"trigger": "run.errored"},
    "stalled": {"trigger": "stalled", "ended_at": None},
    "parked": {"trigger": "run.errored", "parked_error": "tool_loop: KeyError at tool_loop.py:3"},
}


@pytest.mark.parametrize("standing", sorted(STANDINGS))
async def test_runs_by_how_they_stand(api: httpx.AsyncClient, rows: Rows, standing: str) -> None:
    for n, (name, columns) in enumerate(STANDINGS.items()):
        await rows.run(f"one-{name}", started=NOON + n, **columns)
        await rows.run(f"two-{name}", started=NOON - n, signal_count=1, **columns)
    answer = (await api.get("/v1/agents/a/runs", params={"status": standing, "limit": 1})).json()
    assert [run["run_id"] for run in answer["runs"]] == [f"one-{standing}"]
    assert answer["page"] == {"total": 2, "offset": 0, "limit": 1, "has_more": True}
    both = (await api.get("/v1/agents/a/runs", params={"status": standing, "has_signals": "true"})).json()
    assert [run["run_id"] for run in both["runs"]] == [f"two-{standing}"]


async def test_a_status_no_run_can_have_is_refused(api: httpx.AsyncClient) -> None:
    answer = await api.get("/v1/agents/a/runs?status=ended")
    assert answer.status_code == 422
    assert "running, completed, errored, stalled, parked" in answer.text


async def test_a_run_without_its_events_is_the_rest_of_it(api: httpx.AsyncClient, rows: Rows) -> None:
    await rows.run("r1", signal_count=1)
    await rows.signal("r1")
    for step in range(3):
        await rows.event("r1", "llm.called", step=step)
    whole = (await api.get("/v1/runs/r1")).json()
    assert len(whole.pop("events")) == whole["event_count"] == 3
    assert (await api.get("/v1/runs/r1?events=false")).json() == whole
