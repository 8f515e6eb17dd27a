"""Facts of the whole database, by name, in SQLite."""

from __future__ import annotations

from hecaton.store.sqlite.statements import Statements


class MetaVerbs:
    """On the thread, and in the transaction, of its statements. A key never set has no value."""

    def __init__(self, statements: Statements) -> None:
        self._sql = statements.run
        self._first = statements.first

    def meta(self, key: str) -> str | None:
        value: str | None
        (value,) = self._first("SELECT value FROM meta WHERE key = ?", key) or (None,)
        return value

    def set_meta(self, key: str, value: str) -> None:
        self._sql(
            "INSERT INTO meta (key, value) VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value",
            (key, value),
        )
