"""Fixes and issues by hand: what is kept, what is refused, what the runs since say, and whose they are."""

from __future__ import annotations

from typing import Any

import httpx
import trio

from dunetrace.serving.api.shapes import MAX_TEXT
from tests.api.rows import NOON, Rows, at, day
from tests.api.test_app import bearer
from tests.api.test_routes import DAY, get

HOUR = 3600.0


async def copy(
    api: httpx.AsyncClient, signal: int | str, content: Any = "Stop after three", **kw: Any
) -> httpx.Response:
    return await api.post(f"/v1/signals/{signal}/record-copy", json={"fix_content": content}, **kw)


async def runs_after(rows: Rows, n: int, *, recurring: int = 0, failure_type: str = "TOOL_LOOP") -> None:
    for index in range(n):
        await rows.run(f"after-{index}", started=NOON + 1 + index, signal_count=int(index < recurring))
        if index < recurring:
            await rows.signal(f"after-{index}", failure_type=failure_type)


async def fixed_signal(rows: Rows, *, before: int = 10, recurring: int = 5) -> int:
    """The last of the signals before a fix at NOON."""
    for index in range(before):
        await rows.run(f"before-{index}", started=NOON - 1 - index)
    signals = [await rows.signal(f"before-{index}", detected=NOON - 1) for index in range(recurring)]
    await rows.fix(signals[0])
    return signals[0]


# -- fix-status


async def test_without_a_fix_there_is_nothing_to_say(api: httpx.AsyncClient, rows: Rows) -> None:
    signal = await rows.signal("r")
    assert await get(api, f"/v1/signals/{signal}/fix-status") == {"fix_applied": False}


async def test_what_the_runs_before_and_after_say(api: httpx.AsyncClient, rows: Rows) -> None:
    signal = await fixed_signal(rows)
    await runs_after(rows, 10)
    assert await get(api, f"/v1/signals/{signal}/fix-status") == {
        "fix_applied": True,
        "applied_at": NOON,
        "applied_via": "clipboard",
        "langfuse_prompt_name": None,
        "langfuse_version": None,
        "runs_after_fix": 10,
        "recurrences_after_fix": 0,
        "verdict": "verified",
        "runs_before": 10,
        "recurrence_before": 5,
        "runs_after": 10,
        "recurrence_after": 0,
        "fixes": [
            {
                "fix_id": 1, "fix_type": "prompt_addition", "applied_via": "clipboard", "applied_at": NOON,
                "langfuse_prompt_name": None, "langfuse_version": None,
            }
        ],
    }  # fmt: skip


async def test_a_recurrence_is_one_of_this_type_live_and_of_this_agent(api: httpx.AsyncClient, rows: Rows) -> None:
    signal = await fixed_signal(rows)
    await runs_after(rows, 6)
    await rows.signal("after-0", failure_type="SLOW_STEP")
    await rows.signal("after-1", shadow=True)
    await rows.run("elsewhere", "b", started=NOON + 5, signal_count=1)
    await rows.signal("elsewhere", "b")
    path = f"/v1/signals/{signal}/fix-status"
    assert (await get(api, path))["verdict"] == "likely_fixed"
    await rows.run("going-on", started=NOON + 9, trigger=None, ended_at=None, signal_count=1)
    await rows.signal("going-on")
    found = await get(api, path)
    assert (found["runs_after"], found["recurrence_after"], found["verdict"]) == (7, 1, "still_occurring")


async def test_only_runs_that_tell_are_counted(api: httpx.AsyncClient, rows: Rows) -> None:
    signal = await fixed_signal(rows, before=4, recurring=2)
    await rows.run("long-ago", started=NOON - 31 * DAY)
    await rows.run("going-on", started=NOON + 1, trigger=None, ended_at=None)
    await rows.run("lost-events", started=NOON + 2, dropped_events=3)
    await rows.run("parked", started=NOON + 3, parked_error="x: KeyError at x.py:1")
    await rows.run("stalled", started=NOON + 4, trigger="stalled", ended_at=None)
    # The client's clock was years behind: the server's hour says when it started.
    await rows.run("wrong-clock", started=7.0, start_day=day(NOON), start_hour=at(NOON + HOUR))
    found = await get(api, f"/v1/signals/{signal}/fix-status")
    assert (found["runs_before"], found["recurrence_before"], found["runs_after"]) == (4, 2, 2)


