"""Logs of attempts in SQLite."""

from __future__ import annotations

from hecaton.core.errors import NotFound
from hecaton.core.model import AttemptRef, JobId
from hecaton.store.sqlite.statements import Statements
from hecaton.store.sqlite.tally import Tally

_PIECES = """
    SELECT log_piece.start, log_piece.data FROM job JOIN log_piece ON log_piece.seq = job.seq
    WHERE job.id = ? AND log_piece.attempt = ?
"""


_DELETE_FROM = """
    DELETE FROM log_piece WHERE seq = (SELECT seq FROM job WHERE id = ?) AND attempt = ? AND start >= ?
"""
_AFTER = """
    SELECT job.owner_id, start + length(data) - ? FROM job JOIN log_piece ON log_piece.seq = job.seq
    WHERE job.id = ? AND log_piece.attempt = ? ORDER BY start DESC LIMIT 1
"""
_CUT_AT = """
    UPDATE log_piece SET data = substr(data, 1, ? - start)
    WHERE seq = (SELECT seq FROM job WHERE id = ?) AND attempt = ? AND start + length(data) > ?
"""


class LogVerbs:
    """The pieces of an attempt's log have no gaps and do not overlap."""

    def __init__(self, statements: Statements, tally: Tally) -> None:
        self._tally = tally
        self._sql = statements.run
        self._first = statements.first

    def append_log(self, ref: AttemptRef, offset: int, data: bytes) -> int:
        row = self._first(
            "SELECT seq, owner_id FROM job WHERE id = ? AND attempt >= ? AND ? >= 1", ref.job, ref.attempt, ref.attempt
        )
        if row is None:
            raise NotFound(f"job {ref.job} has no attempt {ref.attempt}")
        seq, owner_id = row
        row = self._first(
            "SELECT start + length(data) FROM log_piece WHERE seq = ? AND attempt = ? ORDER BY start DESC LIMIT 1",
            seq,
            ref.attempt,
        )
        length: int
        (length,) = row or (0,)
        fresh = data[length - offset :]
        if offset > length or not fresh:
            return length
        self._sql(
            "INSERT INTO log_piece (seq, attempt, start, data) VALUES (?, ?, ?, ?)", (seq, ref.attempt, length, fresh)
        )
        self._tally.add(owner_id, logs=len(fresh))
        return length + len(fresh)

    def cut_log(self, ref: AttemptRef, size: int) -> None:
        row = self._first(_AFTER, size, ref.job, ref.attempt)
        if row is not None:
            owner_id, beyond = row
            self._tally.add(owner_id, logs=-max(0, beyond))
        self._sql(_DELETE_FROM, (ref.job, ref.attempt, size))
        self._sql(_CUT_AT, (size, ref.job, ref.attempt, size))

    def read_log(self, job: JobId, attempt: int, offset: int, limit: int) -> bytes:
        first = self._first(f"{_PIECES} AND start <= ? ORDER BY start DESC LIMIT 1", job, attempt, offset)
        if first is None:
            return b""
        start, _ = first
        end = offset + limit
        rows = self._sql(f"{_PIECES} AND start >= ? AND start < ? ORDER BY start", (job, attempt, start, end))
        return b"".join(data for _, data in rows)[offset - start : end - start]

    def log_tail(self, job: JobId, attempt: int, limit: int) -> bytes:
        pieces: list[bytes] = []
        size = 0
        for _, data in self._sql(f"{_PIECES} ORDER BY start DESC", (job, attempt)):
            if size >= limit:
                break
            pieces.append(data)
            size += len(data)
        return b"".join(reversed(pieces))[max(0, size - limit) :]
