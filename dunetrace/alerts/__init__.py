"""How an alert looks to each kind of destination, and how it gets there.

A new kind of destination is a formatter in `FORMATS` and a `Destination` from its settings, never a branch elsewhere.
Used by the dispatcher and the destination actors.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from dunetrace.alerts import webhook
from dunetrace.alerts.destinations import Destination, destinations_from
from dunetrace.alerts.webhook import Message

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from dunetrace.deliveries import Alert

# (alert, the destination's secret, Unix seconds now) → what is POSTed
FORMATS: Mapping[str, Callable[[Alert, str | None, float], Message]] = {"webhook": webhook.message}

__all__ = ["FORMATS", "Destination", "Message", "destinations_from"]
