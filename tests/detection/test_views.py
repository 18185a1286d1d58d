"""The incremental views against a plain recount."""

from __future__ import annotations

from itertools import groupby, pairwise

from hypothesis import given
from hypothesis import strategies as st

from dunetrace.detectors.cascading_tool_failure import DETECTOR as CASCADE
from dunetrace.detectors.cascading_tool_failure import CascadingToolFailureThresholds
from dunetrace.detectors.reasoning_stall import DETECTOR as STALL
from dunetrace.detectors.reasoning_stall import ReasoningStallThresholds
from dunetrace.detectors.retry_storm import DETECTOR as STORM
from dunetrace.detectors.retry_storm import RetryStormThresholds
from dunetrace.detectors.tool_loop import DETECTOR as LOOP
from dunetrace.detectors.tool_loop import ToolLoopThresholds
from dunetrace.detectors.tool_thrashing import DETECTOR as THRASHING
from dunetrace.detectors.tool_thrashing import ToolThrashingThresholds
from dunetrace.events import Event
from dunetrace.views.alternations import MIN_WINDOW
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


def _alternates_from(turn: list[Made]) -> list[int]:
    """For each call the first one of the alternation it belongs to; a failure among the first three ends it."""
    starts: list[int] = []
    least = 0
    for end, (_, _, ok) in enumerate(turn):
        start = next((i for i in range(least, end) if _alternates([made[0] for made in turn[i : end + 1]])), end)
        starts.append(start)
        least = max(least, start)
        if not ok and end - start + 1 < MIN_WINDOW:
            least = end + 1
    return starts


def _has_loop(turn: list[Made], size: int, window: int) -> bool:
    """Whether `size` equal calls, all but the last known good, lie within `window` calls of one turn."""
    starts = _alternates_from(turn)
    for end, (name, args, _) in enumerate(turn):
        good = [i for i in range(end) if turn[i] == (name, args, True)]
        if len(good) < size - 1:
            continue
        start = good[-(size - 1)]
        if end - start < window and start < starts[end]:
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
    is_loop = finding is not None and finding.evidence["kind"] == "equal"
    assert is_loop is any(_has_loop(turn, size, size + slack) for turn in turns)


Answered = tuple[str, int | None, str | None, bool]  # tool, arguments, output, whether it succeeded
_answered_moves = st.lists(
    st.one_of(
        st.just(None),
        st.tuples(
            st.sampled_from("aabbc"),
            st.one_of(st.none(), st.integers(0, 9), st.integers(10, 30)),
            st.one_of(st.none(), st.integers(0, 60).map(str)),
            st.sampled_from([True, True, True, True, False]),
        ),
    ),
    max_size=40,
)


def _longest_stale_alternation(stretch: list[Answered]) -> int:
    """Over all pairs of ends; a failed call can only be the last."""
    longest = 0
    for end in range(len(stretch)):
        start = next((i for i in range(end) if _alternates([c[0] for c in stretch[i : end + 1]])), end)
        part = stretch[start : end + 1]
        arguments = [(name, args) for name, args, _, _ in part]
        outputs = [(name, output) for name, _, output, ok in part if ok]
        known = all(value is not None for _, value in (*arguments, *outputs))
        if not (known and len(set(arguments)) == len(arguments) and len(set(outputs)) == len(outputs)):
            longest = max(longest, len(part))
    return longest


def _play(script: Script, moves: list[Answered | None]) -> Script:
    for move in moves:
        if move is None:
            script.user()
        else:
            script.tool(*move[:3], ok=move[3])
    return script


@unhurried
@given(_answered_moves, st.integers(4, 8))
def test_thrashing_is_found_exactly_where_a_recount_finds_it(moves: list[Answered | None], window: int) -> None:
    stretches: list[list[Answered]] = [[]]
    for move in moves:
        if move is not None:
            stretches[-1].append(move)
        if move is None or not move[3]:
            stretches.append([])
    finding = THRASHING.detect(folded(_play(Script().started(), moves)), ToolThrashingThresholds(window))
    longest = max(_longest_stale_alternation(stretch) for stretch in stretches)
    assert (finding is not None) is (longest >= window)
    if finding is not None:
        assert finding.evidence["call_count"] == longest


@unhurried
@given(
    st.lists(st.tuples(st.sampled_from("aab"), st.sampled_from([True, False, False, False])), max_size=40),
    st.integers(2, 4),
)
def test_failures_in_a_row_are_those_a_recount_finds(answers: list[tuple[str, bool]], threshold: int) -> None:
    script = Script().started()
    for i, (name, ok) in enumerate(answers):
        script.tool(name, i, i, ok=ok)
    streaks = [[name for name, _ in part] for ok, part in groupby(answers, key=lambda answer: answer[1]) if not ok]
    rows = [[len(list(row)) for _, row in groupby(streak)] for streak in streaks]
    run = folded(script.completed())
    storm = STORM.detect(run, RetryStormThresholds(threshold))
    longest = max((max(row) for row in rows), default=0)
    assert (storm.evidence["failure_count"] if storm else 0) == (longest if longest >= threshold else 0)
    mixed = [sum(row) for row in rows if len(row) > 1 and max(row) < 3]
    cascade = CASCADE.detect(run, CascadingToolFailureThresholds(threshold))
    longest = max(mixed, default=0)
    assert (cascade.evidence["failure_count"] if cascade else 0) == (longest if longest >= threshold else 0)


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
