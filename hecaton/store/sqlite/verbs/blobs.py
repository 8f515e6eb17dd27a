"""The register of blobs in SQLite: which there are, and who added them."""

from __future__ import annotations

from collections.abc import Sequence

from hecaton.store.sqlite.statements import Statements
from hecaton.store.sqlite.tally import Tally

_UNUSED = """
    SELECT sha256 FROM blob
    WHERE NOT EXISTS (SELECT 1 FROM job WHERE payload_blob = blob.sha256)
      AND NOT EXISTS (SELECT 1 FROM job WHERE result_blob = blob.sha256)
      AND NOT EXISTS (SELECT 1 FROM job WHERE file = blob.sha256)
      AND NOT EXISTS (SELECT 1 FROM made_blob WHERE sha256 = blob.sha256)
      AND NOT EXISTS (SELECT 1 FROM folder_blob WHERE sha256 = blob.sha256)
      AND NOT EXISTS (SELECT 1 FROM checkpoint_blob WHERE sha256 = blob.sha256)
    GROUP BY sha256 HAVING max(added_at) < ? LIMIT ?
"""


class BlobVerbs:
    """Names only: the bytes are in the folder of `hecaton.store.blobs`, complete before their name comes here."""

    def __init__(self, statements: Statements, tally: Tally) -> None:
        self._tally = tally
        self._sql = statements.run
        self._first = statements.first

    def add_blob(self, sha256: str, owner_id: int, size: int, now: float) -> None:
        if not self.has_blob(sha256, owner_id):
            self._tally.add(owner_id, files=size)
        self._sql(
            "INSERT INTO blob (sha256, owner_id, size, added_at) VALUES (?, ?, ?, ?)"
            " ON CONFLICT (sha256, owner_id) DO UPDATE SET added_at = excluded.added_at",
            (sha256, owner_id, size, now),
        )

    def has_blob(self, sha256: str, owner_id: int) -> bool:
        return self._first("SELECT 1 FROM blob WHERE sha256 = ? AND owner_id = ?", sha256, owner_id) is not None

    def unused_blobs(self, before: float, limit: int = 1000) -> list[str]:
        return [sha256 for (sha256,) in self._sql(_UNUSED, (before, limit))]

    def forget_blobs(self, sha256s: Sequence[str]) -> None:
        for sha256 in sha256s:
            for owner_id, size in self._sql(
                "DELETE FROM blob WHERE sha256 = ? RETURNING owner_id, size", (sha256,)
            ).fetchall():
                self._tally.add(owner_id, files=-size)
            self._sql("DELETE FROM bundled WHERE blob = ?", (sha256,))
