"""Hypothesis strategies: any run a client could send, sensible or not."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st

from dunetrace.events import Event

# no deadline: how long one example takes says nothing on a busy machine
unhurried = settings(deadline=None, max_examples=60, stateful_step_count=30)

_hashes = st.sampled_from(["", "a" * 16, "b" * 16, "c" * 64])
_names = st.sampled_from(["search", "book", "", "\u202eevil\n`x`", "n" * 256])
_numbers = st.one_of(st.none(), st.integers(0, 2**53), st.floats(0, 2.0**53))
_call_ids = st.one_of(st.none(), st.integers(0, 3), st.sampled_from(["x", "y"]))
_injections = st.fixed_dictionaries(
    {},
    optional={
        "matched_pattern_count": st.integers(0, 9),
        "matched_patterns": st.lists(st.sampled_from(["act_as", "jailbreak", "x1"]), max_size=5),
        "input_length": _numbers,
        "scan_truncated": st.booleans(),
    },
)
_payloads = st.fixed_dictionaries(
    {},
    optional={
        "tool_name": _names,
        "index_name": _names,
        "model": _names,
        "tools": st.lists(_names, max_size=3),
        "args_hash": _hashes,
        "args_shape_hash": _hashes,
        "output_hash": _hashes,
        "error_hash": _hashes,
        "output_length": _numbers,
        "latency_ms": _numbers,
        "prompt_tokens": _numbers,
        "completion_tokens": _numbers,
        "success": st.sampled_from([True, False, None]),
        "finish_reason": st.sampled_from(["stop", "tool_calls", "length", "other", None]),
        "call_id": _call_ids,
        "injection_signal": st.one_of(st.none(), _injections),
        "dropped_events": st.sampled_from([0, 0, 3]),
        "exit_reason": st.sampled_from(["final_answer", "completed"]),
    },
)
_types = st.sampled_from(
    ["run.started", "user.message", "llm.called", "llm.responded", "tool.called", "tool.called", "tool.called",
     "tool.responded", "tool.responded", "retrieval.called", "retrieval.responded", "external.signal", "run.completed",
     "run.errored", "unheard.of"]
)  # fmt: skip
_events = st.builds(
    Event,
    event_type=_types,
    run_id=st.just("run-1"),
    agent_id=_names,
    agent_version=st.just("6ddeb0c4"),
    step_index=st.integers(0, 40),
    timestamp=st.floats(0, 4_102_444_799),
    payload=_payloads,
    parent_run_id=st.sampled_from([None, "above"]),
    received_at=st.floats(1.7e9, 1.8e9),
)


def runs(max_events: int = 60) -> st.SearchStrategy[list[Event]]:
    """Any sequence of events, in any order of times."""
    return st.lists(_events, min_size=1, max_size=max_events)
