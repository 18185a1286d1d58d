"""What tokens cost: a price table the user gives, and what of a run's money a failure wasted.

Nothing here knows a price by itself: without a table there are tokens and time, and no money. `config` reads the file
and has it checked here; alerts and the API put prices to what is stored when they show it. No I/O.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from functools import lru_cache
from typing import Any, Final, NamedTuple

from dunetrace.errors import SettingError
from dunetrace.explain.wording import fill

MAX_USD: Final = 1_000_000.0
_A_MILLION: Final = 1_000_000
_FIELDS: Final = ("input", "cached_input", "output")

# {model: [prompt, cached, completion]}; cached tokens are part of the prompt's.
Mix = Mapping[str, Sequence[float]]


class Price(NamedTuple):
    """USD a million tokens. `cached_input` is `input` where no discount is known."""

    input: float
    cached_input: float
    output: float

    def usd(self, prompt: float, cached: float, completion: float) -> float:
        paid = (prompt - cached) * self.input + cached * self.cached_input + completion * self.output
        return paid / _A_MILLION


class Prices:
    """A price table; an empty one knows no model. Of several patterns that fit a model the most specific is taken."""

    def __init__(self, models: Mapping[str, Price] | None = None) -> None:
        names = sorted(models or {}, key=lambda name: ("*" in name, -len(name.replace("*", "")), name))
        self._prices = [(_pattern(name), models[name]) for name in names] if models else []
        self.of = lru_cache(maxsize=1024)(self._find)

    def __bool__(self) -> bool:
        return bool(self._prices)

    def cost_usd(self, mix: Mix | None) -> float | None:
        """What these tokens cost; None where there are none, or where one of the models has no price."""
        priced = [(self.of(model), spent) for model, spent in (mix or {}).items()]
        known = [price.usd(*spent) for price, spent in priced if price is not None]
        return sum(known) if priced and len(known) == len(priced) else None

    def wasted_usd(self, wasted_tokens: int, mix: Mix | None) -> float | None:
        """What `wasted_tokens` of a run cost, as if they were of the same kinds as all of its tokens."""
        cost = self.cost_usd(mix)
        tokens = sum(prompt + completion for prompt, _, completion in (mix or {}).values())
        return None if cost is None or not tokens else cost * wasted_tokens / tokens

    def _find(self, model: str) -> Price | None:
        return next((price for pattern, price in self._prices if fnmatchcase(model, pattern)), None)


NO_PRICES: Final = Prices()


class Cost(NamedTuple):
    """What a failure wasted, as far as its evidence knows; `wasted_usd` None where no price is known."""

    wasted_tokens: int
    wasted_ms: int
    wasted_usd: float | None = None

    def words(self) -> str | None:
        """In one line; None when nothing is known to be wasted."""
        parts = []
        if self.wasted_tokens:
            parts.append(fill("{tokens:token|tokens}", {"tokens": self.wasted_tokens}))
        if self.wasted_ms:
            parts.append(fill("{ms:ms}", {"ms": self.wasted_ms}))
        money = "" if self.wasted_usd is None or not self.wasted_tokens else f" ({_about(self.wasted_usd)})"
        return f"Wasted {' and '.join(parts)}{money}" if parts else None

    def as_json(self) -> dict[str, Any]:
        return self._asdict()


def cost_of(evidence: Mapping[str, Any], mix: Mix | None, prices: Prices) -> Cost:
    """The cost of a signal: its evidence's waste, priced at its run's own mix of tokens."""
    tokens = _whole(evidence.get("wasted_tokens"))
    return Cost(tokens, _whole(evidence.get("wasted_ms")), prices.wasted_usd(tokens, mix))


def check(document: object) -> Prices:
    """The table of a price file. SettingError in one line that names the entry, its fault and what is allowed."""
    if document is None:
        return NO_PRICES
    models = document.get("models") if isinstance(document, Mapping) and set(document) == {"models"} else None
    if not isinstance(models, Mapping):
        raise SettingError(
            'prices.yml: must be a mapping of models, as in models: {"gpt-4o": {input: 2.50, output: 10.00}}'
        )
    return Prices({_name(name): _price(name, entry) for name, entry in models.items()})


def _name(name: object) -> str:
    if not isinstance(name, str) or not name:
        raise SettingError(f"prices.yml: models: {_shown(name)} is not a model's name; write it in quotes")
    return name


def _price(name: str, entry: object) -> Price:
    place = f"prices.yml: {_shown(name)}"
    if not isinstance(entry, Mapping):
        raise SettingError(f"{place}: must be a mapping of {', '.join(_FIELDS)}, and is {_shown(entry)}")
    for key in entry:
        if key not in _FIELDS:
            raise SettingError(f"{place}: unknown key {_shown(key)}; known: {', '.join(_FIELDS)}")
    for key in ("input", "output"):
        if key not in entry:
            raise SettingError(f"{place}: {key} is missing; it is a number of USD a million tokens")
    return Price(
        _usd(f"{place}: input", entry["input"]),
        _usd(f"{place}: cached_input", entry.get("cached_input", entry["input"])),
        _usd(f"{place}: output", entry["output"]),
    )


def _usd(place: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= MAX_USD:
        raise SettingError(
            f"{place}: {_shown(value)} is not a number; allowed is USD a million tokens from 0 to {MAX_USD:g}"
        )
    return float(value)


def _shown(value: object) -> str:
    """A value from the file, quoted and on one line, cut where it is long."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _pattern(name: str) -> str:
    """A name of the table as a shell pattern in which only ``*`` is special."""
    return name.replace("[", "[[]").replace("?", "[?]")


def _whole(value: object) -> int:
    return int(value) if isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < 1e18 else 0


def _about(usd: float) -> str:
    return "under $0.01" if usd < 0.005 else f"about ${usd:,.2f}"
