"""Numbered SQL, applied once each, in order, under one advisory lock. Called at boot and by ``migrate``.

A file that was applied must never change: its checksum is kept and compared.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from dunetrace.errors import SettingError
from dunetrace.telemetry import log

if TYPE_CHECKING:
    from dunetrace.store.gateway import Connection

LOCK_KEY = 0x64756E65  # "dune"
_NAME = re.compile(r"(\d{4})_[a-z0-9_]+\.sql")


class Migration(NamedTuple):
    number: int
    name: str
    sql: str

    @property
    def checksum(self) -> str:
        return hashlib.sha256(self.sql.encode()).hexdigest()


def directory() -> Path:
    """Where the SQL lies: inside an installed wheel, or beside the package in a checkout."""
    package = Path(__file__).resolve().parent.parent
    installed = package / "_sql"
    return installed if installed.is_dir() else package.parent / "sql"


def load(path: Path | None = None) -> list[Migration]:
    """Every numbered file of `path`, in order."""
    found = []
    for file in sorted((path or directory()).iterdir()):
        match = _NAME.fullmatch(file.name)
        if match:
            found.append(Migration(int(match.group(1)), file.stem, file.read_text("utf-8")))
    return found


async def migrate(conn: Connection, migrations: list[Migration]) -> list[str]:
    """Apply what is missing; one transaction for all of it, so a failed file leaves nothing behind.

    Returns the names applied. Raises SettingError when a file that was applied has changed since, or when the database
    is newer than this program.
    """
    await conn.execute("SELECT pg_advisory_xact_lock($1)", LOCK_KEY)
    await conn.execute(
        "CREATE TABLE IF NOT EXISTS schema_migrations (number INTEGER PRIMARY KEY, name TEXT NOT NULL, "
        "checksum TEXT NOT NULL, applied_at TIMESTAMPTZ NOT NULL DEFAULT now())"
    )
    done = {row["number"]: row for row in await conn.fetch("SELECT number, name, checksum FROM schema_migrations")}
    newer = sorted(set(done) - {migration.number for migration in migrations})
    if newer:
        raise SettingError(
            f"DATABASE_URL: the database has migration {newer[-1]:04d}, which this version of Dunetrace does not know; "
            "run the version that made it, or a newer one"
        )
    applied = []
    for migration in migrations:
        before = done.get(migration.number)
        if before is None:
            await conn.execute(migration.sql)
            await conn.execute(
                "INSERT INTO schema_migrations (number, name, checksum) VALUES ($1, $2, $3)",
                migration.number, migration.name, migration.checksum,
            )  # fmt: skip
            log.info("migration.applied", name=migration.name)
            applied.append(migration.name)
        elif before["checksum"] != migration.checksum:
            raise SettingError(
                f"sql/{migration.name}.sql: changed after it was applied to this database; "
                "put the file back and write the change as a new numbered file"
            )
    return applied
