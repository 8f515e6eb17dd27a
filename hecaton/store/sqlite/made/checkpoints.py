"""The state of jobs in SQLite: of each the newest complete checkpoint, and in which blobs its bytes are."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from msgspec.json import Decoder

from hecaton.core.errors import BadRequest, Fenced
from hecaton.core.files.kept import KeptFile
from hecaton.core.model import AttemptRef, JobId
from hecaton.store.port.files import Checkpoint
from hecaton.store.sqlite.rows import Columns
from hecaton.store.sqlite.statements import Statements

_ONE = Columns(Checkpoint, "checkpoint", made={"files": Decoder(tuple[KeptFile, ...]).decode})

_OF = f"SELECT {_ONE.sql} FROM checkpoint WHERE seq = (SELECT seq FROM job WHERE id = ?)"  # noqa: S608

_DROPPED = """
    UPDATE blob SET added_at = 0 WHERE owner_id = ?2
      AND sha256 IN (SELECT sha256 FROM checkpoint_blob WHERE seq = ?1)
      AND sha256 NOT IN (SELECT value FROM json_each(?3))
"""
"""Nobody waits for a job that may still name them: they go with the next cleaning."""

_INHERIT = """
    INSERT INTO checkpoint SELECT ?1, 0, made_at, files FROM checkpoint
    WHERE seq = (SELECT seq FROM job WHERE id = ?2 AND state <> 'FINISHED')
"""

_INHERIT_BLOBS = """
    INSERT INTO checkpoint_blob SELECT ?1, sha256 FROM checkpoint_blob WHERE seq = (SELECT seq FROM job WHERE id = ?2)
"""

_HAS_ONE = "UPDATE job SET checkpoint = 1 WHERE seq = ?"


class CheckpointVerbs:
    """A job has one or none. Its bytes count where the blobs were added."""

    def __init__(self, statements: Statements) -> None:
        self._sql = statements.run
        self._sql_many = statements.run_many
        self._first = statements.first

    def keep_checkpoint(self, ref: AttemptRef, files: Sequence[KeptFile], now: float) -> None:
        job = self._first("SELECT seq, owner_id FROM job WHERE id = ? AND attempt = ?", ref.job, ref.attempt)
        if job is None:
            raise Fenced(f"attempt {ref.attempt} is not the one at job {ref.job}")
        seq, owner_id = job
        blobs = sorted({piece.blob for file in files for piece in file.pieces})
        for blob in blobs:
            if self._first("SELECT 1 FROM blob WHERE sha256 = ? AND owner_id = ?", blob, owner_id) is None:
                raise BadRequest("a checkpoint names content that did not come from this worker")
        self._sql(_DROPPED, (seq, owner_id, msgspec.json.encode(blobs).decode()))
        self._sql("DELETE FROM checkpoint_blob WHERE seq = ?", (seq,))
        self._sql_many("INSERT INTO checkpoint_blob VALUES (?, ?)", [(seq, blob) for blob in blobs])
        row = (seq, ref.attempt, now, msgspec.json.encode(files))
        self._sql("INSERT OR REPLACE INTO checkpoint VALUES (?, ?, ?, ?)", row)
        self._sql(_HAS_ONE, (seq,))

    def checkpoint(self, job: JobId) -> Checkpoint | None:
        row = self._first(_OF, job)
        return None if row is None else _ONE.of(row)

    def inherit_checkpoint(self, seq: int, old: JobId) -> None:
        """To a new job, by its number, from the one that it repeats, unless that has finished."""
        if self._sql(_INHERIT, (seq, old)).rowcount > 0:
            self._sql(_INHERIT_BLOBS, (seq, old))
            self._sql(_HAS_ONE, (seq,))
