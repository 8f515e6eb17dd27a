"""Removes what is old from SQLite, a few rows at a time.

Old rows are found by walking the tables in order of their keys, which is that of submission: no index has to be kept
up with every job for the sake of something that happens once an hour.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from itertools import starmap

import msgspec

from hecaton.store.port import ForgottenJobs, StoredBytes
from hecaton.store.sqlite.rows import Columns
from hecaton.store.sqlite.statements import Row, Statements
from hecaton.store.sqlite.tally import BATCH, FILE_ROW, JOB, Tally

_OLD_RESULTS = """
    SELECT seq, length(data), owner_id FROM result CROSS JOIN job USING (seq) WHERE result.seq < ? AND job.ended_at < ?
    ORDER BY result.seq LIMIT ?
"""

_OLD_LARGE_RESULTS = """
    SELECT seq FROM job INDEXED BY job_result_blob WHERE result_blob IS NOT NULL AND seq < ? AND ended_at < ? LIMIT ?
"""

_OLD_FILES = f"""
    SELECT made_file.seq, made_file.attempt, number, {FILE_ROW}, owner_id FROM made_file CROSS JOIN job USING (seq)
    WHERE made_file.seq < ? AND job.ended_at < ? ORDER BY made_file.seq LIMIT ?
"""  # noqa: S608

_DELETE_FILE = "DELETE FROM made_file WHERE seq = ? AND attempt = ? AND number = ?"

_UNNEEDED = """
    DELETE FROM made_blob WHERE seq = ?1 AND attempt = ?2
      AND NOT EXISTS (SELECT 1 FROM made_file WHERE seq = ?1 AND attempt = ?2)
"""

_OLD_CHECKPOINTS = """
    SELECT checkpoint.seq FROM checkpoint CROSS JOIN job USING (seq)
    WHERE job.state = 'FINISHED' OR (checkpoint.seq < ? AND job.ended_at < ?) LIMIT ?
"""

_OLD_PIECES = """
    SELECT log_piece.rowid, length(data), owner_id FROM log_piece CROSS JOIN job USING (seq)
    WHERE log_piece.seq < ? AND job.ended_at < ? ORDER BY log_piece.seq LIMIT ?
"""

_OLD_JOBS = """
    SELECT seq, payload_size + result_size, owner_id FROM job WHERE seq < ? AND ended_at < ? ORDER BY seq LIMIT ?
"""

_NEXT_JOBS = """
    SELECT seq, payload_size + result_size, owner_id, ended_at < ? AND (batch IS NULL OR (
        SELECT closed AND finished + failed + cancelled = size FROM batch WHERE batch.seq = job.batch
    )) FROM job INDEXED BY job_owner WHERE owner_id = ? AND seq > ? ORDER BY seq LIMIT ?
"""

_STORED = Columns(StoredBytes, "stored", {"owner_id": "stored.owner_id"})

_SUBMITTED = "SELECT created_at FROM job WHERE seq >= ? ORDER BY seq LIMIT 1"

_STEP_BYTES = 4 * 1024 * 1024
"""To free a row SQLite walks through all of its pages: this many bytes take some 50 ms on a busy machine."""

_EMPTY_BATCHES = """
    SELECT seq FROM batch WHERE created_at < ? AND NOT EXISTS (SELECT 1 FROM job WHERE job.batch = batch.seq)
      AND (?2 IS NULL OR owner_id = ?2) LIMIT ?3