async def test_the_earliest_of_several_fixes_is_the_one_judged(api: httpx.AsyncClient, rows: Rows) -> None:
    signal = await fixed_signal(rows)
    await rows.fix(signal, applied=NOON + 3, applied_via="langfuse", langfuse_prompt_name="p", langfuse_version=2)
    await runs_after(rows, 6)
    found = await get(api, f"/v1/signals/{signal}/fix-status")
    assert (found["applied_at"], found["runs_after"]) == (NOON, 6)
    assert [one["applied_via"] for one in found["fixes"]] == ["clipboard", "langfuse"]


async def test_an_agents_fixes(api: httpx.AsyncClient, rows: Rows) -> None:
    first = await fixed_signal(rows)
    second = await rows.signal("before-0", failure_type="SLOW_STEP", detected=NOON - 1)
    await rows.fix(second, applied=NOON + 3, fix_type="code_change")
    await rows.fix(first, applied=NOON + 5)
    await rows.fix(await rows.signal("z", "b"), applied=NOON + 9)
    await runs_after(rows, 8, recurring=1, failure_type="SLOW_STEP")  # before the second fix
    answer = await get(api, "/v1/agents/a/fixes")
    brief = [(one["signal_id"], one["fix_type"], one["verdict"], one["applied_at"]) for one in answer["fixes"]]
    assert brief == [
        (first, "prompt_addition", "likely_fixed", NOON + 5),
        (second, "code_change", "likely_fixed", NOON + 3),
        (first, "prompt_addition", "likely_fixed", NOON),
    ]
    for one in answer["fixes"]:
        alone = await get(api, f"/v1/signals/{one['signal_id']}/fix-status")
        assert alone["verdict"] == one["verdict"]
    assert await get(api, "/v1/agents/nobody/fixes") == {"fixes": []}


# -- record-copy


async def test_a_copied_fix_is_kept(api: httpx.AsyncClient, rows: Rows) -> None:
    signal = await rows.signal("r", failure_type="CONTEXT_BLOAT")
    sent = rb'{"fix_content": "Trim \ud800 the\u0000context"}'  # as Python's json writes what cannot be kept
    kind = {"Content-Type": "application/json"}
    answer = await api.post(f"/v1/signals/{signal}/record-copy", content=sent, headers=kind)
    assert (answer.status_code, answer.json()["signal_id"]) == (200, signal)
    kept = await rows.row("SELECT id, run_id, signal_id, fix_content, fix_type, applied_via FROM fixes")
    assert kept == {
        "id": answer.json()["fix_id"], "run_id": "r", "signal_id": signal, "fix_content": "Trim � the�context",
        "fix_type": "code_change", "applied_via": "clipboard",
    }  # fmt: skip
    assert (await get(api, f"/v1/signals/{signal}/fix-status"))["verdict"] == "insufficient_data"


async def test_a_double_click_is_one_fix(api: httpx.AsyncClient, rows: Rows) -> None:
    signal, other = await rows.signal("r"), await rows.signal("r2")
    ids: list[int] = []

    async def click() -> None:
        ids.append((await copy(api, signal)).json()["fix_id"])

    async with trio.open_nursery() as nursery:
        for _ in range(8):
            nursery.start_soon(click)
    assert len(ids) == 8
    assert len(set(ids)) == 1
    different = {(await copy(api, other)).json()["fix_id"], (await copy(api, signal, "else")).json()["fix_id"]}
    assert len(different | set(ids)) == 3
    await rows.sql("UPDATE fixes SET applied_at = applied_at - interval '61 seconds'")
    assert (await copy(api, signal)).json()["fix_id"] not in different | set(ids)


