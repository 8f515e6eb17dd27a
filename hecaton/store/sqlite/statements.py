"""The way of the verbs to SQLite: statements in the transaction that is open on one connection."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from typing import Any, TypeVar

Row = Sequence[Any]
T = TypeVar("T")

PARTS = (32, 16, 8, 4, 2, 1)
"""Rows that one statement writes. The interpreter's lock changes hands around each statement, which under load costs
more than the row; and with few lengths all of them stay prepared."""

_BODIES = {
    table: {rows: f"INSERT INTO {table} (seq, data) VALUES {', '.join(['(?, ?)'] * rows)}" for rows in PARTS}  # noqa: S608
    for table in ("payload", "result")
}


class Statements:
    """Handed to every unit of verbs of one store. Holds nothing but the connection, and opens or ends no transaction:
    `database` does. Called, like the verbs, on the one thread that runs the connection's transactions.

    `run` and `run_many` are the connection's own methods: nothing of ours stands between a verb and SQLite."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.run = connection.execute
        self.run_many = connection.executemany

    def first(self, sql: str, *values: Any) -> Row | None:
        """The first row."""
        row: Row | None = self.run(sql, values).fetchone()
        return row

    def value(self, sql: str, *values: Any) -> Any:
        """The one column of the first row, which there must be."""
        (value,) = self.run(sql, values).fetchone()
        return value

    def insert_bodies(self, table: str, bodies: Sequence[tuple[int, bytes]]) -> None:
        """Into `payload` or `result`, by index of the job."""
        for part in parts(bodies):
            self.run(_BODIES[table][len(part)], [*chain.from_iterable(part)])


def parts(values: Sequence[T]) -> Iterable[Sequence[T]]:
    """In lengths of `PARTS`."""
    # hot: benchmarks/latency.py - nearly always one
    return (values,) if len(values) == 1 else _parts(values)


def _parts(values: Sequence[T]) -> Iterator[Sequence[T]]:
    start = 0
    for rows in PARTS:
        while len(values) - start >= rows:
            yield values[start : start + rows]
            start += rows
