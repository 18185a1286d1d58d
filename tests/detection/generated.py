"""Hypothesis strategies: any run a client could send, sensible or not."""

from __future__ import annotations

from typing import Any

from hypothesis import settings
from hypothesis import strategies as st

from dunetrace.events import Event

# no deadline: how long one example takes says nothing on a busy machine
unhurried = settings(deadline=None, max_examples=60, stateful_step_count=30)

_hashes = st.sampled_from(["", "a" * 16, "b" * 16, "c" * 64])
_names = st.sampled_from(["search", "book", "", "\u202eevil\n`x`", "n" * 256])
_numbers = st.one_of(st.none(), st.just(0), st.integers(0, 2**53), st.floats(0, 2.0**53))
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
_entries = {
    "tool_name": _names,
    "index_name": _names,
    "model": _names,
    "tools": st.lists(_names, max_size=3),
    "sdk": st.sampled_from(["1.0.0", None]),
    "args_hash": _hashes,
    "args_shape_hash": _hashes,
    "output_hash": _hashes,
    "error_hash": _hashes,
    "output_length": _numbers,
    "latency_ms": _numbers,
    "prompt_tokens": _numbers,
    "cached_prompt_tokens": _numbers,
    "completion_tokens": _numbers,
    "result_count": st.one_of(st.none(), st.integers(0, 3), st.integers(0, 2**53)),
    "top_score": st.one_of(st.none(), st.floats(0, 1), st.floats(-(2.0**53), 2.0**53)),
    "success": st.sampled_from([True, False, False, None]),
    "finish_reason": st.sampled_from(["stop", "stop", "tool_calls", "length", "length", "other", None]),
    "injection_signal": st.one_of(st.none(), _injections),
    "dropped_events": st.sampled_from([0, 0, 3]),
    "exit_reason": st.sampled_from(["final_answer", "completed"]),
}
_sparse = st.fixed_dictionaries({}, optional={**_entries, "call_id": _call_ids})
_full = st.fixed_dictionaries(_entries)  # what says much is found much
_types = ["run.started", "user.message", "llm.called", "llm.responded", "tool.called", "tool.responded",
          "retrieval.called", "retrieval.responded", "external.signal", "run.completed", "run.errored",
          "unheard.of"]  # fmt: skip


def _event(event_type: str | None = None, payloads: st.SearchStrategy[dict[str, Any]] = _sparse) -> Any:
    return st.builds(
        Event,
        event_type=st.sampled_from(_types) if event_type is None else st.just(event_type),
        run_id=st.just("run-1"),
        agent_id=_names,
        agent_version=st.just("6ddeb0c4"),
        step_index=st.integers(0, 40),
        timestamp=st.floats(0, 4_102_444_799),
        payload=payloads,
        parent_run_id=st.sampled_from([None, "above"]),
        received_at=st.floats(1.7e9, 1.8e9),
    )


def _answered(kind: str) -> st.SearchStrategy[list[Event]]:
    """A call and its answer, one right after the other."""
    return st.tuples(_event(f"{kind}.called", _full), _event(f"{kind}.responded", _full)).map(list)


_moves = st.one_of(
    st.lists(_event(), min_size=1, max_size=1), _answered("llm"), _answered("tool"), _answered("retrieval")
)
_ends = st.sampled_from(["run.completed", "run.errored"]).flatmap(lambda end: _event(end, _full))


def runs(max_moves: int = 16) -> st.SearchStrategy[list[Event]]:
    """Any sequence of events, in any order of times; many are calls with their answers, and many have an end."""
    return st.tuples(
        st.lists(_event("run.started", _full), max_size=1),
        st.lists(_moves, min_size=1, max_size=max_moves),
        st.lists(_ends, max_size=1),
    ).map(lambda parts: [*parts[0], *(event for move in parts[1] for event in move), *parts[2]])
