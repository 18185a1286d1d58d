from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from dunetrace.issues import CLEAN_RUNS_TO_RESOLVE, IssueState, affected, clean
from tests.detection.generated import unhurried


def _after(state: IssueState, runs: str, at: float = 10.0) -> IssueState:
    for i, run in enumerate(runs):
        state = clean(state, at + i) if run == "c" else affected(state, at + i)
    return state


def test_an_issues_whole_life() -> None:
    opened = affected(None, 1.0)
    assert opened == IssueState("open", 1.0, 1.0, None, 1, 0)
    assert _after(opened, "cccc") == IssueState("open", 1.0, 1.0, None, 1, 4)
    assert _after(opened, "cccca") == IssueState("open", 1.0, 14.0, None, 2, 0)
    resolved = _after(opened, "ccccc")
    assert resolved == IssueState("resolved", 1.0, 1.0, 14.0, 1, 5)
    assert clean(resolved, 99.0) == resolved
    reopened = affected(resolved, 20.0)
    assert reopened == IssueState("reopened", 1.0, 20.0, None, 2, 0, times_reopened=1)
    assert affected(reopened, 21.0).status == "reopened"
    assert _after(reopened, "ccccc", 30.0).status == "resolved"


def test_a_time_before_the_last_one_widens_and_never_turns_back() -> None:
    state = affected(affected(None, 10.0), 4.0)
    assert (state.first_seen, state.last_seen) == (4.0, 10.0)


@unhurried
@given(st.text("ac", max_size=40))
def test_it_is_resolved_exactly_after_enough_clean_runs_in_a_row(runs: str) -> None:
    state = _after(affected(None, 1.0), runs)
    assert (state.status == "resolved") is runs.endswith("c" * CLEAN_RUNS_TO_RESOLVE)
    assert state.affected_runs == 1 + runs.count("a")


class Life(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.state: IssueState | None = None
        self.at = 0.0
        self.streak = self.seen = 0
        self.was_resolved = self.by_hand = False
        self.reopened = 0

    @rule()
    def a_run_is_affected(self) -> None:
        self.at += 1
        self.reopened += self.state is not None and self.state.status == "resolved"
        self.state = affected(self.state, self.at)
        self.seen, self.streak, self.by_hand = self.seen + 1, 0, False

    @rule()
    def a_person_resolves_it(self) -> None:
        self.at += 1
        if self.state is not None and self.state.status != "resolved":
            self.state = replace(self.state, status="resolved", resolved_at=self.at)
            self.was_resolved = self.by_hand = True

    @rule()
    def a_run_is_clean(self) -> None:
        self.at += 1
        if self.state is not None:
            self.state = clean(self.state, self.at)
            self.streak += 1
            self.was_resolved |= self.state.status == "resolved"

    @invariant()
    def the_state_is_what_was_seen(self) -> None:
        if self.state is None:
            return
        resolved = self.by_hand or self.streak >= CLEAN_RUNS_TO_RESOLVE
        assert self.state.status == ("resolved" if resolved else "reopened" if self.was_resolved else "open")
        assert (self.state.resolved_at is not None) is resolved
        assert self.state.affected_runs == self.seen
        assert self.state.times_reopened == self.reopened
        assert self.state.clean_runs_since == min(self.streak, CLEAN_RUNS_TO_RESOLVE)
        assert self.state.first_seen <= self.state.last_seen <= self.at


TestLife = Life.TestCase
TestLife.settings = unhurried
