from __future__ import annotations

import copy
import json
import pickle
import random
import tracemalloc
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dunetrace.events import EVENT_TYPES, Event
from dunetrace.runs import _HANDLERS, MAX_COUNT, MAX_STEPS, RunState
from dunetrace.views.spending import MAX_MODELS, OTHER
from tests.detection.building import Script, digest, folded, in_order
from tests.detection.generated import runs, unhurried
from tests.shared import shared


def captured(version: str) -> dict[str, RunState]:
    body = json.loads(shared(f"captures/ingest-{version}.json").read_text())["body"]
    states: dict[str, RunState] = {}
    for raw in body["events"]:
        fields = {key: raw[key] for key in Event._fields if key in raw}
        event = Event(**fields, received_at=raw["timestamp"] + 1)
        states.setdefault(event.run_id, RunState(event.run_id)).fold(event)
    return states


def facts(run: RunState) -> dict[str, Any]:
    held = {name: getattr(run, name) for name in RunState.__slots__ if not name.startswith("_") and name != "steps"}
    return {name: value for name, value in held.items() if not type(value).__module__.startswith("dunetrace.views")}


def test_every_type_the_fold_knows_is_an_event_type() -> None:
    assert set(_HANDLERS) <= set(EVENT_TYPES)


def test_both_step_layouts_count_the_same_steps() -> None:
    old, new = captured("0.3.0").values(), captured("0.3.9").values()
    counts = [(r.step_count, r.llm_calls, r.tool_calls, r.first_tool_step, r.total_tokens, r.terminal) for r in old]
    assert counts == [
        (r.step_count, r.llm_calls, r.tool_calls, r.first_tool_step, r.total_tokens, r.terminal) for r in new
    ]
    assert counts[0] == (5, 2, 2, 2, 1_090, "run.completed")
    assert [call.step_index for call in next(iter(old)).steps] == [1, 3, 5, 7, 9]
    assert [call.step_index for call in next(iter(new)).steps] == [1, 2, 3, 4, 5]


def test_the_parent_is_inherited_from_any_event() -> None:
    parents = [run.parent_run_id for run in captured("0.3.9").values()]
    assert parents[0] is None and parents[1] is not None
    late = Script().started().llm().emit("llm.called", parent="above").completed()
    assert folded(late).parent_run_id == "above"


def test_the_facts_of_a_finished_run() -> None:
    script = Script().started(task_hash=digest("task")).llm("tool_calls").tool("search", 1, "x").retrieval().llm()
    script.completed("final_answer", dropped_events=2)
    run = folded(script)
    assert (run.agent_id, run.agent_version, run.model, run.tools) == (
        "agent",
        "6ddeb0c4",
        "gpt-4o",
        ("search", "book"),
    )
    assert (run.task_hash, run.input_hash) == (digest("task"), digest("hi"))
    assert (run.event_count, run.step_count, run.llm_calls, run.tool_calls, run.retrieval_calls) == (10, 4, 2, 1, 1)
    assert (run.first_tool_step, run.total_tokens, run.dropped_events) == (2, 240, 2)
    assert (run.terminal, run.exit_reason, run.ended_at) == ("run.completed", "final_answer", script.now)
    assert run.started_at == script.events[0].timestamp
    assert run.started_received_at == script.events[0].received_at
    assert run.last_received_at == script.events[-1].received_at
    assert run.last_order == (script.now, script.step)


def test_a_run_still_going_on_has_no_end() -> None:
    run = folded(Script().started().llm())
    assert (run.terminal, run.ended_at, run.exit_reason) == ("", None, "")


def test_an_errored_run_keeps_its_error_type() -> None:
    run = folded(Script().started().llm_called().errored(dropped_events=1))
    assert (run.terminal, run.error_type, run.dropped_events) == ("run.errored", "ValueError", 1)


def test_a_run_whose_start_was_lost_works() -> None:
    run = folded(Script(agent_id="lost").llm().tool().completed())
    assert (run.agent_id, run.model, run.tools, run.step_count) == ("lost", "gpt-4o", (), 2)


def test_a_start_seen_twice_changes_nothing() -> None:
    signal = {"matched_pattern_count": 1, "matched_patterns": ["act_as"]}
    script = Script().started(injection_signal=signal)
    once = folded(script)
    script.events.append(script.events[0]._replace(agent_id="other"))
    twice = folded(script)
    assert facts(twice) == facts(once) | {"event_count": 2}


def test_the_first_end_counts() -> None:
    script = Script().started().completed("final_answer")
    ended_at = script.now
    run = folded(script.tool().errored())
    assert (run.terminal, run.exit_reason, run.ended_at, run.tool_calls) == (
        "run.completed",
        "final_answer",
        ended_at,
        1,
    )


def test_prompt_tokens_count_once_wherever_they_are_sent() -> None:
    script = Script().llm_called(prompt_tokens=100).emit("llm.responded", completion_tokens=5, prompt_tokens=90)
    assert folded(script).total_tokens == 105
    script = Script().llm_called(prompt_tokens=0).emit("llm.responded", completion_tokens=5, prompt_tokens=90)
    assert folded(script).total_tokens == 95


def test_tokens_are_kept_by_model_and_by_what_they_cost() -> None:
    script = Script().started()  # of gpt-4o
    script.emit("llm.called", prompt_tokens=100, cached_prompt_tokens=60).emit("llm.responded", completion_tokens=7)
    script.emit("llm.called", model="small")
    script.emit("llm.responded", completion_tokens=1, prompt_tokens=50, cached_prompt_tokens=20)
    script.emit("llm.called", model="silent").emit("llm.responded")
    script.emit("llm.responded", completion_tokens=3, prompt_tokens=9)  # of no call
    assert folded(script).spending.mix == {"gpt-4o": [109, 60, 10], "small": [50, 20, 1]}
    assert folded(Script().started().tool()).spending.mix is None


