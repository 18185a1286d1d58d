"""Who was told what: every live signal arrived at each receiver that should have it, under the one delivery it has."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping

from tests.harness.invariants import rows
from tests.receiver import Mode, Received, Receiver

_WANTED = (
    "SELECT d.id::text AS delivery_id, d.run_id, d.destination FROM deliveries d JOIN failure_signals s "
    "USING (customer_id, run_id, failure_type) WHERE NOT s.shadow"
)
_RUN = re.compile(rb"/runs/([0-9a-f-]{36})")


def assert_told(database: str, receivers: Mapping[str, Receiver]) -> int:
    """`receivers` by destination. Returns how often one was told what it knew."""
    wanted: dict[str, dict[str, str]] = {name: {} for name in receivers}
    for row in rows(database, _WANTED):
        wanted[row["destination"]][row["delivery_id"]] = row["run_id"]
    repeats = 0
    for name, receiver in receivers.items():
        assert wanted[name], f"nothing was found that {name} should be told"
        told = _told_slack if name == "slack" else _told_webhook
        repeats += told(wanted[name], receiver.requests)
    return repeats


def _told_webhook(wanted: dict[str, str], requests: list[Received]) -> int:
    """`wanted` is {delivery_id: run_id}. What the receiver did not take may come again."""
    for request in requests:
        document = request.document
        assert request.headers["webhook-id"] == document["delivery_id"]
        assert wanted[document["delivery_id"]] == document["run_id"]
    taken = Counter(request.document["delivery_id"] for request in requests if request.mode is Mode.OK)
    assert taken.keys() == wanted.keys()
    return taken.total() - len(taken)


def _told_slack(wanted: dict[str, str], requests: list[Received]) -> int:
    """A message says no delivery_id, but which run it is about; one that is about none is a digest."""
    runs = [found[1].decode() for request in requests if (found := _RUN.search(request.body))]
    assert set(runs) <= set(wanted.values())
    taken = Counter(
        found[1].decode() for request in requests if request.mode is Mode.OK and (found := _RUN.search(request.body))
    )
    for run_id, times in Counter(wanted.values()).items():
        assert taken[run_id] >= times
    return taken.total() - len(wanted)