async def test_what_is_wrong_with_a_body_is_named(api: httpx.AsyncClient, rows: Rows) -> None:
    path = f"/v1/signals/{await rows.signal('r')}/record-copy"
    for body, field, msg in (
        (b"{}", "fix_content", "is required"),
        (b'{"fix_content": 7}', "fix_content", "Expected `str`, got `int`"),
        (b'{"fix_content": null}', "fix_content", "Expected `str`, got `null`"),
        (b'{"fix_content": ""}', "fix_content", "Expected `str` of length >= 1"),
        (b'{"fix_content": "%s"}' % (b"x" * (MAX_TEXT + 1)), "fix_content", f"of length <= {MAX_TEXT}"),
    ):
        answer = await api.post(path, content=body, headers={"Content-Type": "application/json"})
        (fault,) = answer.json()["detail"]
        assert (answer.status_code, fault["loc"]) == (422, ["body", field])
        assert msg in fault["msg"]
    for body in (b"", b"[]", b"{", b"\xff", b"[" * 100_000):
        answer = await api.post(path, content=body, headers={"Content-Type": "application/json"})
        assert (answer.status_code, answer.json()["detail"][0]["loc"]) == (422, ["body"])
    assert (await api.post(path, content=b"{}")).status_code == 415
    huge = b'{"fix_content": "%s"}' % (b"x" * (1 << 20))
    assert (await api.post(path, content=huge, headers={"Content-Type": "application/json"})).status_code == 413
    assert await rows.row("SELECT count(*) FROM fixes") == {"count": 0}


# -- resolving by hand


async def test_an_issue_is_resolved_by_hand_once(api: httpx.AsyncClient, rows: Rows) -> None:
    issue = await rows.issue(affected=3, clean=2)
    answer = await api.post(f"/v1/issues/{issue}/resolve", json={"resolution_notes": "CANARY"})
    found = answer.json()
    assert (answer.status_code, found["status"], found["clean_runs_since"]) == (200, "resolved", 2)
    assert found["resolved_at"] > NOON - 10 * 365 * DAY
    assert set(found) == set((await get(api, "/v1/agents/a/issues"))["issues"][0])
    again = await api.post(f"/v1/issues/{issue}/resolve", json={})
    assert again.json() == found
    stored = await rows.row("SELECT * FROM issues")
    assert stored["resolved_by_hand"] is True
    assert "CANARY" not in str(stored)

    by_runs = await rows.issue(failure_type="SLOW_STEP", status="resolved", resolved=NOON, clean=5)
    assert (await api.post(f"/v1/issues/{by_runs}/resolve", json={})).json()["resolved_at"] == NOON
    assert (await rows.row(f"SELECT resolved_by_hand FROM issues WHERE id = {by_runs}"))["resolved_by_hand"] is False
    for missing in (by_runs + 1, "99999999999999999999", "x"):
        gone = await api.post(f"/v1/issues/{missing}/resolve", json={})
        assert (gone.status_code, gone.json()) == (404, {"detail": f"Issue {missing} not found."})


# -- acknowledging and snoozing


async def test_an_issue_is_acknowledged_and_that_is_taken_back(api: httpx.AsyncClient, rows: Rows) -> None:
    path = f"/v1/issues/{await rows.issue()}/acknowledge"
    known = (await api.post(path, json={})).json()
    assert known["acknowledged_at"] > NOON - 10 * 365 * DAY and known["status"] == "open"
    assert (await api.post(path, json={"acknowledged": True})).json() == known  # the time of the first stays
    assert (await get(api, "/v1/agents/a/issues"))["issues"] == [known]
    assert (await api.post(path, json={"acknowledged": False})).json()["acknowledged_at"] is None


async def test_an_issue_is_snoozed_and_woken(api: httpx.AsyncClient, rows: Rows) -> None:
    issue = await rows.issue()
    path = f"/v1/issues/{issue}/snooze"
    asleep = (await api.post(path, json={"seconds": 3600})).json()
    assert 0 < asleep["snoozed_until"] - await rows.value("SELECT extract(epoch FROM now())::float8") <= 3600
    assert (await get(api, f"/v1/issues/{issue}"))["snoozed_until"] == asleep["snoozed_until"]
    await rows.sql("UPDATE issues SET snoozed_until = now() - interval '1 second'")
    assert (await get(api, f"/v1/issues/{issue}"))["snoozed_until"] is None
    await api.post(path, json={"seconds": 3600})
    assert (await api.post(path, json={"seconds": 0})).json()["snoozed_until"] is None
    for wrong in ({}, {"seconds": -1}, {"seconds": 91 * DAY}, {"seconds": "soon"}, {"seconds": None}):
        answer = await api.post(path, json=wrong)
        assert (answer.status_code, answer.json()["detail"][0]["loc"]) == (422, ["body", "seconds"])


