"""Fixtures every room uses: a real Postgres, and a fresh migrated database a test."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest

from dunetrace.store.gateway import Gateway, open_gateway
from tests.postgres import TestPostgres


@pytest.fixture(scope="session")
def postgres() -> Iterator[TestPostgres]:
    server = TestPostgres()
    yield server
    server.close()


@pytest.fixture
def database(postgres: TestPostgres) -> str:
    """The address of a migrated database of this test's own."""
    return postgres.database()


@pytest.fixture
async def gateway(database: str) -> AsyncIterator[Gateway]:
    """A gateway to this test's own database."""
    async with open_gateway(database) as opened:
        yield opened
