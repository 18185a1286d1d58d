"""Two processes with a dispatcher each on one Postgres: both tell, nothing is told twice, and one is enough."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest
import trio

from dunetrace.actors.hand import MOST
from tests import pagerduty, slack
from tests.e2e.looping import loop
from tests.harness.invariants import assert_invariants, rows
from tests.harness.server import Server
from tests.receiver import Receiver

SEVERITIES = {"people": "HIGH", "on-call": "HIGH"}
ALERTS = """
destinations:
  - {name: audit, kind: webhook, url: "${AUDIT_URL}"}
  - {name: people, kind: slack, url: "${SLACK_URL}", gather: 2s, digest: false}
  - {name: on-call, kind: pagerduty, url: "${PAGER_URL}", routing_key: "${PAGER_KEY}", gather: off}
"""
# The first takes runs in, the second only judges and tells.
ROLES = ("ingest,writer,poller,dispatcher,api", "poller,dispatcher")
RUNS, OVER_S = 200, 4.0
TOLD_AGAIN_S = 60.0  # a lease of 30 s ends before somebody else tells what the dead process was about to
_MORE = re.compile(r"Still happening: ([\d,]+) more")


class Told(NamedTuple):
    """What arrived: how often each delivery came, at the webhook and at PagerDuty; and Slack's texts."""

    audit: Counter[str]
    pager: Counter[str]
    people: list[str]

    @property
    def counted(self) -> int:
        """Runs that Slack was told of: by themselves, or counted by an update."""
        return sum(int(found[1].replace(",", "")) if (found := _MORE.search(text)) else 1 for text in self.people)


class Houses(NamedTuple):
    database: str
    first: Server
    second: Server
    audit: Receiver
    people: Receiver
    pager: Receiver

    async def told(self, *, timeout_s: float = 60) -> Told:
        """Once all is told."""
        await assert_invariants(self.database, server=self.first, min_severity=SEVERITIES, timeout_s=timeout_s)
        events = [pagerduty.accept(request.body) for request in self.pager.requests]
        return Told(
            Counter(request.document["delivery_id"] for request in self.audit.requests),
            Counter(event["payload"]["custom_details"]["delivery_id"] for event in events),
            [slack.accept(request.body)["text"] for request in self.people.requests],
        )

    def owed(self, destination: str) -> set[str]:
        """The ids of all its deliveries."""
        return {
            row["id"]
            for row in rows(self.database, "SELECT id::text FROM deliveries WHERE destination = $1", destination)
        }


@contextmanager
def _houses(tmp_path: Path, database: str) -> Iterator[Houses]:
    config = tmp_path / "alerts.yml"
    config.write_text(ALERTS)
    with ExitStack() as stack:
        audit, people, pager = (
            stack.enter_context(Receiver(**plays)) for plays in ({}, {"slack": True}, {"pagerduty": True})
        )
        env = {
            "ALERTS_CONFIG": str(config), "AUDIT_URL": audit.url, "SLACK_URL": people.url, "PAGER_URL": pager.url,
            "PAGER_KEY": pagerduty.ROUTING_KEY, "DUNETRACE_ALLOW_PRIVATE_DESTINATIONS": "true",
        }  # fmt: skip
        first, second = (
            stack.enter_context(Server(tmp_path / str(n), database_url=database, env=env, args=["--actors", roles]))
            for n, roles in enumerate(ROLES)
        )
        yield Houses(database, first, second, audit, people, pager)


async def test_both_tell_and_nothing_is_told_twice(tmp_path: Path, database: str) -> None:
    with _houses(tmp_path, database) as houses:
        await loop(houses.first.ingest_url, "run", RUNS, OVER_S)
        told = await houses.told()
        for each, name in ((told.audit, "audit"), (told.pager, "on-call")):
            assert each == Counter(houses.owed(name))
            assert len(each) == RUNS
        assert told.counted == RUNS and len(told.people) == len(houses.owed("people")) <= RUNS // 10
        shares = [server.log_path.read_text().count("delivery.done") for server in (houses.first, houses.second)]
        assert sum(shares) == 2 * RUNS + len(told.people) and min(shares) > 0
    print(f"told by the two: {shares}, Slack: {told.people}")


@pytest.mark.parametrize("kills", [1, pytest.param(8, marks=pytest.mark.prove)])
async def test_one_is_killed_while_both_tell(tmp_path: Path, database: str, kills: int) -> None:
    """What the dead one had in hand may come again, under the same id; nothing else does, and nothing is missing."""
    with _houses(tmp_path, database) as houses:
        for turn in range(kills):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(loop, houses.first.ingest_url, f"run {turn}", RUNS, OVER_S)
                half = turn * RUNS + RUNS // 2
                await trio.to_thread.run_sync(houses.audit.wait_for, half, TOLD_AGAIN_S)
                await trio.to_thread.run_sync(houses.second.kill)
            if turn < kills - 1:
                await trio.to_thread.run_sync(houses.second.start)
        told = await houses.told(timeout_s=TOLD_AGAIN_S)
        repeats = 0
        for each, name in ((told.audit, "audit"), (told.pager, "on-call")):
            assert each.keys() == houses.owed(name)
            assert len(each) == kills * RUNS
            repeats += each.total() - len(each)
        assert repeats <= 2 * MOST * kills
        people_again = len(told.people) - len(houses.owed("people"))
        assert 0 <= people_again <= kills
        assert told.counted >= kills * RUNS
        if not people_again:
            assert told.counted == kills * RUNS
    print(f"{kills} kills: told again {repeats} of {2 * kills * RUNS}, Slack {people_again} of {len(told.people)}")
