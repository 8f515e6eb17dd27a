"""Brings a SQLite database to the schema of this release: numbered SQL files, each applied once in its own transaction.

Called when a database is opened. The version is kept in `PRAGMA user_version`, which is part of the transaction: a kill
at any moment leaves either the old or the new version, and the next start goes on from there.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from importlib import resources

from hecaton.core.errors import Unavailable


class NewerDatabase(Unavailable):
    """A newer release of Hecaton wrote the database: only a person can go on from here."""


def migrations() -> list[tuple[int, str]]:
    """(version, SQL) of every migration that this release knows, oldest first."""
    folder = resources.files("hecaton.store.sqlite") / "migrations"
    files = sorted((file for file in folder.iterdir() if file.name.endswith(".sql")), key=lambda file: file.name)
    return [(int(file.name.split("_", 1)[0]), file.read_text(encoding="utf-8")) for file in files]


def version_of(connection: sqlite3.Connection) -> int:
    version: int
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    return version


def migrate(connection: sqlite3.Connection, name: str) -> None:
    """Bring the database to this release. NewerDatabase if `name` (for the message) was written by a newer one."""
    apply(connection, name, migrations())


def apply(connection: sqlite3.Connection, name: str, known: Sequence[tuple[int, str]]) -> None:
    """Apply those migrations that the database has not seen."""
    newest = known[-1][0]
    current = version_of(connection)
    if current > newest:
        raise NewerDatabase(
            f"the database {name} has schema version {current}, this release of Hecaton knows versions up to {newest}",
            "It was written by a newer release: install that release again, or restore a backup made by this one.",
        )
    for version, sql in known:
        if version > current:
            try:
                connection.executescript(f"BEGIN IMMEDIATE;\n{sql}\nPRAGMA user_version = {version};\nCOMMIT;")
            except sqlite3.Error:
                if connection.in_transaction:
                    connection.rollback()
                raise
