"""The incremental views against a plain recount."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from dunetrace.detectors.reasoning_stall import DETECTOR as STALL
from dunetrace.detectors.reasoning_stall import ReasoningStallThresholds
from dunetrace.detectors.tool_loop import DETECTOR as LOOP
from dunetrace.detectors.tool_loop import ToolLoopThresholds
from dunetrace.events import Event
from dunetrace.views.loops import MAX_WINDOW
from tests.detection.building import Script, folded
from tests.detection.generated import runs, unhurried

Made = tuple[str, int, bool]  # tool, arguments, whether it succeeded
_moves = st.lists(
    st.one_of(
        st.just(None), st.tuples(st.sampled_from("abc"), st.integers(0, 1), st.sampled_from([True, True, False]))
    ),
    max_size=40,
)


def _alternates(names: list[str]) -> bool:
    return len(set(names)) == 2 and all(name != after for name, after in pairwise(names))


def _has_loop(turn: list[Made], size: int, window: int) -> bool:
    """Whether `size` equal calls, all but the last known good, lie within `window` calls of one turn."""
    for end, (name, args, _) in enumerate(turn):
        good = [i for i in range(end) if turn[i] == (name, args, True)]
        if len(good) < size - 1:
            continue
        start = good[-(size - 1)]
        if end - start < window and not _alternates([made[0] for made in turn[start : end + 1]]):
            return True
    return False


@unhurried
@given(_moves, st.integers(2, 6), st.integers(0, 10))
def test_a_loop_is_found_exactly_where_a_recount_finds_it(moves: list[Made | None], size: int, slack: int) -> None:
    script, turns = Script().started(), [[]]  # type: ignore[var-annotated]
    for move in moves:
        if move is None:
            script.user()
            turns.append([])
        else:
            script.tool(move[0], move[1], ok=move[2])
            turns[-1].append(move)
    finding = LOOP.detect(folded(script), ToolLoopThresholds(threshold=size, window=size + slack))
    assert (finding is not None) is any(_has_loop(turn, size, size + slack) for turn in turns)


@unhurried
@given(
    st.lists(st.sampled_from(["llm", "llm", "llm", "act", "turn"]), max_size=60), st.integers(2, 8), st.integers(2, 5)
)
def test_the_worst_stretch_is_the_one_a_recount_finds(moves: list[str], least: int, ratio: int) -> None:
    script, stretches = Script().started(), [[0, 0]]
    for move in moves:
        if move == "turn":
            script.user()
            stretches.append([0, 0])
        elif move == "llm":
            script.llm()
            stretches[-1][0] += 1
        else:
            script.tool(args=script.step)
            stretches[-1][1] += 1
    rated = [(llm / max(1, acts), llm) for llm, acts in stretches if llm >= least]
    finding = STALL.detect(folded(script), ReasoningStallThresholds(ratio_threshold=ratio, min_llm_calls=least))
    assert (finding is not None) is any(value >= ratio for value, _ in rated)
    if finding is not None:
        assert (finding.evidence["ratio"], finding.evidence["llm_calls"]) == (round(max(rated)[0], 2), max(rated)[1])


@unhurried
@given(runs())
def test_no_cluster_is_narrower_than_its_calls(events: list[Event]) -> None:
    loops = folded(events).loops
    for repeats in (loops.equal, loops.shapes, loops.pairs, loops.names):
        assert all(2 <= size <= span <= MAX_WINDOW for size, span in repeats.clusters)


def test_a_call_answered_after_a_later_one_does_not_hide_what_follows() -> None:
    script = Script().called("search", call_id=1).called("search", call_id=2)
    script.responded("search", call_id=2, output="same").responded("search", call_id=1, output="same")
    assert folded(script).loops.names.clusters == {}
    assert list(folded(script.tool("search", None, "same")).loops.names.clusters) == [(2, 2)]
