"""What an alert tells beside its signal, read when it is told: of a fleet's the rise, of others what they cost.

Used by the destination actors. Most alerts need nothing read: evidence has tokens and time, and only prices need more.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from dunetrace.deliveries import Kind
from dunetrace.prices import cost_of
from dunetrace.store.reads import telling

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dunetrace.deliveries import Alert
    from dunetrace.prices import Prices
    from dunetrace.store.gateway import Gateway


async def completed(gateway: Gateway, alerts: Sequence[Alert], prices: Prices) -> list[Alert]:
    """The alerts with `fleet` or `cost`. StoreUnavailableError while Postgres is away."""
    fleets = [alert.delivery_id for alert in alerts if alert.kind is Kind.FLEET]
    others = [alert.delivery_id for alert in alerts if alert.kind is not Kind.FLEET]
    rises = await gateway.unit(telling.rises, fleets) if fleets else {}
    mixes = await gateway.unit(telling.token_mixes, others) if others and prices else {}
    told = []
    for alert in alerts:
        if alert.kind is not Kind.FLEET:
            told.append(alert._replace(cost=cost_of(alert.signal.evidence, mixes.get(alert.delivery_id), prices)))
        elif alert.delivery_id in rises:
            rise = rises[alert.delivery_id]
            told.append(alert._replace(fleet=rise.shift, signal=replace(alert.signal, severity=rise.severity)))
        else:
            told.append(alert)
    return told