async def test_what_is_resolved_is_neither_acknowledged_nor_snoozed(api: httpx.AsyncClient, rows: Rows) -> None:
    issue = await rows.issue()
    await api.post(f"/v1/issues/{issue}/acknowledge", json={})
    await api.post(f"/v1/issues/{issue}/snooze", json={"seconds": 60})
    found = (await api.post(f"/v1/issues/{issue}/resolve", json={})).json()
    assert (found["acknowledged_at"], found["snoozed_until"]) == (None, None)
    assert await rows.value("SELECT note_due FROM issues") is True
    assert (await api.post(f"/v1/issues/{issue}/acknowledge", json={})).json() == found
    assert (await api.post(f"/v1/issues/{issue}/snooze", json={"seconds": 60})).json() == found
    for action, body in (("acknowledge", {}), ("snooze", {"seconds": 60})):
        for missing in (issue + 1, "99999999999999999999", "x"):
            gone = await api.post(f"/v1/issues/{missing}/{action}", json=body)
            assert (gone.status_code, gone.json()) == (404, {"detail": f"Issue {missing} not found."})


# -- tenants


async def test_what_is_anothers_is_not_there(prod: httpx.AsyncClient, rows: Rows) -> None:
    await rows.key("theirs", customer="other")
    await rows.key("ours-of-b", agent_id="b")
    await rows.key("ours")
    await rows.run("r", processed_at=at(NOON), first_tool_step=1)
    await rows.hour()
    await rows.deploy("v1")
    signal, issue = await rows.signal("r"), await rows.issue()
    await rows.fix(signal)
    agent = "/v1/agents/a"
    lists = (f"{agent}/insights", f"{agent}/health-score", f"{agent}/token-stats", f"{agent}/fixes",
             f"{agent}/failure-patterns/TOOL_LOOP", "/v1/issues/search", "/v1/issues/search?agent_id=a")  # fmt: skip

    async def ask(path: str, key: str) -> httpx.Response:
        return await prod.get(path, headers=bearer(key))

    for key in ("theirs", "ours-of-b"):
        for path in lists:
            seen, unknown = await ask(path, key), await ask(path.replace("agents/a/", "agents/nobody/"), key)
            assert (seen.status_code, seen.json()) == (200, unknown.json()), (path, key)
        for path in (f"/v1/signals/{signal}/fix-status", "/v1/signals/x/fix-status"):
            assert (await ask(path, key)).status_code == 404
        gone = await copy(prod, signal, headers=bearer(key))
        assert (gone.status_code, gone.json()) == (404, {"detail": f"Signal {signal} not found."})
        for action in ("resolve", "acknowledge", "snooze"):
            gone = await prod.post(f"/v1/issues/{issue}/{action}", json={"seconds": 60}, headers=bearer(key))
            assert (gone.status_code, gone.json()) == (404, {"detail": f"Issue {issue} not found."})
    assert await rows.row("SELECT count(*) FROM fixes") == {"count": 1}
    untouched = await rows.row("SELECT status, acknowledged_at, snoozed_until FROM issues")
    assert untouched == {"status": "open", "acknowledged_at": None, "snoozed_until": None}
    for path in lists:
        assert (await ask(path, "ours")).json() != (await ask(path, "theirs")).json(), path
    assert (await copy(prod, signal)).status_code == 401
    assert (await copy(prod, signal, headers=bearer("ours"))).status_code == 200


async def test_a_fix_kept_under_another_customer_is_not_shown(api: httpx.AsyncClient, rows: Rows) -> None:
    signal = await rows.signal("r")
    await rows.fix(signal, customer="other")
    assert await get(api, f"/v1/signals/{signal}/fix-status") == {"fix_applied": False}
    assert await get(api, "/v1/agents/a/fixes") == {"fixes": []}
