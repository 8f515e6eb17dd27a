"""The database adapter for SQLite: one writer thread with group commit, one reader thread with snapshots of its own.

With `inline=True` nothing runs in a thread: every call is executed in the caller, in order, which makes a whole server
deterministic for tests and simulation.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any, TypeVar, cast

from hecaton.core.errors import Unavailable
from hecaton.store.port import Store
from hecaton.store.sqlite.file import MEMORY, connect, is_sync_failure, move_log, open_file, translated, unavailable
from hecaton.store.sqlite.store import SqliteStore
from hecaton.store.writer import BatchThread, Outcome, Runner, Work

T = TypeVar("T")

_WRITES_PER_COMMIT = 256
_READS_PER_SNAPSHOT = 32


Timed = Callable[[str, Runner], Runner]
"""Of a runner for what is of a kind, "read" or "write", makes another one that does the same."""


def open_database(path: Path, timed: Timed | None = None) -> SqliteDatabase:
    """Open the file, create it if absent, migrate it. Unavailable, with what to do, if it cannot be used. Blocks."""
    return SqliteDatabase(path, timed=timed)


class SqliteDatabase:
    """The `Database` port over one file, or over memory (`Path(":memory:")`: gone when closed). Called on event loops.

    Only the writer's thread writes, and each connection is one thread's own from the first work on."""

    def __init__(self, path: Path, *, inline: bool = False, timed: Timed | None = None) -> None:
        self._path, self._timed = path, timed
        self._connections = [open_file(path)]
        writer = _Transactions(self._connections[0], path)
        self._write_inline: Runner | None = writer.run if inline else None
        self._threads: list[BatchThread] = []
        self._closed = False
        if inline:
            return
        self._writer = self._reader = self._thread("writer", "write", writer.run, _WRITES_PER_COMMIT)
        if path != MEMORY:  # memory is one connection's own: there, reads queue up with the writes
            self._connections.append(connect(path, read_only=True))
            reader = _Snapshots(self._connections[1], path)
            self._reader = self._thread("reader", "read", reader.run, _READS_PER_SNAPSHOT)

    def _thread(self, name: str, kind: str, runner: Runner, limit: int) -> BatchThread:
        runner = runner if self._timed is None else self._timed(kind, runner)
        thread = BatchThread(f"hecaton-store-{name}", runner, limit)
        self._threads.append(thread)
        return thread

    def write(self, work: Callable[[Store], T]) -> Coroutine[Any, Any, T]:
        return self._writer.run(work) if self._write_inline is None else self._now(self._write_inline, work)

    def read(self, work: Callable[[Store], T]) -> Coroutine[Any, Any, T]:
        return self._reader.run(work) if self._write_inline is None else self._now(self._write_inline, work)

    async def _now(self, runner: Runner, work: Callable[[Store], T]) -> T:
        if self._closed:
            raise Unavailable("the store is closed")
        value, error = runner([work])[0]
        if error is not None:
            raise error
        return cast(T, value)

    async def settle(self) -> None:
        """Moves the log into the file, which is cut off at its new end then. Holds up nobody: not the writer either."""
        if self._path != MEMORY:
            await asyncio.to_thread(move_log, self._path)

    async def close(self) -> None:
        """Finishes what was handed in, then closes the file. May be called twice."""
        self._closed = True
        for thread in self._threads:
            await thread.close()
        for connection in reversed(self._connections):  # the writer last: it clears the log away
            connection.close()


class _Transactions:
    """Runs a batch of works in one transaction.

    First all together, without safeguards: the usual case. If one raises, the whole is undone and run again with a
    savepoint around each, so that the failing work takes nobody with it. Hence works must be safe to run twice.

    Called on the writer's thread. Between two batches no transaction is open. After a failed fsync all is refused.
    """

    def __init__(self, connection: sqlite3.Connection, path: Path) -> None:
        self._connection = connection
        self._store = SqliteStore(connection)
        self._path = path
        self._broken = False

    def run(self, batch: Sequence[Work]) -> list[Outcome]:
        if self._broken:
            return [(None, self._refusal()) for _ in batch]
        try:
            return self._commit(batch, self._plain)
        except BaseException as error:
            self._undo()
            if unavailable(error, self._path) is not None:
                return self._all_failed(batch, error)
            if len(batch) == 1:
                return [(None, translated(error, self._path))]
        try:
            return self._commit(batch, self._guarded)
        except BaseException as error:
            self._undo()
            return self._all_failed(batch, error)

    def _commit(self, batch: Sequence[Work], run: Callable[[Work], Outcome]) -> list[Outcome]:
        self._connection.execute("BEGIN IMMEDIATE")
        outcomes = [run(work) for work in batch]
        self._connection.execute("COMMIT")
        return outcomes

    def _plain(self, work: Work) -> Outcome:
        return work(self._store), None

    def _guarded(self, work: Work) -> Outcome:
        self._connection.execute("SAVEPOINT work")
        try:
            value = work(self._store)
        except BaseException as error:
            if unavailable(error, self._path) is not None:
                raise
            self._connection.execute("ROLLBACK TO work")
            self._connection.execute("RELEASE work")
            return None, translated(error, self._path)
        self._connection.execute("RELEASE work")
        return value, None

    def _undo(self) -> None:
        try:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
        except sqlite3.Error:
            # SQLite has rolled back already, or cannot even do that: the next BEGIN will say so.
            return

    def _all_failed(self, batch: Sequence[Work], error: BaseException) -> list[Outcome]:
        self._broken = is_sync_failure(error)
        # One exception object each: raised in many tasks, a shared one would collect all their tracebacks.
        return [(None, translated(error, self._path)) for _ in batch]

    def _refusal(self) -> Unavailable:
        return Unavailable(
            f"the disk failed to store the database {self._path} (fsync error): nothing more is accepted",
            "Check the disk, then restart the server.",
        )


class _Snapshots:
    """Runs a batch of reads on one consistent snapshot, taken after the last of them was asked for. Called on the
    reader's thread; between two batches no transaction is open, so that the log can be cleared away."""

    def __init__(self, connection: sqlite3.Connection, path: Path) -> None:
        self._connection = connection
        self._store = SqliteStore(connection)
        self._path = path

    def run(self, batch: Sequence[Work]) -> list[Outcome]:
        try:
            self._connection.execute("BEGIN")
            outcomes = [self._one(work) for work in batch]
            self._connection.execute("COMMIT")
        except sqlite3.Error as error:
            if self._connection.in_transaction:
                self._connection.rollback()
            return [(None, translated(error, self._path)) for _ in batch]
        return outcomes

    def _one(self, work: Work) -> Outcome:
        try:
            return work(self._store), None
        except BaseException as error:
            return None, translated(error, self._path)
