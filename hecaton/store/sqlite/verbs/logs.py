"""Logs of attempts and the register of blobs in SQLite."""

from __future__ import annotations

from collections.abc import Sequence

from hecaton.core.errors import NotFound
from hecaton.core.model import AttemptRef, JobId
from hecaton.store.sqlite.rows import Verbs

_PIECES = """
    SELECT log_piece.start, log_piece.data FROM job JOIN log_piece ON log_piece.seq = job.seq
    WHERE job.id = ? AND log_piece.attempt = ?
"""

_UNUSED = """
    SELECT sha256 FROM blob
    WHERE NOT EXISTS (SELECT 1 FROM job WHERE payload_blob = blob.sha256)
      AND NOT EXISTS (SELECT 1 FROM job WHERE result_blob = blob.sha256)
      AND NOT EXISTS (SELECT 1 FROM job WHERE file = blob.sha256)
    GROUP BY sha256 HAVING max(added_at) < ? LIMIT ?
"""


class LogVerbs(Verbs):
    # -- logs ----------------------------------------------------------------------------------
    def append_log(self, ref: AttemptRef, offset: int, data: bytes) -> int:
        row = self._row(
            "SELECT seq FROM job WHERE id = ? AND attempt >= ? AND ? >= 1", ref.job, ref.attempt, ref.attempt
        )
        if row is None:
            raise NotFound(f"job {ref.job} has no attempt {ref.attempt}")
        seq = row[0]
        last = self._row(
            "SELECT start + length(data) FROM log_piece WHERE seq = ? AND attempt = ? ORDER BY start DESC LIMIT 1",
            seq,
            ref.attempt,
        )
        length: int = last[0] if last else 0
        fresh = data[length - offset :]
        if offset > length or not fresh:
            return length
        self._sql(
            "INSERT INTO log_piece (seq, attempt, start, data) VALUES (?, ?, ?, ?)", (seq, ref.attempt, length, fresh)
        )
        return length + len(fresh)

    def read_log(self, job: JobId, attempt: int, offset: int, limit: int) -> bytes:
        first = self._row(f"{_PIECES} AND start <= ? ORDER BY start DESC LIMIT 1", job, attempt, offset)
        if first is None:
            return b""
        end = offset + limit
        rows = self._sql(f"{_PIECES} AND start >= ? AND start < ? ORDER BY start", (job, attempt, first[0], end))
        return b"".join(row[1] for row in rows)[offset - first[0] : end - first[0]]

    def log_tail(self, job: JobId, attempt: int, limit: int) -> bytes:
        pieces: list[bytes] = []
        size = 0
        for row in self._sql(f"{_PIECES} ORDER BY start DESC", (job, attempt)):
            if size >= limit:
                break
            pieces.append(row[1])
            size += len(row[1])
        return b"".join(reversed(pieces))[max(0, size - limit) :]

    # -- blobs ---------------------------------------------------------------------------------
    def add_blob(self, sha256: str, owner_id: int, size: int, now: float) -> None:
        self._sql(
            "INSERT INTO blob (sha256, owner_id, size, added_at) VALUES (?, ?, ?, ?)"
            " ON CONFLICT (sha256, owner_id) DO UPDATE SET added_at = excluded.added_at",
            (sha256, owner_id, size, now),
        )

    def has_blob(self, sha256: str, owner_id: int) -> bool:
        return self._row("SELECT 1 FROM blob WHERE sha256 = ? AND owner_id = ?", sha256, owner_id) is not None

    def unused_blobs(self, before: float, limit: int = 1000) -> list[str]:
        return [row[0] for row in self._sql(_UNUSED, (before, limit))]

    def forget_blobs(self, sha256s: Sequence[str]) -> None:
        self._sql_many("DELETE FROM blob WHERE sha256 = ?", [(sha256,) for sha256 in sha256s])
