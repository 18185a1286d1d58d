"""Real input: 200 recorded runs through SDK, server and API."""

from __future__ import annotations

from pathlib import Path

from tests.harness.invariants import assert_invariants
from tests.harness.server import Server
from tests.replay import replay


async def test_two_hundred_real_runs_are_judged_as_they_were_recorded(database: str, tmp_path: Path) -> None:
    with Server(tmp_path, database_url=database) as server:
        report = await replay(server)
        await assert_invariants(database)
    print(report.table())
    assert (report.runs, report.passing) == (200, 84)
    assert report.mistakes == []
    loud_on_passing = sum(
        count for (_, severity, success), count in report.fired.items() if success and severity in ("HIGH", "CRITICAL")
    )
    assert loud_on_passing <= 1, report.table()