def test_cached_tokens_count_once_and_are_never_more_than_the_prompt() -> None:
    script = Script().started().emit("llm.called", prompt_tokens=100, cached_prompt_tokens=80)
    script.emit("llm.responded", prompt_tokens=100, cached_prompt_tokens=80, completion_tokens=1)
    assert folded(script).spending.mix == {"gpt-4o": [100, 80, 1]}
    script = Script().started().emit("llm.called", cached_prompt_tokens=80)
    script.emit("llm.responded", prompt_tokens=50, cached_prompt_tokens=80)
    assert folded(script).spending.mix == {"gpt-4o": [50, 50, 0]}


def test_many_models_are_kept_as_a_few_and_the_rest() -> None:
    script = Script().started()
    for n in range(2 * MAX_MODELS):
        script.emit("llm.called", model=f"m{n}", prompt_tokens=1)
    mix = folded(script).spending.mix
    assert mix is not None
    assert list(mix) == [*(f"m{n}" for n in range(MAX_MODELS)), OTHER]
    assert mix[OTHER] == [MAX_MODELS, 0, 0]


@unhurried
@given(runs())
def test_the_kinds_of_tokens_add_up_to_all_tokens(events: list[Event]) -> None:
    run = folded(in_order(events))
    mix = run.spending.mix or {}
    assert sum(prompt + completion for prompt, _, completion in mix.values()) == run.total_tokens
    assert all(0 <= cached <= prompt for prompt, cached, _ in mix.values())


def test_an_absurd_number_cannot_overflow_a_total() -> None:
    script = Script()
    for value in (2**53, 1e308, float("nan"), -5, None, True):
        script.llm_called(prompt_tokens=value)
    assert folded(script).total_tokens == 2 * MAX_COUNT + 1


def test_an_event_of_an_unknown_type_is_only_counted() -> None:
    run = folded(Script().started().emit("memory.written", key_hash="0" * 16).emit("something.else"))
    assert (run.event_count, run.step_count) == (3, 0)


def test_user_messages_are_turns_and_no_steps() -> None:
    run = folded(Script().started().llm().user().llm().user())
    assert (run.turns, run.step_count) == (2, 2)


def test_injections_of_several_inputs_are_merged() -> None:
    script = Script().started(
        injection_signal={"matched_pattern_count": 1, "matched_patterns": ["act_as"], "input_length": 9}
    )
    script.llm().user(injection_signal={"matched_pattern_count": 2, "matched_patterns": ["jailbreak", "act_as"],
                                        "input_length": 40, "scan_truncated": True})  # fmt: skip
    run = folded(script.user(injection_signal={"matched_pattern_count": 0, "matched_patterns": []}))
    assert run.injection is not None
    assert run.injection._asdict() == {
        "matched_pattern_count": 2, "matched_patterns": ("act_as", "jailbreak"), "flagged_inputs": 2,
        "input_length": 40, "scan_truncated": True, "step_index": 0, "step_count": 0,
    }  # fmt: skip


@pytest.mark.parametrize("event_type", [*EVENT_TYPES, "unheard.of"])
def test_every_payload_key_may_be_missing(event_type: str) -> None:
    run = folded(Script().emit(event_type).called().llm_called().retrieval().emit(event_type).emit(event_type))
    assert run.event_count == 7


@unhurried
@given(runs())
def test_folding_never_raises_and_leaves_the_events_alone(events: list[Event]) -> None:
    before = copy.deepcopy(events)
    run = folded(events)
    assert events == before
    assert run.event_count == len(events)
    assert run.nbytes > 0


@unhurried
@given(runs(), st.randoms(use_true_random=False))
def test_arrival_does_not_matter_once_sorted(events: list[Event], rng: random.Random) -> None:
    ordered = [event._replace(timestamp=1.7e9 + i) for i, event in enumerate(events)]
    arrived = list(ordered)
    rng.shuffle(arrived)
    assert pickle.dumps(folded(in_order(arrived))) == pickle.dumps(folded(ordered))


@unhurried
@given(runs())
def test_a_pause_between_two_folds_changes_nothing(events: list[Event]) -> None:
    half = folded(events[: len(events) // 2])
    resumed = pickle.loads(pickle.dumps(half))
    for event in events[len(events) // 2 :]:
        half.fold(event)
        resumed.fold(event)
    assert facts(half) == facts(resumed) == facts(folded(events))


def test_a_very_long_run_stays_small() -> None:
    script = Script().started()
    for i in range(5_000):
        script.called(f"tool-{i}", args=i, args_shape_hash=digest(i)).responded(f"tool-{i}", output=i)
        script.llm_called()
    run = folded(script)
    assert len(run.steps) == MAX_STEPS
    assert run.step_count == 10_000
    assert len(pickle.dumps(run)) < 3_000_000
    assert run.nbytes < 3_000_000


@pytest.mark.parametrize("calls", [5, 100, 3_000])
def test_the_estimate_of_bytes_is_near_the_truth(calls: int) -> None:
    script = Script().started()
    for i in range(calls):
        script.llm().called(f"tool-{i % 40}", args=i, args_shape_hash=digest(-i)).responded(f"tool-{i % 40}", output=i)
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        run = folded(pickle.loads(pickle.dumps(event)) for event in script)
        held = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert 0.5 * held < run.nbytes < 2 * held


def test_what_arrived_last_need_not_have_happened_last() -> None:
    script = Script().started().llm()
    script.events[1] = script.events[1]._replace(received_at=9e9)
    assert folded(script).last_received_at == 9e9
