"""What is there and not marked as deleted, remembered."""

from __future__ import annotations

from typing import Generic, TypeVar

from hecaton.core.model import WorkerId
from hecaton.store.sqlite.statements import Statements

K = TypeVar("K", int, WorkerId)


class There(Generic[K]):
    """Which rows of a table stand there without the flag that says that they are deleted, by their id. Each is looked
    up once: what is known stays true until the verb that deletes it, which forgets it; a deletion that is undone costs
    a look more."""

    # hot: benchmarks/latency.py - a look for each claim costs half as much as the claim

    def __init__(self, statements: Statements, table: str, flag: str) -> None:
        self._first = statements.first
        self._look = f"SELECT 1 FROM {table} WHERE id = ? AND {flag} = 0"  # noqa: S608
        self._known: set[K] = set()

    def has(self, row: K) -> bool:
        if row not in self._known:
            if self._first(self._look, row) is None:
                return False
            self._known.add(row)
        return True

    def forget(self, row: K) -> None:
        self._known.discard(row)


class AllThere:
    """Of the tables whose rows others name: users and images by number, workers by id."""

    def __init__(self, statements: Statements) -> None:
        self.users = There[int](statements, "user", "deleted")
        self.images = There[int](statements, "image", "deleted")
        self.workers = There[WorkerId](statements, "worker", "removed")
