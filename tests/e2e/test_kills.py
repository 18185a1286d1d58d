"""kill -9 at every moment under load, of the server and of Postgres: accepted and missing 0, stored twice 0.

Small here, at length by `make prove`. That the embedded Postgres of a killed server is taken over is test_crash.py's.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.e2e.clusters import Cluster
from tests.e2e.killing import KILLED, KILLED_AGAIN, SESSION_SHOT, SHOT, SMALL_SEGMENTS, Scene, strike
from tests.harness.load import Ledger
from tests.harness.server import Server

JOURNAL: Mapping[str, str] = SMALL_SEGMENTS
COMMIT: Mapping[str, str] = {"DUNETRACE_PROMISE": "commit"}
PROMISES = pytest.mark.parametrize("promise", [JOURNAL, COMMIT], ids=["journal", "commit"])


@contextmanager
def scene(cluster: Cluster, tmp_path: Path, env: Mapping[str, str], *, hosts: int = 1, seed: int) -> Iterator[Scene]:
    """`hosts` servers, each with a data directory of its own, on a new database."""
    url = cluster.database()
    with ExitStack() as stack:
        servers = [stack.enter_context(Server(tmp_path / f"host-{n}", database_url=url, env=env)) for n in range(hosts)]
        yield Scene(cluster, url, servers, Ledger(), random.Random(seed))


async def test_the_server_is_killed(cluster: Cluster, tmp_path: Path) -> None:
    with scene(cluster, tmp_path, JOURNAL, seed=1) as at:
        await strike(at, [KILLED], times=4)


async def test_postgres_is_killed(cluster: Cluster, tmp_path: Path) -> None:
    with scene(cluster, tmp_path, JOURNAL, seed=2) as at:
        await strike(at, [SHOT, SESSION_SHOT], times=4)


async def test_of_two_hosts_one_after_the_other_is_killed(cluster: Cluster, tmp_path: Path) -> None:
    """A retry goes to the other host, which may have taken the same batch before."""
    with scene(cluster, tmp_path, JOURNAL, hosts=2, seed=3) as at:
        await strike(at, [KILLED], times=4, repeat_share=0.2)


@pytest.mark.prove
@PROMISES
async def test_the_server_is_killed_many_times(cluster: Cluster, tmp_path: Path, promise: Mapping[str, str]) -> None:
    with scene(cluster, tmp_path, promise, seed=10) as at:
        await strike(at, [KILLED, KILLED_AGAIN], times=50, clients=6)


@pytest.mark.prove
@PROMISES
async def test_postgres_is_killed_many_times(cluster: Cluster, tmp_path: Path, promise: Mapping[str, str]) -> None:
    with scene(cluster, tmp_path, promise, seed=11) as at:
        await strike(at, [SHOT], times=50, clients=6)


@pytest.mark.prove
@PROMISES
async def test_a_session_of_postgres_is_killed_many_times(
    cluster: Cluster, tmp_path: Path, promise: Mapping[str, str]
) -> None:
    with scene(cluster, tmp_path, promise, seed=12) as at:
        await strike(at, [SESSION_SHOT], times=50, clients=6)


@pytest.mark.prove
async def test_server_and_postgres_are_killed_in_turn(cluster: Cluster, tmp_path: Path) -> None:
    with scene(cluster, tmp_path, JOURNAL, seed=13) as at:
        await strike(at, [KILLED, SHOT, KILLED_AGAIN, SESSION_SHOT], times=50, clients=6)


@pytest.mark.prove
async def test_two_hosts_are_killed_in_turn(cluster: Cluster, tmp_path: Path) -> None:
    with scene(cluster, tmp_path, JOURNAL, hosts=2, seed=14) as at:
        await strike(at, [KILLED, KILLED_AGAIN], times=50, clients=6, repeat_share=0.2)
