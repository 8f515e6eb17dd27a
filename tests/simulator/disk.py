"""The server's disk: the real SQLite store in memory, with commit times, a full disk, and kills between commit and
reply. What is committed stays, whatever happens to the server's process."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, TypeVar, cast

from hecaton.core.errors import Unavailable
from hecaton.store.port import Store
from hecaton.store.sqlite.database import SqliteDatabase
from tests.simulator.loop import Process, SimLoop
from tests.simulator.oracle import Moved, Oracle

T = TypeVar("T")
Work = Callable[[Store], Any]

_BATCH = 256

_WATCH = """
    CREATE TEMP TABLE moved (
      seq, id, key, old_state, state, old_attempt, attempt, worker_id, slot, reason, user_failures, infra_failures
    );
    CREATE TEMP TRIGGER watch_new AFTER INSERT ON job BEGIN
      INSERT INTO moved VALUES (new.seq, new.id, new.key, NULL, new.state, NULL, new.attempt, new.worker_id, new.slot,
                                new.reason, new.user_failures, new.infra_failures);
    END;
    CREATE TEMP TRIGGER watch_move AFTER UPDATE ON job BEGIN
      INSERT INTO moved VALUES (new.seq, new.id, new.key, old.state, new.state, old.attempt, new.attempt,
                                new.worker_id, new.slot, new.reason, new.user_failures, new.infra_failures);
    END;
    CREATE TEMP TRIGGER watch_gone AFTER DELETE ON job BEGIN
      INSERT INTO moved VALUES (old.seq, old.id, old.key, old.state, 'DELETED', old.attempt, 0, NULL, NULL, NULL, 0, 0);
    END;
    CREATE TEMP TRIGGER watch_result AFTER INSERT ON result BEGIN
      INSERT INTO moved VALUES (new.seq, NULL, NULL, NULL, 'RESULT', NULL, 0, NULL, NULL, NULL, 0, 0);
    END;
    CREATE TEMP TRIGGER watch_result_change BEFORE UPDATE ON result BEGIN SELECT RAISE(ABORT, 'a result changed'); END;
"""
"""Triggers see every row that changes, whatever verb changed it."""


class DiskFull(Unavailable):
    """The one error of which the server may complain in its log."""


class Disk:
    """`full`: nothing can be written. `slow`: factor on the time of a commit."""

    def __init__(self, oracle: Oracle) -> None:
        self.database = SqliteDatabase(Path(":memory:"), inline=True)
        self.full = False
        self.slow = 1.0
        self._oracle = oracle
        self._connection = self.database._connections[0]
        self._connection.executescript(_WATCH)
        self._changes = self._connection.total_changes

    def run(self, work: Callable[[Store], T], *, reading: bool = False) -> T:
        """In a transaction of its own. Raises what the store raises."""
        if self.full and not reading:
            raise DiskFull("the disk is full: nothing can be written", "Free some space.")
        value = run_now(self.database.write(work))
        if self._connection.total_changes != self._changes:
            self._tell()
        return value

    def _tell(self) -> None:
        rows = self._connection.execute("SELECT * FROM moved ORDER BY rowid").fetchall()
        if rows:
            self._connection.execute("DELETE FROM moved")
            self._oracle.committed([Moved(*row) for row in rows])
        self._changes = self._connection.total_changes


def run_now(coroutine: Coroutine[Any, Any, T]) -> T:
    """The result of a coroutine that never waits."""
    try:
        coroutine.send(None)
    except StopIteration as end:
        return cast(T, end.value)
    raise AssertionError("it waits")


class SimDatabase:
    """The `Database` port of one server process: group commit that takes time."""

    def __init__(self, loop: SimLoop, process: Process, disk: Disk, rng: random.Random, commit: float) -> None:
        self._loop, self._process, self._disk, self._rng, self._commit = loop, process, disk, rng, commit
        self._writes: list[tuple[asyncio.Future[Any], Work]] = []
        self._writing = False
        self.closed = False

    async def write(self, work: Callable[[Store], T]) -> T:
        if self.closed:
            raise Unavailable("the store is closed")
        future: asyncio.Future[T] = self._loop.create_future()
        self._writes.append((future, work))
        if not self._writing:
            self._writing = True
            self._later(self._pause(self._commit), self._write)
        return await future

    async def read(self, work: Callable[[Store], T]) -> T:
        if self.closed:
            raise Unavailable("the store is closed")
        future: asyncio.Future[T] = self._loop.create_future()
        self._later(self._pause(self._commit / 5), self._read, future, work)
        return await future

    async def settle(self) -> None: ...

    async def close(self) -> None:
        self.closed = True

    def _pause(self, mean: float) -> float:
        return mean * self._rng.uniform(0.3, 3.0) * self._disk.slow

    def _later(self, delay: float, call: Callable[..., object], *args: Any) -> None:
        self._loop.post(self._process, delay, call, *args)

    def _read(self, future: asyncio.Future[Any], work: Work) -> None:
        self._settle([(future, *self._outcome(work, reading=True))])

    def _write(self) -> None:
        """Here it is durable; the server hears of it later, if it lives."""
        batch, self._writes = self._writes[:_BATCH], self._writes[_BATCH:]
        settled = [(future, *self._outcome(work)) for future, work in batch]
        self._later(self._pause(self._commit / 10), self._settle, settled)
        self._writing = bool(self._writes)
        if self._writing:
            self._later(self._pause(self._commit), self._write)

    def _outcome(self, work: Work, *, reading: bool = False) -> tuple[Any, BaseException | None]:
        if self.closed:
            return None, Unavailable("the store is closed")
        try:
            return self._disk.run(work, reading=reading), None
        except Exception as error:
            return None, error

    def _settle(self, settled: list[tuple[asyncio.Future[Any], Any, BaseException | None]]) -> None:
        for future, value, error in settled:
            if future.done():
                continue
            if error is None:
                future.set_result(value)
            else:
                future.set_exception(error)


class NoBlobs:
    """The `Blobs` port of a world in which everything is small enough to travel inside messages."""

    def path(self, sha256: str) -> str | None:
        return None

    def writer(self) -> Any:
        raise AssertionError("nothing here is large")

    def delete(self, sha256: str) -> None:
        raise AssertionError("nothing here is large")
