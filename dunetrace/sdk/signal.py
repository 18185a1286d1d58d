"""`DunetraceSignal`: what the guard tells an agent about its own run. Light, so that `quiet` can let it through."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dunetrace.explain import Explanation
    from dunetrace.signals import FailureSignal


class DunetraceSignal(Exception):  # noqa: N818 - it is the signal; raising it is one of the things to do with it
    """A failure that the guard sees in a run that is going on; raised, or given to the callback (`on_signal`).

    `failure_type` ("TOOL_LOOP", …) and `severity` ("MEDIUM", "HIGH", "CRITICAL") compare equal to text. `evidence`
    holds counts, steps, ratios and names the developer chose, never content nor digests; `step_index` is the step it
    points at and `confidence` 0.5..0.99. In words: `title`, `what`, `why_it_matters`, `evidence_summary`, and
    `suggested_fixes`, of which each has a `description`, a `language` and `code`.
    """

    def __init__(self, signal: FailureSignal, explanation: Explanation) -> None:
        super().__init__(signal, explanation)  # what it takes to be copied and pickled
        self.failure_type, self.severity, self.confidence = signal.failure_type, signal.severity, signal.confidence
        self.run_id, self.agent_id, self.agent_version = signal.run_id, signal.agent_id, signal.agent_version
        self.step_index, self.evidence = signal.step_index, signal.evidence
        self.title, self.what = explanation.title, explanation.what
        self.why_it_matters, self.evidence_summary = explanation.why_it_matters, explanation.evidence_summary
        self.suggested_fixes = explanation.suggested_fixes

    def __str__(self) -> str:
        return self.title
