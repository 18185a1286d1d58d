"""What a detector is made of. Every detector file declares one `Detector` of five parts; a missing part is an error.

1. the docstring: the failure, what it is not, an example;
2. `Thresholds`: each with default, unit, bounds and where the number comes from;
3. `Evidence`: counts, indices, ratios and hashes, the only names its words may use;
4. `detect(run, limits) -> Finding | None`, pure;
5. the `Detector` that ties them to severity, to whether it may speak early, and to the explanation's words.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from string import Formatter
from types import MappingProxyType
from typing import Any, Generic, TypeVar, cast

from dunetrace.runs import RunState
from dunetrace.signals import FailureType, Finding, Severity

Number = TypeVar("Number", int, float)


@dataclass(frozen=True, slots=True)
class Bounds:
    """What is allowed for one threshold, inclusive, and where its default comes from.

    `optional`: null switches it off.
    """

    low: float
    high: float
    unit: str
    source: str
    optional: bool = False


def limit(default: Number, *, unit: str, low: Number, high: Number, source: str, optional: bool = False) -> Number:
    """A field of a Thresholds class. The value is an int exactly when the default is, or None where it is optional."""
    bounds = Bounds(low, high, unit, source, optional)
    entry: Any = field(default=default, metadata={"bounds": bounds})
    return cast("Number", entry)


@dataclass(frozen=True, slots=True)
class Thresholds:
    """Base of every detector's thresholds; on its own, those of a detector without any."""

    def contradiction(self) -> str | None:
        """What is wrong between two values that are each within bounds, as a clause; None when all is well."""
        return None


@dataclass(frozen=True, slots=True)
class Evidence:
    """Base of every detector's evidence. Values are numbers, flags, names the developer chose, labels and hashes."""

    def as_dict(self) -> dict[str, Any]:
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}


@dataclass(frozen=True, slots=True)
class FixWords:
    """One suggested fix. `language` is ``python`` or ``text``; fields in `code` are written ``{name:literal}``."""

    description: str
    language: str
    code: str


@dataclass(frozen=True, slots=True)
class Words:
    """The explanation's templates, in `str.format` syntax over the evidence's names (formats: `explain.wording`)."""

    title: str
    what: str
    why_it_matters: str
    evidence_summary: str
    fixes: tuple[FixWords, ...]

    @property
    def templates(self) -> tuple[str, ...]:
        texts = (self.title, self.what, self.why_it_matters, self.evidence_summary)
        return (*texts, *(fix.description for fix in self.fixes), *(fix.code for fix in self.fixes))


AnyThresholds = TypeVar("AnyThresholds", bound=Thresholds)


@dataclass(frozen=True, slots=True)
class Detector(Generic[AnyThresholds]):
    """One failure type's detector. `severity` is the highest it gives.

    `monotone`: what it found cannot be taken back by later events, so it may speak while the run is still going on.
    `fires_on`: the event types after which a run that goes on may show something new to a monotone one; for the guard.
    `yields_to`: failures that look like this one as well; where a run has one of them, this one is not said again.
    `look_at`: when a run that goes on is worth another look even if nothing more is heard of it, as the server's time.
    `words` has one entry for each value of the evidence's `kind`, or the single key "" where there is no `kind`.
    """

    doc: str | None
    failure_type: FailureType
    severity: Severity
    monotone: bool
    thresholds: type[AnyThresholds]
    evidence: type[Evidence]
    detect: Callable[[RunState, AnyThresholds], Finding | None]
    words: Mapping[str, Words]
    fires_on: tuple[str, ...] = ()
    yields_to: tuple[FailureType, ...] = ()
    look_at: Callable[[RunState, AnyThresholds], float | None] | None = None
    name: str = field(init=False)
    """Its section's name in detectors.yml."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "name", self.failure_type.value.lower())
        fault = self._fault()
        if fault:
            raise TypeError(f"detector {self.failure_type}: {fault}")
        object.__setattr__(self, "words", MappingProxyType(dict(self.words)))

    def words_for(self, evidence: Mapping[str, Any]) -> Words:
        found = self.words.get(str(evidence.get("kind", "")))
        return found if found is not None else next(iter(self.words.values()))

    def _fault(self) -> str | None:
        if len((self.doc or "").split()) < 30:
            return "the module's docstring must say what the failure is, what it is not, and give an example"
        for part, base in ((self.thresholds, Thresholds), (self.evidence, Evidence)):
            if not (issubclass(part, base) and is_dataclass(part)):
                return f"{part.__name__} must be a dataclass derived from {base.__name__}"
        for entry in fields(self.thresholds):
            if not isinstance(entry.metadata.get("bounds"), Bounds):
                return f"threshold {entry.name} must be made by limit(), with unit, bounds and source"
        if not fields(self.evidence):
            return "evidence has no field"
        if self.monotone is not bool(self.fires_on):
            return "fires_on must name event types where it is monotone, and none where it is not"
        if not self.words:
            return "words are missing"
        return next(filter(None, (self._fault_of_words(words) for words in self.words.values())), None)

    def _fault_of_words(self, words: Words) -> str | None:
        known = {entry.name for entry in fields(self.evidence)}
        if not 1 <= len(words.fixes) <= 3:
            return "an explanation has 1 to 3 fixes"
        for template in words.templates:
            if not template.strip():
                return "a text of the explanation is empty"
            used = {name for _, name, _, _ in Formatter().parse(template) if name is not None}
            if used - known:
                return f"the words use {sorted(used - known)}, which the evidence does not have"
        return None


def confidence(margin: float, floor: float, ceiling: float = 0.99) -> float:
    """How sure a finding is: `floor` at the threshold (margin 1.0), nearing `ceiling` as the margin over it grows."""
    surplus = 1 - 1 / max(1.0, margin) if math.isfinite(margin) else 1.0
    return round(floor + (ceiling - floor) * surplus, 2)
