"""Files of attempts in SQLite: what they are called, and in which blobs their bytes are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
from msgspec.json import Decoder

from hecaton.core.errors import BadRequest, NotFound
from hecaton.core.files.kept import KeptFile, Piece
from hecaton.core.model import AttemptRef, JobId
from hecaton.store.port.files import FileSums
from hecaton.store.sqlite.rows import Columns
from hecaton.store.sqlite.statements import Statements
from hecaton.store.sqlite.tally import FILE_ROW, Tally

_SUMS = """
    SELECT attempt, sum(why = ''), sum(CASE WHEN why = '' THEN size ELSE 0 END), sum(why <> '') FROM made_file
    WHERE seq = (SELECT seq FROM job WHERE id = ?1)
      AND attempt = coalesce(?2, (SELECT max(attempt) FROM made_file WHERE seq = (SELECT seq FROM job WHERE id = ?1)))
    GROUP BY attempt
"""

_FILE = Columns(KeptFile, "made_file", {"pieces": "'[]'"}, {"executable": bool, "pieces": lambda _: ()})
_WHOLE_FILE = Columns(KeptFile, "made_file", made={"executable": bool, "pieces": Decoder(tuple[Piece, ...]).decode})

_OF = "made_file WHERE seq = (SELECT seq FROM job WHERE id = ?) AND attempt = ?"

_TAKEN = f"""
    SELECT coalesce(sum({FILE_ROW}), 0) FROM made_file WHERE seq = ? AND attempt = ? AND number >= ? AND number < ?
"""  # noqa: S608


class FileVerbs:
    """What a file's row takes counts as a result of its job's owner, its bytes where the blob was added."""

    def __init__(self, statements: Statements, tally: Tally) -> None:
        self._tally = tally
        self._sql = statements.run
        self._sql_many = statements.run_many
        self._first = statements.first
        self._value = statements.value

    def keep_files(self, ref: AttemptRef, first: int, files: Sequence[KeptFile]) -> None:
        job = self._first("SELECT seq, owner_id FROM job WHERE id = ? AND attempt >= ?", ref.job, ref.attempt)
        if job is None:
            raise NotFound(f"job {ref.job} has no attempt {ref.attempt}")
        seq, owner_id = job
        self._require_blobs(owner_id, files)
        numbers = (seq, ref.attempt, first, first + len(files))
        rows = [(seq, ref.attempt, first + index, *_columns(file)) for index, file in enumerate(files)]
        before = self._value(_TAKEN, *numbers)
        self._sql_many("INSERT OR REPLACE INTO made_file VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", rows)
        blobs = {piece.blob for file in files for piece in file.pieces}
        self._sql_many(
            "INSERT OR IGNORE INTO made_blob VALUES (?, ?, ?)", [(seq, ref.attempt, blob) for blob in sorted(blobs)]
        )
        self._tally.add(owner_id, results=self._value(_TAKEN, *numbers) - before)

    def _require_blobs(self, owner_id: int, files: Sequence[KeptFile]) -> None:
        sizes: dict[str, int] = {}
        for file in files:
            for piece in file.pieces:
                if piece.blob not in sizes:
                    row = self._first("SELECT size FROM blob WHERE sha256 = ? AND owner_id = ?", piece.blob, owner_id)
                    (sizes[piece.blob],) = row or (-1,)
                if piece.start + piece.size > sizes[piece.blob]:
                    raise BadRequest(f"{file.path[:80]!r} is not kept: no such content came from this worker")

    def file_sums(self, job: JobId, attempt: int | None) -> FileSums | None:
        row = self._first(_SUMS, job, attempt)
        return None if row is None else FileSums(*row)

    def files(self, job: JobId, attempt: int, after: int, limit: int) -> list[tuple[int, KeptFile]]:
        asked = f"SELECT number, {_FILE.sql} FROM {_OF} AND number >= ? ORDER BY number LIMIT ?"  # noqa: S608
        return [(number, _FILE.of(rest)) for number, *rest in self._sql(asked, (job, attempt, after, limit))]

    def file(self, job: JobId, attempt: int, number: int) -> KeptFile | None:
        row = self._first(f"SELECT {_WHOLE_FILE.sql} FROM {_OF} AND number = ?", job, attempt, number)  # noqa: S608
        return None if row is None else _WHOLE_FILE.of(row)


def _columns(file: KeptFile) -> tuple[Any, ...]:
    """As they stand in the table, behind the key."""
    return (file.path, file.size, file.sha256, file.executable, msgspec.json.encode(file.pieces), file.why)
