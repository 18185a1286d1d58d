"""A Postgres for the tests: one server a session, one database a test, copied from a migrated template.

The server is the embedded one; `DUNETRACE_TEST_DATABASE_URL` names another (its account must be able to create
databases), so that the same tests run on Postgres 15 too. Databases are not dropped one by one (that is slower than all
else here): the embedded server's directory goes as a whole, a given server's databases are dropped at the end.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import tempfile
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import asyncpg

from dunetrace.store import migrations
from dunetrace.store.embedded import EmbeddedPostgres

TEMPLATE = "dunetrace_template"
_numbers = itertools.count()


class TestPostgres:
    """A running server with a migrated template database."""

    __test__ = False

    def __init__(self) -> None:
        self._given = os.environ.get("DUNETRACE_TEST_DATABASE_URL")
        self._made: list[str] = []
        self._directory: tempfile.TemporaryDirectory[str] | None = None
        self.embedded: EmbeddedPostgres | None = None
        if self._given is None:
            self._directory = tempfile.TemporaryDirectory(prefix="dunetrace-test-", ignore_cleanup_errors=True)
            self.embedded = EmbeddedPostgres(Path(self._directory.name))
            self.embedded.start()
        self._admin("CREATE DATABASE " + self._name(TEMPLATE))
        _run(_migrate, self.url(self._name(TEMPLATE)))

    def _name(self, name: str) -> str:
        full = f"{name}_{os.getpid()}"
        if full not in self._made:
            self._made.append(full)
        return full

    def url(self, database: str) -> str:
        """The address of one database on this server."""
        base = self._given or (self.embedded.url if self.embedded else "")
        return urlunsplit(urlsplit(base)._replace(path=f"/{database}"))

    def database(self) -> str:
        """A new migrated database; its address."""
        name = self._name(f"test_{next(_numbers)}")
        self._admin(f"CREATE DATABASE {name} TEMPLATE {self._name(TEMPLATE)} STRATEGY FILE_COPY")
        return self.url(name)

    def empty_database(self) -> str:
        """A new database with nothing in it; its address."""
        name = self._name(f"test_{next(_numbers)}")
        self._admin(f"CREATE DATABASE {name}")
        return self.url(name)

    def close(self) -> None:
        if self.embedded is not None and self._directory is not None:
            self.embedded.stop()
            self._directory.cleanup()
        else:
            for name in self._made:
                self._admin(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")

    def _admin(self, sql: str) -> None:
        _run(_execute, self.url("postgres"), sql)


def _run(fn: Callable[..., Coroutine[Any, Any, None]], *args: str) -> None:
    """On a thread of its own: inside a trio test, asyncio would find trio's loop."""
    with ThreadPoolExecutor(1) as pool:
        pool.submit(lambda: asyncio.run(fn(*args))).result()


async def _execute(url: str, sql: str) -> None:
    conn = await asyncpg.connect(url)
    try:
        await conn.execute(sql)
    finally:
        await conn.close()


async def _migrate(url: str) -> None:
    conn = await asyncpg.connect(url)
    try:
        async with conn.transaction():
            await migrations.migrate(conn, migrations.load())  # type: ignore[arg-type]
    finally:
        await conn.close()
