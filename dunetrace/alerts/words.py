"""What every form says of an alert, in the same words: the signal's explanation, or that of what is told instead."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from dunetrace.explain import explain

if TYPE_CHECKING:
    from dunetrace.deliveries import Alert
    from dunetrace.explain import Explanation, RateContext


def words(alert: Alert, rate_context: RateContext | None = None) -> Explanation:
    """The alert in words; with `rate_context` also how common its failure is."""
    of_signal = explain(alert.signal, rate_context)
    if alert.fleet is None:
        return of_signal
    what = f"{alert.fleet.counts()}. In the newest of these runs: {of_signal.what}"
    return replace(of_signal, title=alert.fleet.title(), what=what)
