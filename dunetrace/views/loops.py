"""Tool calls that repeat, for TOOL_LOOP. Fed by the fold of `runs.RunState`, one call at a time."""

from __future__ import annotations

from collections import OrderedDict
from typing import NamedTuple

from dunetrace.calls import Call
from dunetrace.views.again import AgainView
from dunetrace.views.alternations import MIN_WINDOW, AlternationView

MAX_REPEATS = 20  # the largest number of equal calls a threshold may ask for
MAX_WINDOW = 100  # the widest window, in tool calls
MAX_TOOL_NAMES = 1_000  # names beyond these are taken as seen before


class Repeat:
    """One call made again and again within a stretch.

    `count` is the most calls ever known good at one time, so it never falls when the last of them turns out to fail.
    """

    __slots__ = (
        "args_hash", "count", "first_number", "first_step", "last_number", "last_step", "live", "numbers", "outcome",
        "same_arguments", "tokens_seen", "tool_name", "wasted_ms", "wasted_tokens",
    )  # fmt: skip

    def __init__(self, call: Call, tokens: int, outcome: str) -> None:
        self.tool_name = call.name
        self.args_hash = call.args_hash
        self.same_arguments = True
        self.outcome = outcome
        self.first_step = self.last_step = call.step_index
        self.first_number = self.last_number = call.tool_number
        self.live = self.count = 1
        self.numbers = [call.tool_number]  # of the last MAX_REPEATS calls; a deque would take ten times the bytes
        self.tokens_seen = tokens
        self.wasted_tokens = 0
        self.wasted_ms = 0.0

    def extend(self, call: Call, tokens: int) -> None:
        """One more call. The tokens spent on the way here are shared evenly among the calls in between."""
        if self.live:
            self.wasted_tokens += (tokens - self.tokens_seen) // max(1, call.tool_number - self.last_number)
        self.same_arguments = self.same_arguments and call.args_hash == self.args_hash
        self.tokens_seen = tokens
        self.last_step = call.step_index
        self.last_number = call.tool_number
        self.numbers.append(call.tool_number)
        if len(self.numbers) > MAX_REPEATS:
            del self.numbers[0]
        self.live += 1
        self.count = max(self.count, self.live)

    def finished(self, call: Call) -> None:
        """An answer came: every call but the first was for nothing."""
        if call.tool_number != self.first_number:
            self.wasted_ms += call.duration_ms or 0.0

    def withdraw(self, call: Call) -> None:
        """The call failed: it counts no longer for what is still to come."""
        self.live -= 1
        if call.tool_number in self.numbers:
            self.numbers.remove(call.tool_number)


class Cluster(NamedTuple):
    """Enough calls of one Repeat close enough together; `step_index` is where the last of them was made."""

    repeat: Repeat
    step_index: int


class Repeats:
    """Calls that compare equal under one key, and for each (size, span) the cluster that grew largest.

    Keys not seen for MAX_WINDOW tool calls are forgotten: no window could hold them together with a new call.
    """

    __slots__ = ("_by_key", "clusters")

    def __init__(self) -> None:
        self._by_key: OrderedDict[tuple[str, ...], Repeat] = OrderedDict()
        self.clusters: dict[tuple[int, int], Cluster] = {}

    @property
    def entries(self) -> int:
        """How many things are kept, for the estimate of bytes."""
        return len(self._by_key) + len(self.clusters)

    def add(self, key: tuple[str, ...], call: Call, tokens: int, *, since: int = 0, outcome: str = "") -> Repeat:
        """Count `call` under `key`, which starts anew with another `outcome` than before.

        What lies before tool call `since` is parted from this call by visible progress and forms no cluster with it.
        A call answered after a later one of its key adds nothing.
        """
        repeat = self._by_key.get(key)
        if repeat is not None and repeat.live and call.tool_number <= repeat.last_number:
            return repeat
        self._by_key.pop(key, None)
        oldest = call.tool_number - MAX_WINDOW
        if repeat is None or not repeat.live or repeat.last_number <= oldest or repeat.outcome != outcome:
            repeat = Repeat(call, tokens, outcome)
        else:
            repeat.extend(call, tokens)
            self._note_clusters(repeat, call, max(since, oldest + 1))
        self._by_key[key] = repeat
        if oldest > 0:
            while next(iter(self._by_key.values())).last_number <= oldest:
                self._by_key.popitem(last=False)
        return repeat

    def _note_clusters(self, repeat: Repeat, call: Call, since: int) -> None:
        for size, first in enumerate(reversed(repeat.numbers), start=1):
            if first < since:
                break
            # a strict alternation of two tools from the first to the last is thrashing, not a loop
            if size < 2 or first >= call.alternating_since:
                continue
            place = (size, call.tool_number - first + 1)
            held = self.clusters.get(place)
            if held is None or held.repeat.count < repeat.count:
                self.clusters[place] = Cluster(repeat, call.step_index)

    def worst(self, size: int, window: int) -> Cluster | None:
        """The largest repetition of which `size` calls lie within `window` tool calls."""
        if not self.clusters:
            return None
        found = [self.clusters[size, span] for span in range(size, window + 1) if (size, span) in self.clusters]
        return max(found, key=lambda cluster: cluster.repeat.count, default=None)

    def turn(self) -> None:
        self._by_key.clear()