"""


class _Old(msgspec.Struct, gc=False):
    """What may be removed, by its key in its table. `old`: it is."""

    key: int
    size: int
    owner_id: int
    old: bool = True


class _OldFile(msgspec.Struct, gc=False):
    seq: int
    attempt: int
    number: int
    size: int
    owner_id: int


class RetentionVerbs:
    """Only what belongs to ended jobs is removed. A call that returns 0 has left nothing that is old."""

    def __init__(self, statements: Statements, tally: Tally) -> None:
        self._tally = tally
        self._sql = statements.run
        self._sql_many = statements.run_many
        self._first = statements.first
        self._value = statements.value

    def forget_results(self, before: float, limit: int) -> int:
        end = self._first_since(before)
        rows = _bounded(self._sql(_OLD_RESULTS, (end, before, limit)))
        for row in rows:
            self._tally.add(row.owner_id, results=-row.size)
        self._sql_many("DELETE FROM result WHERE seq = ?", _keys(rows))
        large = self._sql(_OLD_LARGE_RESULTS, (end, before, limit - len(rows))).fetchall()
        self._sql_many("UPDATE job SET result_blob = NULL WHERE seq = ?", large)
        return len(rows) + len(large)

    def forget_logs(self, before: float, limit: int) -> int:
        rows = _bounded(self._sql(_OLD_PIECES, (self._first_since(before), before, limit)))
        for row in rows:
            self._tally.add(row.owner_id, logs=-row.size)
        self._sql_many("DELETE FROM log_piece WHERE rowid = ?", _keys(rows))
        return len(rows)

    def forget_files(self, before: float, limit: int) -> int:
        old = [*starmap(_OldFile, self._sql(_OLD_FILES, (self._first_since(before), before, limit)))]
        for one in old:
            self._tally.add(one.owner_id, results=-one.size)
        self._sql_many(_DELETE_FILE, [(one.seq, one.attempt, one.number) for one in old])
        self._sql_many(_UNNEEDED, sorted({(one.seq, one.attempt) for one in old}))
        states = self._sql(_OLD_CHECKPOINTS, (self._first_since(before), before, limit)).fetchall()
        self._sql_many("DELETE FROM checkpoint_blob WHERE seq = ?", states)
        self._sql_many("DELETE FROM checkpoint WHERE seq = ?", states)
        return len(old) + len(states)

    def forget_jobs(self, before: float, limit: int) -> int:
        rows = _bounded(self._sql(_OLD_JOBS, (self._first_since(before), before, limit)))
        self._delete_jobs(rows)
        self._delete_empty_batches(before, None, limit)
        return len(rows)

    def forget_ended(self, owner_id: int, before: float, after: int, limit: int) -> ForgottenJobs:
        seen = _bounded(self._sql(_NEXT_JOBS, (before, owner_id, after, limit)))
        old = [row for row in seen if row.old]
        self._delete_jobs(old)
        if not seen and self._delete_empty_batches(before, owner_id, limit) == limit:
            return ForgottenJobs(0, after)
        return ForgottenJobs(len(old), max((one.key for one in seen), default=None))

    def _delete_jobs(self, rows: Sequence[_Old]) -> None:
        for key in _keys(rows):
            owner_id, payloads, results, logs = self._sql(f"{JOB} WHERE seq = ?", key).fetchone()
            self._tally.add(owner_id, payloads=-payloads, results=-results, logs=-logs)
        self._sql_many("DELETE FROM job WHERE seq = ?", _keys(rows))

    def _delete_empty_batches(self, before: float, owner_id: int | None, limit: int) -> int:
        keys = self._sql(_EMPTY_BATCHES, (before, owner_id, limit)).fetchall()
        for key in keys:
            owner, size = self._sql(f"{BATCH} WHERE seq = ?", key).fetchone()
            self._tally.add(owner, payloads=-size)
            self._sql("DELETE FROM batch WHERE seq = ?", key)
        return len(keys)

    def stored(self) -> list[StoredBytes]:
        return [_STORED.of(row) for row in self._sql(f"SELECT {_STORED.sql} FROM stored")]  # noqa: S608

    def give_back(self, pages: int) -> int:
        """SQLite moves the last pages of the file into holes, and cuts it off there. One at a time: the interpreter
        takes one step with a statement that returns nothing, and a step is a page."""
        for _ in range(min(pages, self._value("PRAGMA freelist_count"))):
            self._sql("PRAGMA incremental_vacuum(1)")
        free: int = self._value("PRAGMA freelist_count")
        return free

    def _first_since(self, at: float) -> int:
        """The index of the first job submitted at or after `at`; one more than the last if there is none. By halving:
        indexes rise with time."""
        low, high = 1, self._value("SELECT coalesce(max(seq), 0) FROM job") + 1
        while low < high:
            middle = (low + high) // 2
            (created_at,) = self._first(_SUBMITTED, middle) or (math.inf,)
            if created_at < at:
                low = middle + 1
            else:
                high = middle
        return low


def _bounded(rows: Iterable[Row]) -> list[_Old]:
    """The first that together are not too large, at least one."""
    chosen: list[_Old] = []
    left = _STEP_BYTES
    for one in starmap(_Old, rows):
        if chosen and one.size > left:
            break
        left -= one.size
        chosen.append(one)
    return chosen


def _keys(rows: Sequence[_Old]) -> list[tuple[int]]:
    return [(row.key,) for row in rows]
