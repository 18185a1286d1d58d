"""The agent answered although its search had found nothing, or nothing that fits.

The run gave an answer, and its last answered retrieval brought fewer than `min_results` results, or its best score was
below `min_score`. Scores are judged only within 0 to 1: others are distances or of another scale. A good retrieval
after it, or one answered while it was still under way, puts it right.

It is not: a run that ended without an answer, a search that was repeated with success, or a retrieval whose count and
score were not reported.

Example: `policies` returns 0 documents for a question on refunds, and the agent explains the refund rules all the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import takewhile
from typing import Literal

from dunetrace.detectors.declaration import Detector, Evidence, FixWords, Thresholds, Words, confidence, limit
from dunetrace.runs import RunState
from dunetrace.signals import FailureType, Finding, Severity
from dunetrace.views.retrievals import Retrieved


@dataclass(frozen=True, slots=True)
class RagEmptyRetrievalThresholds(Thresholds):
    min_results: int = limit(
        1, unit="results", low=1, high=100,
        source="without any document an answer rests on what the model happens to remember",
    )  # fmt: skip
    min_score: float = limit(
        0.3, unit="the best score", low=0.0, high=1.0, optional=True,
        source="below that, cosine scores of common embedding models mean texts that share no topic",
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class RagEmptyRetrievalEvidence(Evidence):
    """`result_count` and `top_score` are -1 where they were not reported; `min_score` is 0 where it is switched off.

    `bad_retrievals` counts the bad ones in a row up to the last, at most 50.
    """

    kind: Literal["empty", "low_score"]
    index_name: str
    result_count: int
    min_results: int
    top_score: float
    min_score: float
    bad_retrievals: int
    retrieval_calls: int
    first_step: int
    last_step: int
    wasted_calls: int
    wasted_ms: int


def detect(run: RunState, limits: RagEmptyRetrievalThresholds) -> Finding | None:
    if not run.answered or not run.retrievals.last:
        return None
    last = run.retrievals.last[-1]
    kind = _fault(last, limits)
    if kind is None or any(r.answered_at > last.called_at and _is_good(r, limits) for r in run.retrievals.last):
        return None
    bad = list(takewhile(lambda retrieved: _fault(retrieved, limits), reversed(run.retrievals.last)))
    evidence = RagEmptyRetrievalEvidence(
        kind=kind,
        index_name=last.index_name,
        result_count=-1 if last.result_count is None else last.result_count,
        min_results=limits.min_results,
        top_score=-1.0 if last.top_score is None else round(last.top_score, 4),
        min_score=limits.min_score or 0.0,
        bad_retrievals=len(bad),
        retrieval_calls=run.retrieval_calls,
        first_step=bad[-1].step_index,
        last_step=last.step_index,
        wasted_calls=len(bad),
        wasted_ms=round(sum(retrieved.duration_ms for retrieved in bad)),
    )
    sure = confidence(len(bad), 0.8 if kind == "empty" else 0.6)
    return Finding(Severity.MEDIUM, sure, last.step_index, evidence.as_dict())


def _fault(retrieved: Retrieved, limits: RagEmptyRetrievalThresholds) -> Literal["empty", "low_score"] | None:
    if retrieved.result_count is not None and retrieved.result_count < limits.min_results:
        return "empty"
    score = _score(retrieved)
    return "low_score" if score is not None and score < (limits.min_score or 0.0) else None


def _is_good(retrieved: Retrieved, limits: RagEmptyRetrievalThresholds) -> bool:
    is_known = retrieved.result_count is not None or _score(retrieved) is not None
    return is_known and _fault(retrieved, limits) is None


def _score(retrieved: Retrieved) -> float | None:
    """The best score, where it is one that can be judged."""
    score = retrieved.top_score
    return score if score is not None and 0 <= score <= 1 else None


_ONLY_WHAT_WAS_FOUND = FixWords(
    description="Answer only from what was found, and say so when that is nothing.",
    language="python",
    code='''\
def context_from(results, min_results={min_results:literal}, min_score={min_score:literal}):
    """The texts to answer from, or None: then tell the user that nothing was found, without asking the model."""
    good = [r["text"] for r in results if r.get("score") is None or r["score"] >= min_score]
    return good if len(good) >= min_results else None


assert context_from([]) is None
assert context_from([{{"text": "Refunds take 5 days.", "score": 0.9}}] * {min_results:literal}) is not None
''',
)
_SAY_SO = FixWords(
    description="Tell the model not to fill the gap from memory.",
    language="text",
    code="Answer only from the documents you were given. If they do not contain the answer, say that you found "
    "nothing on it and ask for a detail that would help to search again. Do not answer from general knowledge.",
)
_SEARCH_AGAIN = FixWords(
    description="Search once more in other words before giving up.",
    language="python",
    code='''\
def search_twice(search, query, rephrase):
    """Results for the query, or for its rephrased form where there are none."""
    return search(query) or search(rephrase(query))


pages = {{"refund": ["Refunds take 5 days."]}}
found = search_twice(lambda q: pages.get(q, []), "refund for flight AB12", lambda q: q.split()[0])
assert found == ["Refunds take 5 days."]
''',
)
_WHY = (
    "With nothing usable found, a model tends to answer from memory or to make things up, and that reads just as sure "
    "as a correct answer. Nobody can check it against a source."
)

DETECTOR = Detector(
    doc=__doc__,
    failure_type=FailureType.RAG_EMPTY_RETRIEVAL,
    severity=Severity.MEDIUM,
    monotone=False,
    thresholds=RagEmptyRetrievalThresholds,
    evidence=RagEmptyRetrievalEvidence,
    detect=detect,
    words={
        "empty": Words(
            title="Empty retrieval: answered on {result_count:result|results} from {index_name:name}",
            what="The run's last search, of {index_name:name} at step {last_step}, returned "
            "{result_count:result|results} ({min_results} or more are expected), and the run answered all the same.",
            why_it_matters=_WHY,
            evidence_summary="{result_count:result|results} from {index_name:name} at step {last_step} (least "
            "{min_results}), then an answer; {bad_retrievals:bad retrieval|bad retrievals in a row} from step "
            "{first_step} on, {wasted_ms:ms} in all",
            fixes=(_ONLY_WHAT_WAS_FOUND, _SAY_SO, _SEARCH_AGAIN),
        ),
        "low_score": Words(
            title="Poor retrieval: answered on a best score of {top_score:.2f} from {index_name:name}",
            what="The best result of the run's last search, of {index_name:name} at step {last_step}, scored "
            "{top_score:.2f}, below the limit of {min_score:.2f}, and the run answered all the same.",
            why_it_matters=_WHY,
            evidence_summary="best score {top_score:.2f} from {index_name:name} at step {last_step} (limit "
            "{min_score:.2f}), then an answer; {bad_retrievals:bad retrieval|bad retrievals in a row} from step "
            "{first_step} on, {wasted_ms:ms} in all",
            fixes=(_ONLY_WHAT_WAS_FOUND, _SAY_SO, _SEARCH_AGAIN),
        ),
    },
)  # fmt: skip
