"""Removes what is old from SQLite, a few rows at a time.

Old rows are found by walking the tables in order of their keys, which is that of submission: no index has to be kept
up with every job for the sake of something that happens once an hour.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

from hecaton.store.sqlite.statements import Row, Statements

_OLD_RESULTS = """
    SELECT seq, length(data) FROM result CROSS JOIN job USING (seq) WHERE result.seq < ? AND job.ended_at < ?
    ORDER BY result.seq LIMIT ?
"""

_OLD_LARGE_RESULTS = """
    SELECT seq FROM job INDEXED BY job_result_blob WHERE result_blob IS NOT NULL AND seq < ? AND ended_at < ? LIMIT ?
"""

_OLD_PIECES = """
    SELECT log_piece.rowid, length(data) FROM log_piece CROSS JOIN job USING (seq)
    WHERE log_piece.seq < ? AND job.ended_at < ? ORDER BY log_piece.seq LIMIT ?
"""

_OLD_JOBS = """
    SELECT seq, payload_size + result_size FROM job WHERE seq < ? AND ended_at < ? ORDER BY seq LIMIT ?
"""

_SUBMITTED = "SELECT created_at FROM job WHERE seq >= ? ORDER BY seq LIMIT 1"

_STEP_BYTES = 4 * 1024 * 1024
"""To free a row SQLite walks through all of its pages: this many bytes take some 50 ms on a busy machine."""

_EMPTY_BATCHES = """
    DELETE FROM batch WHERE seq IN (
      SELECT seq FROM batch WHERE created_at < ? AND NOT EXISTS (SELECT 1 FROM job WHERE job.batch = batch.seq)
      LIMIT ?
    )
"""


class RetentionVerbs:
    """Only what belongs to ended jobs is removed. A call that returns 0 has left nothing that is old."""

    def __init__(self, statements: Statements) -> None:
        self._sql = statements.run
        self._sql_many = statements.run_many
        self._first = statements.first
        self._value = statements.value

    def forget_results(self, before: float, limit: int) -> int:
        end = self._first_since(before)
        rows = _bounded(self._sql(_OLD_RESULTS, (end, before, limit)))
        self._sql_many("DELETE FROM result WHERE seq = ?", rows)
        large = self._sql(_OLD_LARGE_RESULTS, (end, before, limit - len(rows))).fetchall()
        self._sql_many("UPDATE job SET result_blob = NULL WHERE seq = ?", large)
        return len(rows) + len(large)

    def forget_logs(self, before: float, limit: int) -> int:
        rows = _bounded(self._sql(_OLD_PIECES, (self._first_since(before), before, limit)))
        self._sql_many("DELETE FROM log_piece WHERE rowid = ?", rows)
        return len(rows)

    def forget_jobs(self, before: float, limit: int) -> int:
        rows = _bounded(self._sql(_OLD_JOBS, (self._first_since(before), before, limit)))
        self._sql_many("DELETE FROM job WHERE seq = ?", rows)
        self._sql(_EMPTY_BATCHES, (before, limit))
        return len(rows)

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


def _bounded(rows: Iterable[Row]) -> list[tuple[int]]:
    """The keys of the first rows that together are not too large, at least of one."""
    keys: list[tuple[int]] = []
    left = _STEP_BYTES
    for key, size in rows:
        if keys and size > left:
            break
        left -= size
        keys.append((key,))
    return keys