class LoopView:
    """Tool calls that repeat. `equal`: same name and arguments; `shapes`: same once ids and times are masked, with the
    same outcome each time; `pairs` and `names`: repeats with nothing new learned, by arguments or by name alone;
    `again`: calls made again in a turn, however far apart."""

    __slots__ = (
        "_alternating_since", "_last_name", "_name_before", "_progress", "_seen", "_tool_names", "_tool_number",
        "_turned_at", "again", "alternations", "equal", "names", "pairs", "shapes",
    )  # fmt: skip

    def __init__(self) -> None:
        self.equal, self.shapes, self.pairs, self.names = Repeats(), Repeats(), Repeats(), Repeats()
        self.alternations = AlternationView()
        self.again = AgainView()
        self._tool_number = self._turned_at = 0
        self._last_name = self._name_before = ""
        self._alternating_since = 1
        self._progress = 0  # the last tool call that visibly led on
        self._tool_names: set[str] = set()
        self._seen: OrderedDict[tuple[str, str], int] = OrderedDict()

    def called(self, call: Call, tokens: int) -> None:
        self._tool_number += 1
        call.tool_number = self._tool_number
        if call.name == self._last_name:
            self._alternating_since = call.tool_number
        elif call.name != self._name_before:
            self._alternating_since = max(self._alternating_since, call.tool_number - 1)
        call.alternating_since = self._alternating_since
        self._name_before, self._last_name = self._last_name, call.name
        if call.name not in self._tool_names and len(self._tool_names) < MAX_TOOL_NAMES:
            self._tool_names.add(call.name)
            self._progress = call.tool_number
        self.alternations.called(call, tokens)
        if call.args_hash:
            call.repeat = self.equal.add((call.name, call.args_hash), call, tokens)

    def answered(self, call: Call, tokens: int, output_hash: str, output_length: int, error_hash: str) -> None:
        """Take in the answer to `call`; empty hashes and a length of 0 mean unknown."""
        repeat, call.repeat = call.repeat, None  # the run keeps its last calls, and need not keep this with each
        if repeat is not None:
            if call.failed:
                repeat.withdraw(call)
            else:
                repeat.finished(call)
        self.alternations.answered(call, output_hash)
        if call.failed and self._tool_number - self._alternating_since + 1 < MIN_WINDOW:
            # too short to be thrashing, and it cannot grow: good calls beside failing ones may still be a loop
            self._alternating_since = max(self._alternating_since, call.tool_number + 1)
        self._note_progress(call, error_hash if call.failed else output_hash)
        if call.failed or call.tool_number <= max(self._turned_at, self._tool_number - MAX_WINDOW):
            return
        if call.args_hash:
            self.again.answered(call)
        outcome = output_hash or (str(output_length) if output_length else "")
        # where nothing was masked, `equal` has it already
        if call.shape_hash and outcome and call.shape_hash != call.args_hash:
            self.shapes.add((call.name, call.shape_hash), call, tokens, outcome=outcome).finished(call)
        if output_hash:
            since = self._progress
            self.names.add((call.name, output_hash), call, tokens, since=since).finished(call)
            if call.args_hash:
                self.pairs.add((call.name, call.args_hash, output_hash), call, tokens, since=since).finished(call)

    def _note_progress(self, call: Call, outcome: str) -> None:
        seen = self._seen.pop((call.name, outcome), None) if outcome else None
        if seen is None:
            self._progress = max(self._progress, call.tool_number)
        if outcome:
            self._seen[call.name, outcome] = call.tool_number
            if len(self._seen) > MAX_WINDOW:
                self._seen.popitem(last=False)

    def turn(self) -> None:
        """The user spoke: whatever comes next starts afresh."""
        for repeats in (self.equal, self.shapes, self.pairs, self.names):
            repeats.turn()
        self.alternations.turn()
        self.again.turn()
        self._seen.clear()
        self._last_name = self._name_before = ""
        self._turned_at = self._tool_number

    @property
    def repeating(self) -> bool:
        """Whether anything was ever repeated, whatever the window: most runs have nothing to look at."""
        return bool(self.equal.clusters or self.names.clusters or self.shapes.clusters or self.pairs.clusters) or bool(
            self.again.widest.repeats
        )

    @property
    def entries(self) -> int:
        """How many things are kept, for the estimate of bytes."""
        kept = self.equal.entries + self.shapes.entries + self.pairs.entries + self.names.entries
        return kept + len(self._seen) + len(self._tool_names) + self.alternations.entries + self.again.entries
